{{/* The parts of a pod that all pods share. Each takes a dict: root (the top scope), and what it names. */}}

{{- define "enginehouse.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "enginehouse.labels" -}}
{{ include "enginehouse.selector" . }}
app.kubernetes.io/name: enginehouse
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "enginehouse.image" -}}
{{ .root.Values.images.registry }}{{ index .root.Values.images .image }}:{{ .root.Values.images.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Pods match the standard `restricted`. Service links would set ENGINEHOUSE_PORT to an address. */}}
{{- define "enginehouse.podDefaults" -}}
enableServiceLinks: false
automountServiceAccountToken: false
securityContext:
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .pool.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .pool.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- end }}

{{- define "enginehouse.containerSecurity" -}}
securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end }}

{{- define "enginehouse.redisHost" -}}
{{ .Release.Name }}-redis
{{- end }}

{{/* REDIS_URL of one user. Kubernetes expands $(NAME) in variables, so the password is on no command line. */}}
{{- define "enginehouse.redisEnv" -}}
{{- if .root.Values.redis.enabled -}}
- name: REDIS_{{ upper .redisUser }}_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ .root.Values.existingSecret }}, key: REDIS_{{ upper .redisUser }}_PASSWORD}
- name: REDIS_URL
  value: redis://{{ .redisUser }}:$(REDIS_{{ upper .redisUser }}_PASSWORD)@{{ include "enginehouse.redisHost" .root }}:6379/0
{{- else -}}
- name: REDIS_URL
  valueFrom:
    secretKeyRef: {name: {{ .root.Values.existingSecret }}, key: REDIS_URL}
{{- end }}
{{- end }}

{{- define "enginehouse.chromaEnv" -}}
{{- if .root.Values.chroma.enabled -}}
- name: CHROMA_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ .root.Values.existingSecret }}, key: CHROMA_PASSWORD}
- name: ENGINEHOUSE_CHROMA_URL
  value: http://:$(CHROMA_PASSWORD)@{{ .root.Release.Name }}-chroma:8000
{{- else -}}
- name: ENGINEHOUSE_CHROMA_URL
  valueFrom:
    secretKeyRef: {name: {{ .root.Values.existingSecret }}, key: CHROMA_URL}
{{- end }}
{{- end }}

{{- define "enginehouse.configHash" -}}
checksum/config: {{ include (print $.Template.BasePath "/config.yaml") . | sha256sum }}
{{- end }}

{{/* With ReadWriteOnce, the pods that open the text index run on one node: see `storage` in values.yaml. */}}
{{- define "enginehouse.sameNode" -}}
{{- if eq .Values.storage.accessMode "ReadWriteOnce" -}}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            app.kubernetes.io/instance: {{ .Release.Name }}
            enginehouse/opens-text-index: "true"
{{- end }}
{{- end }}

{{/* It asks the process and not Redis: workers keep their jobs through an outage. */}}
{{- define "enginehouse.workerProbe" -}}
livenessProbe:
  exec: {command: [enginehouse, healthcheck]}
  initialDelaySeconds: 120
  periodSeconds: 30
  timeoutSeconds: 20
  failureThreshold: 4
{{- end }}

{{- define "enginehouse.mounts" -}}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: models, mountPath: /models, readOnly: true}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "enginehouse.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 4Gi}}
- {name: models, configMap: {name: {{ .Values.existingModels }}}}
{{- end }}

{{- define "enginehouse.dataVolume" -}}
- {name: data, persistentVolumeClaim: {claimName: {{ .Release.Name }}-data}}
{{- end }}
