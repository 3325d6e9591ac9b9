{{- define "kochava-consumer.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of all objects: the release's, with the chart's unless that is in it already. */}}
{{- define "kochava-consumer.fullname" -}}
{{- $name := include "kochava-consumer.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* By these the Deployment finds its pods. They can never be changed, so nothing else belongs here. */}}
{{- define "kochava-consumer.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kochava-consumer.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of pods: without the chart's version, or every new chart would be a rollout. */}}
{{- define "kochava-consumer.podLabels" -}}
{{ include "kochava-consumer.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/component: consumer
app.kubernetes.io/part-of: kochava-consumer
{{- end }}

{{- define "kochava-consumer.labels" -}}
{{ include "kochava-consumer.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kochava-consumer.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "kochava-consumer.configFolder" -}}
/etc/kochava-consumer
{{- end }}

{{- define "kochava-consumer.secretsFolder" -}}
/run/secrets/kochava-consumer
{{- end }}

{{/* kafka.sasl_password -> KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD */}}
{{- define "kochava-consumer.variable" -}}
KOCHAVA_CONSUMER_{{ . | replace "." "__" | upper }}
{{- end }}

{{- define "kochava-consumer.adminPort" -}}
{{- regexFind "[0-9]+$" .Values.config.admin.listen }}
{{- end }}

{{/*
The program drains, closes, and is ended by its own watchdog 2 s later; only then may the kubelet kill it. The grace
period is computed from the very values that the program gets as deadlines.
*/}}
{{- define "kochava-consumer.gracePeriodSeconds" -}}
{{- with .Values.config.delivery }}
{{- $least := addf .drain_timeout_s .close_timeout_s 10 | ceil | int }}
{{- $own := $.Values.terminationGracePeriodSeconds }}
{{- if kindIs "invalid" $own }}{{ $least }}
{{- else if lt (int $own) $least }}
{{- fail (printf "terminationGracePeriodSeconds is %d, but config.delivery.drain_timeout_s + close_timeout_s + 10 is %d: pods would be killed while they drain, and events sent twice. Leave it empty, or lower the timeouts." (int $own) $least) }}
{{- else }}{{ int $own }}
{{- end }}
{{- end }}
{{- end }}
