{{/* The gateway's environment: the chart's own variables stand back for those of `env` and `extraEnv`. */}}
{{- define "participant-gateway.env" -}}
{{- $given := concat (.Values.env | default list) (.Values.extraEnv | default list) -}}
{{- $named := dict -}}
{{- range $given }}{{ $_ := set $named .name true }}{{ end -}}
{{- $env := list -}}
{{- range include "participant-gateway.ownEnv" . | fromYamlArray -}}
{{- if not (hasKey $named .name) }}{{ $env = append $env . }}{{ end -}}
{{- end -}}
{{- $env = concat $env $given -}}
{{- if not (hasKey $named "OTEL_RESOURCE_ATTRIBUTES") -}}
{{- /* Last, since it can name only what stands before it. */ -}}
{{- $attributes := printf "k8s.namespace.name=%s,k8s.deployment.name=%s,k8s.pod.name=$(POD_NAME),k8s.node.name=$(NODE_NAME)" .Release.Namespace (include "participant-gateway.fullname" .) -}}
{{- $env = append $env (dict "name" "OTEL_RESOURCE_ATTRIBUTES" "value" $attributes) -}}
{{- end -}}
{{- toYaml $env -}}
{{- end -}}

{{- define "participant-gateway.ownEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- if eq (include "participant-gateway.simulates" .) "true" }}
# The simulator's one key, which opens nothing else.
- name: AWS_ACCESS_KEY_ID
  value: SIMULATORACCESSKEYID
- name: AWS_SECRET_ACCESS_KEY
  value: ThisSecretOfTheSimulatorOpensNothingReal
{{- end }}
{{- with .Values.proxy }}
{{- with .https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .http }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- /* YAML reads an unquoted `no` as false. */}}
{{- with get . "no" | default (get . "false") }}
- name: NO_PROXY
  value: {{ ternary (join "," .) . (kindIs "slice" .) | quote }}
{{- end }}
{{- end }}
{{- end -}}
