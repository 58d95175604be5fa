{{/* The pod's template, for the Deployment. */}}
{{- define "participant-gateway.pod" -}}
metadata:
  labels:
    {{- include "participant-gateway.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
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
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  containers:
    - name: gateway
      image: {{ include "participant-gateway.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve, --config, /etc/participant-gateway/config/config.yaml]
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      {{- $named := dict }}
      {{- range .Values.env }}{{ $_ := set $named .name true }}{{ end }}
      env:
        {{- if not $named.POD_NAME }}
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- end }}
        {{- if not $named.NODE_NAME }}
        - name: NODE_NAME
          valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
        {{- end }}
        {{- if .Values.simulator.enabled }}
        # The simulator's one key, which opens nothing else.
        {{- if not $named.AWS_ACCESS_KEY_ID }}
        - name: AWS_ACCESS_KEY_ID
          value: SIMULATORACCESSKEYID
        {{- end }}
        {{- if not $named.AWS_SECRET_ACCESS_KEY }}
        - name: AWS_SECRET_ACCESS_KEY
          value: ThisSecretOfTheSimulatorOpensNothingReal
        {{- end }}
        {{- end }}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- if not $named.OTEL_RESOURCE_ATTRIBUTES }}
        # Last, since it can name only what stands before it.
        - name: OTEL_RESOURCE_ATTRIBUTES
          value: k8s.namespace.name={{ .Release.Namespace }},k8s.deployment.name={{ include "participant-gateway.fullname" . }},k8s.pod.name=$(POD_NAME),k8s.node.name=$(NODE_NAME)
        {{- end }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
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
        {{- toYaml (get $.Values (printf "%sProbe" .)) | nindent 8 }}
      {{- end }}
      {{- if .Values.preStop.sleepSeconds }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ .Values.preStop.sleepSeconds }}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      # Whole directories: what is mounted by subPath does not follow changes.
      volumeMounts:
        - name: config
          mountPath: /etc/participant-gateway/config
          readOnly: true
        {{- if eq (include "participant-gateway.usesRedis" .) "true" }}
        - name: keys
          mountPath: /etc/participant-gateway/keys
          readOnly: true
        {{- if .Values.secrets.redisPassword.name }}
        - name: redis-password
          mountPath: /etc/participant-gateway/redis-password
          readOnly: true
        {{- end }}
        {{- if .Values.secrets.redisTls.name }}
        - name: redis-tls
          mountPath: /etc/participant-gateway/redis-tls
          readOnly: true
        {{- end }}
        {{- end }}
        {{- if .Values.tls.secretName }}
        - name: tls
          mountPath: /etc/participant-gateway/tls
          readOnly: true
        {{- if eq (dig "identity" "mode" "" .Values.config) "mtls" }}
        - name: client-ca
          mountPath: /etc/participant-gateway/client-ca
          readOnly: true
        {{- end }}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- if .Values.simulator.enabled }}
    - name: simulator
      image: {{ include "participant-gateway.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [simulate, --listen, "127.0.0.1:4571"]
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
    {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "participant-gateway.fullname" . }}
    {{- if eq (include "participant-gateway.usesRedis" .) "true" }}
    - name: keys
      secret:
        secretName: {{ include "participant-gateway.keysSecretName" . }}
    {{- with .Values.secrets.redisPassword }}
    {{- if .name }}
    - name: redis-password
      secret:
        secretName: {{ .name }}
        items:
          - {key: {{ .key | quote }}, path: password}
    {{- end }}
    {{- end }}
    {{- with .Values.secrets.redisTls.name }}
    - name: redis-tls
      secret:
        secretName: {{ . }}
    {{- end }}
    {{- end }}
    {{- if .Values.tls.secretName }}
    - name: tls
      secret:
        secretName: {{ .Values.tls.secretName }}
    {{- if eq (dig "identity" "mode" "" .Values.config) "mtls" }}
    - name: client-ca
      secret:
        secretName: {{ .Values.tls.clientCa.secretName | default .Values.tls.secretName }}
        items:
          - {key: {{ .Values.tls.clientCa.key | quote }}, path: {{ .Values.tls.clientCa.key | quote }}}
    {{- end }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
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
