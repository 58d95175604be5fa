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
{{- $account := .Values.serviceAccount -}}
{{- $account.name | default (ternary (include "participant-gateway.fullname" .) "default" $account.create) -}}
{{- end -}}

{{- define "participant-gateway.selectorLabels" -}}
{{ include "participant-gateway.componentLabels" (dict "root" . "component" "gateway") }}
{{- end -}}

{{/* What selects the pods of a component: it never changes, since a Deployment's selector cannot. */}}
{{- define "participant-gateway.componentLabels" -}}
app.kubernetes.io/name: {{ include "participant-gateway.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/*
All labels of an object or a pod; takes {root} and {component, labels}. They are merged, so that `commonLabels` and the
object's own may name the same label.
*/}}
{{- define "participant-gateway.labels" -}}
{{- $ours := include "participant-gateway.componentLabels" (dict "root" .root "component" (.component | default "gateway")) | fromYaml -}}
{{- $_ := set $ours "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $ours "app.kubernetes.io/part-of" "participant-gateway" -}}
{{- $_ := set $ours "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $ours "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- mergeOverwrite $ours (.root.Values.commonLabels | default dict) (.labels | default dict) | toYaml -}}
{{- end -}}

{{/* The metadata of an object; takes {root} and {name, namespace, component, labels, annotations}. */}}
{{- define "participant-gateway.metadata" -}}
name: {{ .name | default (include "participant-gateway.fullname" .root) }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "participant-gateway.labels" . | nindent 2 }}
{{- with mergeOverwrite (dict) (.root.Values.commonAnnotations | default dict) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
Takes {root, image, tag}: the digest counts more than the tag. `global.imageRegistry` stands in the place of the
repository's registry, which is what comes before the first `/` and looks like a host.
*/}}
{{- define "participant-gateway.imageOf" -}}
{{- $repository := .image.repository -}}
{{- with (.root.Values.global).imageRegistry -}}
{{- $first := regexFind "^[^/]+/" $repository -}}
{{- if or (contains "." $first) (contains ":" $first) (eq $first "localhost/") -}}
{{- $repository = trimPrefix $first $repository -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{ $repository }}@{{ .image.digest }}
{{- else -}}
{{ $repository }}:{{ .image.tag | default .tag }}
{{- end -}}
{{- end -}}

{{- define "participant-gateway.image" -}}
{{- $tag := ternary (printf "%s-simulator" .Chart.AppVersion) .Chart.AppVersion (eq (include "participant-gateway.simulates" .) "true") -}}
{{- include "participant-gateway.imageOf" (dict "root" . "image" .Values.image "tag" $tag) -}}
{{- end -}}

{{/* The Secrets for pulling any image of the release: the chart's and the global ones, as names or as {name}. */}}
{{- define "participant-gateway.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat (.Values.imagePullSecrets | default list) ((.Values.global).imagePullSecrets | default list) -}}
{{- if kindIs "string" . -}}
{{- $secrets = append $secrets (dict "name" .) -}}
{{- else -}}
{{- $secrets = append $secrets (pick . "name") -}}
{{- end -}}
{{- end -}}
{{- with $secrets | uniq -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* On OpenShift the namespace's range gives a pod its user and groups: any of ours would be outside it. */}}
{{- define "participant-gateway.podSecurityContext" -}}
{{- $context := .Values.podSecurityContext | default dict -}}
{{- if (.Values.openshift).enabled -}}{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" -}}{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{- define "participant-gateway.securityContext" -}}
{{- $context := .Values.securityContext | default dict -}}
{{- if (.Values.openshift).enabled -}}{{- $context = omit $context "runAsUser" "runAsGroup" -}}{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{/* Nothing, for a zero or an absent value; `with` cannot tell them apart where 0 is meant. */}}
{{- define "participant-gateway.isSet" -}}
{{- if and (hasKey .of .key) (not (kindIs "invalid" (get .of .key))) -}}true{{- end -}}
{{- end -}}

{{- define "participant-gateway.simulates" -}}
{{- (.Values.simulator).enabled | default false -}}
{{- end -}}

{{/* The most replicas that may run, those of a rollout's surge among them; at least 1, as the program wants it. */}}
{{- define "participant-gateway.maxReplicas" -}}
{{- $most := .Values.replicaCount | int -}}
{{- if (.Values.autoscaling).enabled -}}{{- $most = .Values.autoscaling.maxReplicas | int -}}
{{- else if (.Values.keda).enabled -}}{{- $most = .Values.keda.maxReplicaCount | int -}}
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
{{- if not (or (.Values.autoscaling).enabled (.Values.keda).enabled) -}}
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

{{/* The port of an address or URL; takes {of, default}. */}}
{{- define "participant-gateway.port" -}}
{{- $authority := regexReplaceAll "^[a-z0-9+.-]+://" (.of | default "") "" | regexFind "^[^/?]*" -}}
{{- regexFind ":[0-9]+$" $authority | trimPrefix ":" | default (toString .default) -}}
{{- end -}}

{{/* The same of an HTTP URL, whose scheme says what is usual. */}}
{{- define "participant-gateway.httpPort" -}}
{{- include "participant-gateway.port" (dict "of" . "default" (ternary 80 443 (hasPrefix "http://" .))) -}}
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
{{- (.Values.prometheusRule).job | default (include "participant-gateway.fullname" .) -}}
{{- end -}}

{{- define "participant-gateway.keysSecretName" -}}
{{- (.Values.secrets.keys).name | default (printf "%s-keys" (include "participant-gateway.fullname" .)) -}}
{{- end -}}

{{/* The Redis of the release, for trials. */}}
{{- define "participant-gateway.redisName" -}}
{{- printf "%s-redis" (include "participant-gateway.fullname" .) -}}
{{- end -}}
