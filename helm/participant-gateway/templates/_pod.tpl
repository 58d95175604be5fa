{{/* The pod's template, for the Deployment. */}}
{{- define "participant-gateway.pod" -}}
metadata:
  labels:
    {{- include "participant-gateway.labels" (dict "root" . "labels" .Values.podLabels) | nindent 4 }}
  annotations:
    # A running pod keeps the share that it started with: a changed count rolls the pods.
    participant-gateway/replicas: {{ include "participant-gateway.storeReplicas" . | quote }}
    {{- if .Values.rolloutOnConfigChange }}
    checksum/config: {{ include "participant-gateway.config" . | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "participant-gateway.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.automountServiceAccountToken | default false }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with include "participant-gateway.imagePullSecrets" . }}
  {{- . | nindent 2 }}
  {{- end }}
  securityContext:
    {{- include "participant-gateway.podSecurityContext" . | nindent 4 }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.dnsPolicy }}
  dnsPolicy: {{ . }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: gateway
      {{- include "participant-gateway.gateway" . | nindent 6 }}
    {{- if eq (include "participant-gateway.simulates" .) "true" }}
    - name: simulator
      image: {{ include "participant-gateway.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [simulate, --listen, "127.0.0.1:4571"]
      securityContext:
        {{- include "participant-gateway.securityContext" . | nindent 8 }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
    {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "participant-gateway.volumes" . | nindent 4 }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - {{ toYaml . | nindent 6 | trim }}
      {{- if not .labelSelector }}
      labelSelector:
        matchLabels:
          {{- include "participant-gateway.selectorLabels" $ | nindent 10 }}
      {{- end }}
      {{- if not .matchLabelKeys }}
      matchLabelKeys: [pod-template-hash]
      {{- end }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end -}}

{{/* The gateway's container, without its name. */}}
{{- define "participant-gateway.gateway" -}}
image: {{ include "participant-gateway.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, --config, /etc/participant-gateway/config/config.yaml]
securityContext:
  {{- include "participant-gateway.securityContext" . | nindent 2 }}
env:
  {{- include "participant-gateway.env" . | nindent 2 }}
{{- with concat (.Values.envFrom | default list) (.Values.extraEnvFrom | default list) }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: grpc
    containerPort: {{ include "participant-gateway.grpcPort" . }}
  - name: admin
    containerPort: {{ include "participant-gateway.adminPort" . }}
{{- $tls := include "participant-gateway.servesTls" . }}
{{- range list "startup" "liveness" "readiness" }}
{{ . }}Probe:
  {{- if $tls }}
  httpGet:
    path: /{{ ternary "readyz" "livez" (eq . "readiness") }}
    port: admin
  {{- else }}
  grpc:
    port: {{ include "participant-gateway.grpcPort" $ }}
    {{- if ne . "readiness" }}
    # The empty name waits for the store, which no restart brings back.
    service: liveness
    {{- end }}
  {{- end }}
  {{- with get $.Values (printf "%sProbe" .) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- $lifecycle := .Values.lifecycle | default dict }}
{{- with (.Values.preStop).sleepSeconds }}
{{- $lifecycle = merge (dict) $lifecycle (dict "preStop" (dict "sleep" (dict "seconds" .))) }}
{{- end }}
{{- with $lifecycle }}
lifecycle:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.terminationMessagePolicy }}
terminationMessagePolicy: {{ . }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  {{- include "participant-gateway.volumeMounts" . | nindent 2 }}
{{- end -}}
