{{- define "strongroom.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "strongroom.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "strongroom.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "strongroom.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "strongroom.selector" -}}
app.kubernetes.io/name: {{ include "strongroom.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "strongroom.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "strongroom.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "strongroom.image" -}}
{{- $repository := required "image.repository is needed: the place of the image, such as ghcr.io/OWNER/strongroom" .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "strongroom.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "strongroom.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* No user of the image's, no privilege, no file that can be written. */}}
{{- define "strongroom.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "strongroom.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* A volume with one secret for each that is named. Takes a map from the variable to the Secret's name and key. */}}
{{- define "strongroom.secretVolume" -}}
- name: secrets
  projected:
    # The service's own group may read them, through fsGroup.
    defaultMode: 0440
    sources:
    {{- range $variable, $at := . }}
    {{- if $at.name }}
      - secret:
          name: {{ $at.name | quote }}
          items:
            - key: {{ $at.key | quote }}
              path: {{ $variable }}
    {{- end }}
    {{- end }}
{{- end }}

{{- define "strongroom.secretVariables" -}}
{{- range $variable, $at := . }}
{{- if $at.name }}
- name: {{ $variable }}_FILE
  value: /run/secrets/strongroom/{{ $variable }}
{{- end }}
{{- end }}
{{- end }}

{{- define "strongroom.certificateVolume" -}}
{{- if .Values.certificates.secret }}
- name: certificates
  secret:
    secretName: {{ .Values.certificates.secret | quote }}
{{- else if .Values.certificates.configMap }}
- name: certificates
  configMap:
    name: {{ .Values.certificates.configMap | quote }}
{{- end }}
{{- end }}

{{- define "strongroom.mounts" -}}
- name: secrets
  mountPath: /run/secrets/strongroom
  readOnly: true
{{- if or .Values.certificates.secret .Values.certificates.configMap }}
- name: certificates
  mountPath: /etc/strongroom/certificates
  readOnly: true
{{- end }}
{{- end }}

{{- /* Whole numbers come from values as floats, which would print as 1e+06. */}}
{{- define "strongroom.text" -}}
{{- if or (kindIs "float64" .) (kindIs "int64" .) (kindIs "int" .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}
