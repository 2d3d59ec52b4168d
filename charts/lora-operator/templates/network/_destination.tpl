{{- /* An egress rule to the peers `to` on the TCP ports `ports`. */ -}}
{{- define "lora-operator.destination" -}}
- to:
    {{- toYaml .to | nindent 4 }}
  ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
{{- end -}}

{{- /* Egress to the servers that look names up, which answer by UDP and by TCP. */ -}}
{{- define "lora-operator.dns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns.to | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dns.ports }}
    - {protocol: UDP, port: {{ int . }}}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
{{- end -}}

{{- /* Namespaces of the trainings that are fenced in, as a JSON list. */ -}}
{{- define "lora-operator.fencedNamespaces" -}}
{{- $namespaces := default .Values.watchNamespaces .Values.networkPolicy.namespaces -}}
{{- if not $namespaces -}}
{{- fail "networkPolicy.enabled is true, but no namespace is named; list those of the trainings in networkPolicy.namespaces" -}}
{{- end -}}
{{ toJson $namespaces }}
{{- end -}}
