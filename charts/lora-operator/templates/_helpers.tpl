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

{{- /* profiles.yaml as the operator reads it: what `trainer` says holds where a profile says nothing itself. */ -}}
{{- define "lora-operator.profiles" -}}
{{- $trainer := .Values.trainer -}}
{{- $defaults := dict "image" (include "lora-operator.image" (dict "image" $trainer.image "root" .)) -}}
{{- range $field := list "imagePullPolicy" "imagePullSecrets" "caBundleRef" -}}
{{- with get $trainer $field -}}
{{- $_ := set $defaults $field . -}}
{{- end -}}
{{- end -}}
{{- $profiles := dict -}}
{{- range $name, $profile := .Values.profiles -}}
{{- $merged := merge (dict) $profile $defaults -}}
{{- with concat $trainer.env (default (list) (get $profile "env")) -}}
{{- $_ := set $merged "env" . -}}
{{- end -}}
{{- $_ := set $profiles $name $merged -}}
{{- end -}}
{{ toYaml $profiles }}
{{- end -}}

{{- /* "true" when an optional object is wanted: a dict with `enabled` (true, false or "auto"), `kind` and `root`. */ -}}
{{- define "lora-operator.isWanted" -}}
{{- if eq (toString .enabled) "auto" -}}
{{- if .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) -}}true{{- end -}}
{{- else if .enabled -}}true
{{- end -}}
{{- end -}}

{{- /* Labels that the operator gives to the pods of every training. */ -}}
{{- define "lora-operator.trainingPodLabels" -}}
app.kubernetes.io/managed-by: lora-operator
app.kubernetes.io/name: lora-training
{{- end -}}

{{- /* How an endpoint is scraped: settings of a ServiceMonitor or PodMonitor. */ -}}
{{- define "lora-operator.scrape" -}}
path: /metrics
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
