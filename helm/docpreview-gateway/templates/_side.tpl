{{/* An auxiliary server (emulator, trial store): one pod, no ServiceAccount token, the same security context. */}}
{{- define "gw.side" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "gw.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "gw.labelsOf" . | nindent 4 }}
spec:
  replicas: 1
  strategy:
    type: Recreate
  selector:
    matchLabels: {{- include "gw.selectorOf" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "gw.labelsOf" . | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext: {{- include "gw.podSecurity" .root | nindent 8 }}
      containers:
        - name: {{ .component }}
          image: {{ .image }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          {{- with .args }}
          args: {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - {name: main, containerPort: {{ .port }}}
          readinessProbe: {{- toYaml .probe | nindent 12 }}
          resources: {{- toYaml .resources | nindent 12 }}
          securityContext: {{- include "gw.containerSecurity" .root | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: data, mountPath: {{ .data }}}
      volumes:
        - name: tmp
          emptyDir:
            sizeLimit: 2Gi
        - name: data
          emptyDir:
            sizeLimit: 2Gi
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "gw.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "gw.labelsOf" . | nindent 4 }}
spec:
  type: ClusterIP
  selector: {{- include "gw.selectorOf" . | nindent 4 }}
  ports:
    - {name: main, port: {{ .port }}, targetPort: main}
{{- end -}}
