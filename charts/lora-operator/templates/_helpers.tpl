{{- /* Name of every object: the release's name, with the chart's unless it already holds it. */ -}}
{{- define "lora-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $fallback := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $fallback .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "lora-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "lora-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is empty; name an existing ServiceAccount or set serviceAccount.create" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* Labels that never change: they are part of the Deployment's immutable selector. */ -}}
{{- define "lora-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "lora-operator.labels" -}}
{{ include "lora-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Image reference of a dict with `image` (repository, tag, digest) and `root`. */ -}}
{{- define "lora-operator.image" -}}
{{- $image := .image -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $image.repository $image.digest }}
{{- else -}}
{{ printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) }}
{{- end -}}
{{- end -}}

{{- /* profiles.yaml as the operator reads it: every profile with an image. */ -}}
{{- define "lora-operator.profiles" -}}
{{- $image := dict "image" (include "lora-operator.image" (dict "image" .Values.trainer.image "root" .)) -}}
{{- $profiles := dict -}}
{{- range $name, $profile := .Values.profiles -}}
{{- $_ := set $profiles $name (merge (dict) $profile $image) -}}
{{- end -}}
{{ toYaml $profiles }}
{{- end -}}
