{{/*
The program's config: the values' `config`, and what the chart knows better. Where the chart sets a key, it is the path
of a file that the chart mounts, or follows from how many replicas may run.
*/}}
{{- define "participant-gateway.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- range list "server" "admin" "identity" "store" "idempotency" -}}
{{- $_ := set $config . (get $config . | default dict) -}}
{{- end -}}
{{- $redis := $config.store.redis | default dict -}}
{{- if eq (include "participant-gateway.usesRedis" .) "true" -}}
{{- $_ := set $config.store "redis" $redis -}}
{{- if .Values.redis.enabled -}}
{{- $_ := set $redis "urls" (list (printf "redis://%s:6379" (include "participant-gateway.redisName" .))) -}}
{{- end -}}
{{- if .Values.secrets.redisPassword.name -}}
{{- $_ := set $redis "password_file" "/etc/participant-gateway/redis-password/password" -}}
{{- end -}}
{{- if .Values.secrets.redisTls.name -}}
{{- $tls := $redis.tls | default dict -}}
{{- $_ := set $redis "tls" $tls -}}
{{- with .Values.secrets.redisTls.ca }}{{ $_ := set $tls "ca_file" (printf "/etc/participant-gateway/redis-tls/%s" .) }}{{ end -}}
{{- with .Values.secrets.redisTls.cert }}{{ $_ := set $tls "cert_file" (printf "/etc/participant-gateway/redis-tls/%s" .) }}{{ end -}}
{{- with .Values.secrets.redisTls.key }}{{ $_ := set $tls "key_file" (printf "/etc/participant-gateway/redis-tls/%s" .) }}{{ end -}}
{{- end -}}
{{- $_ := set $config.idempotency "root_key_file" (printf "/etc/participant-gateway/keys/%s" .Values.secrets.keys.rootKey) -}}
{{- with .Values.secrets.keys.sealingKeys -}}
{{- $_ := set $config.idempotency "sealing_keys_file" (printf "/etc/participant-gateway/keys/%s" .) -}}
{{- end -}}
{{- else -}}
{{- $_ := unset $config.store "redis" -}}
{{- end -}}
{{- $_ := set $config.store "replicas" (include "participant-gateway.storeReplicas" . | int) -}}
{{- if .Values.tls.secretName -}}
{{- $tls := dict "cert_file" "/etc/participant-gateway/tls/tls.crt" "key_file" "/etc/participant-gateway/tls/tls.key" -}}
{{- $_ := set $config.server "tls" $tls -}}
{{- if eq (toString $config.identity.mode) "mtls" -}}
{{- $_ := set $tls "client_ca_file" (printf "/etc/participant-gateway/client-ca/%s" .Values.tls.clientCa.key) -}}
{{- end -}}
{{- end -}}
{{- range list "server" "admin" "idempotency" -}}
{{- if not (get $config .) -}}{{- $_ := unset $config . -}}{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "participant-gateway.usesRedis" -}}
{{- eq (dig "store" "kind" "memory" .Values.config) "redis" -}}
{{- end -}}

{{- define "participant-gateway.servesTls" -}}
{{- if or .Values.tls.secretName (dig "server" "tls" "" .Values.config) -}}true{{- end -}}
{{- end -}}

{{- define "participant-gateway.grpcPort" -}}
{{- include "participant-gateway.port" (dict "of" (dig "server" "listen" "" .Values.config) "default" 50051) -}}
{{- end -}}

{{- define "participant-gateway.adminPort" -}}
{{- include "participant-gateway.port" (dict "of" (dig "admin" "listen" "" .Values.config) "default" 9090) -}}
{{- end -}}
