{{/*
One TOML table and those in it. A JSON scalar and a JSON list of scalars are TOML, too, and JSON writes 512 where Helm's
toToml would write 512.0. null is left out: the program's default.
Takes a dictionary of `path` (the table's name, quoted, or nothing) and `table`.
*/}}
{{- define "kochava-consumer.toml" -}}
{{- $path := .path }}
{{- $scalars := dict }}
{{- $tables := dict }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}{{ $_ := set $tables $key $value }}
{{- else if not (kindIs "invalid" $value) }}{{ $_ := set $scalars $key $value }}
{{- end }}
{{- end }}
{{- if and $path $scalars }}

[{{ $path }}]
{{- end }}
{{- range $key, $value := $scalars }}
{{ include "kochava-consumer.tomlKey" $key }} = {{ toJson $value }}
{{- end }}
{{- range $key, $table := $tables }}
{{- $inner := list $path (include "kochava-consumer.tomlKey" $key) | compact | join "." }}
{{- include "kochava-consumer.toml" (dict "path" $inner "table" $table) }}
{{- end }}
{{- end }}

{{- define "kochava-consumer.tomlKey" -}}
{{ ternary . (toJson .) (regexMatch "^[A-Za-z0-9_-]+$" .) }}
{{- end }}

{{/* The whole file: config, with the paths of what this chart mounts. */}}
{{- define "kochava-consumer.configFile" -}}
{{- $config := deepCopy .Values.config }}
{{- $folder := include "kochava-consumer.configFolder" . }}
{{- if .Values.mappingFile }}
{{- $_ := set $config "mapping" (mergeOverwrite (default dict $config.mapping) (dict "file" (printf "%s/mapping.toml" $folder))) }}
{{- end }}
{{- if .Values.schemaFiles }}
{{- $_ := set $config "schemas" (mergeOverwrite (default dict $config.schemas) (dict "directory" (printf "%s/schemas" $folder))) }}
{{- end }}
# Rendered by Helm from the chart's values.
{{- include "kochava-consumer.toml" (dict "path" "" "table" $config) }}
{{- end }}

{{/* All files of the ConfigMap, by name. */}}
{{- define "kochava-consumer.files" -}}
config.toml: |
  {{- include "kochava-consumer.configFile" . | trim | nindent 2 }}
{{- with .Values.mappingFile }}
mapping.toml: {{ toJson . }}
{{- end }}
{{- range $name, $text := .Values.schemaFiles }}
{{ $name }}: {{ toJson $text }}
{{- end }}
{{- end }}

{{/* What values.schema.json cannot say, all of it at once. */}}
{{- define "kochava-consumer.validate" -}}
{{- $problems := list }}
{{- with .Values.config }}
{{- range $key := list "bootstrap_servers" "group_id" "topics" "start" }}
{{- if not (index $.Values.config.kafka $key) }}
{{- $problems = append $problems (printf "config.kafka.%s is required" $key) }}
{{- end }}
{{- end }}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\]:|$)" .admin.listen }}
{{- $problems = append $problems "config.admin.listen must be an address that the kubelet reaches, such as 0.0.0.0:9464" }}
{{- end }}
{{- if and $.Values.mappingFile (dig "file" "" (default dict .mapping)) }}
{{- $problems = append $problems "mappingFile and config.mapping.file exclude one another: remove one" }}
{{- end }}
{{- if and $.Values.schemaFiles (dig "directory" "" (default dict .schemas)) }}
{{- $problems = append $problems "schemaFiles and config.schemas.directory exclude one another: remove one" }}
{{- end }}
{{- end }}
{{- $ours := dict
      "KOCHAVA_CONSUMER_CONFIG" "the chart mounts the file: use config"
      "KOCHAVA_CONSUMER_ADMIN__LISTEN" "the probes follow config.admin.listen"
      "KOCHAVA_CONSUMER_DELIVERY__DRAIN_TIMEOUT_S" "the grace period follows config.delivery.drain_timeout_s"
      "KOCHAVA_CONSUMER_DELIVERY__CLOSE_TIMEOUT_S" "the grace period follows config.delivery.close_timeout_s" }}
{{- range .Values.extraEnv }}
{{- if hasKey $ours .name }}
{{- $problems = append $problems (printf "extraEnv must not set %s: %s" .name (index $ours .name)) }}
{{- end }}
{{- end }}
{{- if and .Values.podMonitor.enabled (not .Values.podMonitor.assumeApi) (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor")) }}
{{- $problems = append $problems "podMonitor.enabled, but this cluster does not know monitoring.coreos.com/v1 PodMonitor: install the Prometheus Operator first, or set podMonitor.assumeApi=true" }}
{{- end }}
{{- if $problems }}
{{- fail (printf "\n- %s" (join "\n- " $problems)) }}
{{- end }}
{{- end }}
