{{/*
What the chart mounts from Secrets, as JSON: {name, secret, items}, each at /etc/participant-gateway/<name>. Whole
directories: what is mounted by subPath does not follow changes.
*/}}
{{- define "participant-gateway.secretVolumes" -}}
{{- $volumes := list -}}
{{- $secrets := .Values.secrets -}}
{{- if eq (include "participant-gateway.mountsKeys" .) "true" -}}
{{- $volumes = append $volumes (dict "name" "keys" "secret" (include "participant-gateway.keysSecretName" .)) -}}
{{- end -}}
{{- if eq (include "participant-gateway.usesRedis" .) "true" -}}
{{- with ($secrets.redisPassword).name -}}
{{- $volumes = append $volumes (dict "name" "redis-password" "secret" . "key" $secrets.redisPassword.key "path" "password") -}}
{{- end -}}
{{- with ($secrets.sentinelPassword).name -}}
{{- $volumes = append $volumes (dict "name" "sentinel-password" "secret" . "key" $secrets.sentinelPassword.key "path" "password") -}}
{{- end -}}
{{- with ($secrets.redisTls).name -}}
{{- $volumes = append $volumes (dict "name" "redis-tls" "secret" .) -}}
{{- end -}}
{{- end -}}
{{- with (.Values.tls).secretName -}}
{{- $volumes = append $volumes (dict "name" "tls" "secret" .) -}}
{{- if eq (include "participant-gateway.mode" $) "mtls" -}}
{{- $ca := $.Values.tls.clientCa -}}
{{- $volumes = append $volumes (dict "name" "client-ca" "secret" ($ca.secretName | default .) "key" $ca.key "path" $ca.key) -}}
{{- end -}}
{{- end -}}
{{- if eq (include "participant-gateway.mountsJwks" .) "true" -}}
{{- $volumes = append $volumes (dict "name" "jwks" "secret" $secrets.jwks.name) -}}
{{- end -}}
{{- toJson $volumes -}}
{{- end -}}

{{- define "participant-gateway.volumes" -}}
- name: config
  configMap:
    name: {{ include "participant-gateway.fullname" . }}
{{- range include "participant-gateway.secretVolumes" . | fromJsonArray }}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    {{- if .key }}
    items:
      - {key: {{ .key | quote }}, path: {{ .path | quote }}}
    {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "participant-gateway.volumeMounts" -}}
- name: config
  mountPath: /etc/participant-gateway/config
  readOnly: true
{{- range include "participant-gateway.secretVolumes" . | fromJsonArray }}
- name: {{ .name }}
  mountPath: /etc/participant-gateway/{{ .name }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
