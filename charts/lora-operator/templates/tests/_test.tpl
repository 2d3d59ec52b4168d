{{- /* Namespace of the training that `helm test` makes; it must be one that the operator watches. */ -}}
{{- define "lora-operator.test.namespace" -}}
{{- $namespace := default (first .Values.watchNamespaces | default .Release.Namespace) .Values.test.namespace -}}
{{- if and .Values.watchNamespaces (not (has $namespace .Values.watchNamespaces)) -}}
{{- fail (printf "test.namespace is %s, which the operator does not watch; choose one of %s" $namespace (join ", " .Values.watchNamespaces)) -}}
{{- end -}}
{{- if not (hasKey .Values.profiles .Values.test.profile) -}}
{{- fail (printf "test.profile is %s, but there is no such profile; choose one of %s" .Values.test.profile (keys .Values.profiles | sortAlpha | join ", ")) -}}
{{- end -}}
{{ $namespace }}
{{- end -}}

{{- define "lora-operator.test.name" -}}
{{ include "lora-operator.fullname" . | trunc 45 | trimSuffix "-" }}-test
{{- end -}}

{{- /* The claim of the volume `data` of the pod that makes model and pictures; Kubernetes names it so. */ -}}
{{- define "lora-operator.test.claim" -}}
{{ include "lora-operator.test.name" . }}-inputs-data
{{- end -}}

{{- /* Annotations of an object of the test; `weight` says when it is made. What is left after a failure can be looked at. */ -}}
{{- define "lora-operator.test.hook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
helm.sh/hook-output-log-policy: hook-failed,hook-succeeded
{{- end -}}

{{- define "lora-operator.test.labels" -}}
{{ include "lora-operator.labels" . | replace "component: operator" "component: test" }}
{{- end -}}

{{- define "lora-operator.test.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "lora-operator.test.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
