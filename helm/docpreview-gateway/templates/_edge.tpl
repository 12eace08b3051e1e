{{/*
The edge: Envoy as a sidecar, so that it starts before the gateway and stops after it. Its configuration is made in the
pod, by the gateway's own command from the gateway's own settings.

The gateway tells Envoy to drain (POST /drain_listeners), and Kubernetes ends Envoy when the gateway has ended. If only the
gateway's container is restarted, Envoy's listeners stay closed: the liveness probe then restarts Envoy.
*/}}
{{- define "gw.edge" -}}
- name: edge-config
  image: {{ include "gw.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [edge-config, /etc/docpreview/edge]
  env: {{- include "gw.env" . | nindent 4 }}
  resources: {{- toYaml .Values.resources | nindent 4 }}
  securityContext: {{- include "gw.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: config, mountPath: /etc/docpreview/config, readOnly: true}
    - {name: edge, mountPath: /etc/docpreview/edge}
    {{- if include "gw.tlsSecret" . }}
    - {name: tls, mountPath: /etc/docpreview/tls, readOnly: true}
    {{- end }}
    {{- if .Values.tls.clientCaSecretName }}
    - {name: client-ca, mountPath: /etc/docpreview/client-ca, readOnly: true}
    {{- end }}
- name: edge
  image: {{ include "gw.edgeImage" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  command: [envoy]
  args:
    - -c
    - /etc/docpreview/edge/envoy.yaml
    - --disable-hot-restart
    # As long as the gateway's drain.delay_seconds.
    - --drain-time-s
    - {{ max 1 (include "gw.delaySeconds" . | float64 | ceil | int) | quote }}
    - --concurrency
    - {{ .Values.edge.concurrency | quote }}
    - --log-level
    - warning
  ports:
    - name: grpc
      containerPort: 50051
    - name: edge-metrics
      containerPort: 9465
  startupProbe:
    httpGet: {path: /ready, port: edge-metrics}
    periodSeconds: 1
    timeoutSeconds: 2
    failureThreshold: 60
  # A connection, since Envoy is ready for its own part also when its listeners are drained.
  readinessProbe:
    tcpSocket: {port: grpc}
    periodSeconds: 5
    timeoutSeconds: 2
    failureThreshold: 2
  livenessProbe:
    tcpSocket: {port: grpc}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  resources: {{- toYaml .Values.edge.resources | nindent 4 }}
  securityContext: {{- include "gw.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: edge, mountPath: /etc/docpreview/edge, readOnly: true}
    {{- if include "gw.tlsSecret" . }}
    - {name: tls, mountPath: /etc/docpreview/tls, readOnly: true}
    {{- end }}
    {{- if .Values.tls.clientCaSecretName }}
    - {name: client-ca, mountPath: /etc/docpreview/client-ca, readOnly: true}
    {{- end }}
{{- end -}}
