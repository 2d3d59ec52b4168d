{{- /* What the operator may do with the objects of a watched namespace. Never Secrets: pods mount them. */ -}}
{{- define "lora-operator.rules" -}}
- apiGroups: [lora-operator.io]
  resources: [loratrainings]
  verbs: [get, list, watch]
- apiGroups: [lora-operator.io]
  resources: [loratrainings/status]
  verbs: [patch]
# Asked for by clusters that check who may set blockOwnerDeletion (OpenShift does).
- apiGroups: [lora-operator.io]
  resources: [loratrainings/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# By a headless Service the pods of a training with several nodes find each other.
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, delete]
# Read as well: the kubelet tells only there which volume cannot be mounted.
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, create, patch]
# What a queue says about a Job; nothing is asked where Kueue is not installed.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
{{- end -}}
