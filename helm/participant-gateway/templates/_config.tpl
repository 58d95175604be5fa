{{/*
The program's config: the values' `config`, and what the chart knows better. Where the chart sets a key, it is the path
of a file that the chart mounts, or follows from how many replicas may run.
*/}}
{{- define "participant-gateway.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- include "participant-gateway.prune" $config -}}
{{- range list "server" "admin" "identity" "store" "idempotency" -}}
{{- $_ := set $config . (get $config . | default dict) -}}
{{- end -}}
{{- $secrets := .Values.secrets -}}
{{- $redis := $config.store.redis | default dict -}}
{{- if eq (include "participant-gateway.usesRedis" .) "true" -}}
{{- $_ := set $config.store "redis" $redis -}}
{{- if (.Values.redis).enabled -}}
{{- $_ := set $redis "urls" (list (printf "redis://%s:6379" (include "participant-gateway.redisName" .))) -}}
{{- end -}}
{{- if ($secrets.redisPassword).name -}}
{{- $_ := set $redis "password_file" "/etc/participant-gateway/redis-password/password" -}}
{{- end -}}
{{- if ($secrets.sentinelPassword).name -}}
{{- $_ := set $redis "sentinel_password_file" "/etc/participant-gateway/sentinel-password/password" -}}
{{- end -}}
{{- if ($secrets.redisTls).name -}}
{{- $tls := $redis.tls | default dict -}}
{{- $_ := set $redis "tls" $tls -}}
{{- with $secrets.redisTls.ca }}{{ $_ := set $tls "ca_file" (printf "/etc/participant-gateway/redis-tls/%s" .) }}{{ end -}}
{{- with $secrets.redisTls.cert }}{{ $_ := set $tls "cert_file" (printf "/etc/participant-gateway/redis-tls/%s" .) }}{{ end -}}
{{- with $secrets.redisTls.key }}{{ $_ := set $tls "key_file" (printf "/etc/participant-gateway/redis-tls/%s" .) }}{{ end -}}
{{- end -}}
{{- if eq (include "participant-gateway.mountsKeys" .) "true" -}}
{{- $_ := set $config.idempotency "root_key_file" (printf "/etc/participant-gateway/keys/%s" $secrets.keys.rootKey) -}}
{{- with $secrets.keys.sealingKeys -}}
{{- $_ := set $config.idempotency "sealing_keys_file" (printf "/etc/participant-gateway/keys/%s" .) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- $_ := unset $config.store "redis" -}}
{{- end -}}
{{- $_ := set $config.store "replicas" (include "participant-gateway.storeReplicas" . | int) -}}
{{- if (.Values.tls).secretName -}}
{{- $tls := dict "cert_file" "/etc/participant-gateway/tls/tls.crt" "key_file" "/etc/participant-gateway/tls/tls.key" -}}
{{- $_ := set $config.server "tls" $tls -}}
{{- if eq (toString $config.identity.mode) "mtls" -}}
{{- $_ := set $tls "client_ca_file" (printf "/etc/participant-gateway/client-ca/%s" .Values.tls.clientCa.key) -}}
{{- end -}}
{{- end -}}
{{- if eq (include "participant-gateway.mountsJwks" .) "true" -}}
{{- $jwt := $config.identity.jwt -}}
{{- range ternary $jwt (list $jwt) (kindIs "slice" $jwt) -}}
{{- if or (not $secrets.jwks.issuer) (eq $secrets.jwks.issuer (toString .issuer)) -}}
{{- if and $secrets.jwks.ca (not .jwks_ca_file) }}{{ $_ := set . "jwks_ca_file" (printf "/etc/participant-gateway/jwks/%s" $secrets.jwks.ca) }}{{ end -}}
{{- if and $secrets.jwks.token (not .jwks_token_file) }}{{ $_ := set . "jwks_token_file" (printf "/etc/participant-gateway/jwks/%s" $secrets.jwks.token) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range list "server" "admin" "idempotency" -}}
{{- if not (get $config .) -}}{{- $_ := unset $config . -}}{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Takes out what is null, in place: where this chart is a dependency, not every Helm does. */}}
{{- define "participant-gateway.prune" -}}
{{- range $key, $value := . -}}
{{- if kindIs "invalid" $value -}}{{- $_ := unset $ $key -}}
{{- else if kindIs "map" $value -}}{{- include "participant-gateway.prune" $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The values' `config` without nulls, as JSON, for those that only read it. */}}
{{- define "participant-gateway.settings" -}}
{{- $config := deepCopy .Values.config -}}
{{- include "participant-gateway.prune" $config -}}
{{- toJson $config -}}
{{- end -}}

{{/* The issuers of bearer tokens, as a JSON list, whether the config has one or several. */}}
{{- define "participant-gateway.jwts" -}}
{{- $jwt := dig "identity" "jwt" dict (include "participant-gateway.settings" . | fromJson) -}}
{{- if kindIs "slice" $jwt -}}{{- toJson $jwt -}}{{- else -}}{{- list $jwt | compact | toJson -}}{{- end -}}
{{- end -}}

{{- define "participant-gateway.mode" -}}
{{- dig "identity" "mode" "" (include "participant-gateway.settings" . | fromJson) -}}
{{- end -}}

{{/* Not where the config names a file of its own, such as one that an agent writes into the pod. */}}
{{- define "participant-gateway.mountsKeys" -}}
{{- $own := dig "idempotency" "root_key_file" "" (include "participant-gateway.settings" . | fromJson) -}}
{{- and (eq (include "participant-gateway.usesRedis" .) "true") (empty $own) -}}
{{- end -}}

{{- define "participant-gateway.mountsJwks" -}}
{{- and (not (empty (.Values.secrets.jwks).name)) (eq (include "participant-gateway.mode" .) "jwt") -}}
{{- end -}}

{{- define "participant-gateway.usesRedis" -}}
{{- eq (dig "store" "kind" "memory" (include "participant-gateway.settings" . | fromJson)) "redis" -}}
{{- end -}}

{{/* What each replica takes its share by while Redis is lost. */}}
{{- define "participant-gateway.storeReplicas" -}}
{{- $own := dig "store" "replicas" 0 (include "participant-gateway.settings" . | fromJson) -}}
{{- $own | default (include "participant-gateway.maxReplicas" .) | int -}}
{{- end -}}

{{- define "participant-gateway.servesTls" -}}
{{- if or (.Values.tls).secretName (dig "server" "tls" "" (include "participant-gateway.settings" . | fromJson)) -}}true{{- end -}}
{{- end -}}

{{- define "participant-gateway.grpcPort" -}}
{{- $config := include "participant-gateway.settings" . | fromJson -}}
{{- include "participant-gateway.port" (dict "of" (dig "server" "listen" "" $config) "default" 50051) -}}
{{- end -}}

{{- define "participant-gateway.adminPort" -}}
{{- $config := include "participant-gateway.settings" . | fromJson -}}
{{- include "participant-gateway.port" (dict "of" (dig "admin" "listen" "" $config) "default" 9090) -}}
{{- end -}}
