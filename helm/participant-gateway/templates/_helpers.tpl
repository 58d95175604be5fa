{{- define "participant-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 50 characters, so that the longest suffix still fits a label's 63. */}}
{{- define "participant-gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "participant-gateway.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "participant-gateway.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "participant-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "participant-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{/* Of everything but the trial Redis and the further Services, which have a component of their own. */}}
{{- define "participant-gateway.labels" -}}
{{ include "participant-gateway.selectorLabels" . }}
{{ include "participant-gateway.commonLabels" . }}
{{- end -}}

{{- define "participant-gateway.componentLabels" -}}
app.kubernetes.io/name: {{ include "participant-gateway.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "participant-gateway.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: participant-gateway
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes {image, tag}: the digest counts more than the tag. */}}
{{- define "participant-gateway.imageOf" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .tag }}
{{- end -}}
{{- end -}}

{{- define "participant-gateway.image" -}}
{{- $tag := ternary (printf "%s-simulator" .Chart.AppVersion) .Chart.AppVersion .Values.simulator.enabled -}}
{{- include "participant-gateway.imageOf" (dict "image" .Values.image "tag" $tag) -}}
{{- end -}}

{{/* Nothing, for a zero or an absent value; `with` cannot tell them apart where 0 is meant. */}}
{{- define "participant-gateway.isSet" -}}
{{- if and (hasKey .of .key) (not (kindIs "invalid" (get .of .key))) -}}true{{- end -}}
{{- end -}}

{{/* The most replicas that may run, those of a rollout's surge among them; at least 1, as the program wants it. */}}
{{- define "participant-gateway.maxReplicas" -}}
{{- $most := .Values.replicaCount | int -}}
{{- if .Values.autoscaling.enabled -}}{{- $most = .Values.autoscaling.maxReplicas | int -}}
{{- else if .Values.keda.enabled -}}{{- $most = .Values.keda.maxReplicaCount | int -}}
{{- end -}}
{{- $most = max 1 $most -}}
{{- if ne .Values.strategy.type "Recreate" -}}
{{- $surge := dig "maxSurge" "25%" (.Values.strategy.rollingUpdate | default dict) | toString -}}
{{- if hasSuffix "%" $surge -}}
{{- $surge = div (add (mul $most (trimSuffix "%" $surge | int)) 99) 100 -}}
{{- end -}}
{{- $most = add $most (int $surge) -}}
{{- end -}}
{{- $most -}}
{{- end -}}

{{/*
How many replicas to ask for; nothing where an autoscaler decides. Leaving out a number that Helm set before makes it 1,
so what runs is kept, until an autoscaler has taken the number over. Helm 3 never lets go of it, so there it is kept for
good. `helm template` cannot look, and leaves it out.
*/}}
{{- define "participant-gateway.replicas" -}}
{{- if not (or .Values.autoscaling.enabled .Values.keda.enabled) -}}
{{- .Values.replicaCount -}}
{{- else -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace (include "participant-gateway.fullname" .) -}}
{{- if $live -}}
{{- $applied := false -}}
{{- $owned := false -}}
{{- range $live.metadata.managedFields -}}
{{- $fields := dig "fieldsV1" "f:spec" dict . -}}
{{- if and (eq .operation "Apply") (hasKey $fields "f:template") -}}
{{- $applied = true -}}
{{- $owned = hasKey $fields "f:replicas" -}}
{{- end -}}
{{- end -}}
{{- if or $owned (not $applied) -}}{{ $live.spec.replicas }}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What each replica takes its share by while Redis is lost. */}}
{{- define "participant-gateway.storeReplicas" -}}
{{- dig "store" "replicas" 0 .Values.config | default (include "participant-gateway.maxReplicas" .) | int -}}
{{- end -}}

{{/* The port of an address or URL; takes {of, default}. */}}
{{- define "participant-gateway.port" -}}
{{- $authority := regexReplaceAll "^[a-z0-9+.-]+://" .of "" | regexFind "^[^/?]*" -}}
{{- regexFind ":[0-9]+$" $authority | trimPrefix ":" | default (toString .default) -}}
{{- end -}}

{{/* A duration as the program writes it (`1m 30s`), in milliseconds, rounded down. */}}
{{- define "participant-gateway.milliseconds" -}}
{{- $units := dict "ns" 0 "nsec" 0 "us" 0 "usec" 0 "µs" 0 "ms" 1 "msec" 1 "millis" 1 "s" 1000 "sec" 1000 "secs" 1000 "second" 1000 "seconds" 1000 "m" 60000 "min" 60000 "mins" 60000 "minute" 60000 "minutes" 60000 "h" 3600000 "hr" 3600000 "hrs" 3600000 "hour" 3600000 "hours" 3600000 "d" 86400000 "day" 86400000 "days" 86400000 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+ ?[a-zµ]+" (toString .) -1 -}}
{{- $unit := regexFind "[a-zµ]+" . -}}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | int64) (get $units $unit | default 0)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* What metrics are scraped under. */}}
{{- define "participant-gateway.job" -}}
{{- .Values.prometheusRule.job | default (include "participant-gateway.fullname" .) -}}
{{- end -}}

{{- define "participant-gateway.keysSecretName" -}}
{{- .Values.secrets.keys.name | default (printf "%s-keys" (include "participant-gateway.fullname" .)) -}}
{{- end -}}

{{/* The Redis of the release, for trials. */}}
{{- define "participant-gateway.redisName" -}}
{{- printf "%s-redis" (include "participant-gateway.fullname" .) -}}
{{- end -}}
