{{/* Names, addresses and ports that Kubernetes or the gateway would refuse, or that would show a secret. */}}
{{- define "gw.checkForms" -}}
{{- $name := include "gw.fullname" . -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) }}
{{- fail (printf "fullnameOverride: the objects would be called %s; their name begins with a small letter, and has small letters, digits and hyphens only. Set fullnameOverride, such as docpreview" $name) }}
{{- end }}
{{- $names := list }}
{{- range $number, $bucket := .Values.buckets }}
{{- if or (not (regexMatch "^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?-[1-9][0-9]{4,12}$" $bucket.name)) (gt (len $bucket.name) 63) }}
{{- fail (printf "buckets[%d].name: %s must have the form <name>-<appid>, such as documents-1250000000" $number $bucket.name) }}
{{- end }}
{{- if has $bucket.name $names }}{{ fail (printf "buckets: %s is listed more than once" $bucket.name) }}{{ end }}
{{- $names = append $names $bucket.name }}
{{- if not (regexMatch "^[a-z]{2}-[a-z]+(-[a-z0-9]+)*$" $bucket.region) }}
{{- fail (printf "buckets[%d].region: must be a region in the cloud's spelling, such as ap-chongqing" $number) }}
{{- end }}
{{- end }}
{{- with .Values.sharedState.url }}
{{- if or (regexMatch "//[^@]*:[^@]*@" .) (contains "password=" .) }}
{{- fail "sharedState.url: has a password, and a ConfigMap is no place for one. Put the address into a Secret, and name that in sharedState.secretName: kubectl create secret generic NAME --from-literal=url=ADDRESS" }}
{{- end }}
{{- if not (regexMatch "^rediss?([+](sentinel|cluster))?://[^\\s]+$" .) }}
{{- fail "sharedState.url: must begin with redis://, redis+sentinel:// or redis+cluster://, with rediss for TLS; of a Valkey server too" }}
{{- end }}
{{- end }}
{{- with .Values.proxy.url }}
{{- if contains "@" . }}
{{- fail "proxy.url: has a user or a password, and a ConfigMap is no place for one. Put the address into a Secret, and name that in proxy.secretName: kubectl create secret generic NAME --from-literal=url=ADDRESS" }}
{{- end }}
{{- if not (regexMatch "^http://[^\\s/?#]+:[0-9]{1,5}/?$" .) }}
{{- fail "proxy.url: must be http://host:port, such as http://proxy.example.com:3128" }}
{{- end }}
{{- end }}
{{- if eq (int .Values.service.port) (int .Values.service.adminPort) }}
{{- fail "service.adminPort: has the number of service.port; give it one of its own, such as 9464" }}
{{- end }}
{{- if and .Values.edge.enabled (has 9465 (list (int .Values.service.port) (int .Values.service.adminPort))) }}
{{- fail "service: port 9465 is that of the edge's metrics; give service.port and service.adminPort others" }}
{{- end }}
{{- $settings := splitList "\n" (include "gw.settings" .) }}
{{- range .Values.extraEnv }}
{{- $setting := .name | upper | trimPrefix "DOCPREVIEW_" | lower | replace "__" "." }}
{{- if and (hasPrefix "DOCPREVIEW_" (upper .name)) (not (has $setting $settings)) (not (regexMatch "^(target|token|bucket|emulator_.*|credentials[.].*)$" $setting)) }}
{{- fail (printf "extraEnv: %s is no setting of the gateway; docs/configuration.md has their names, such as DOCPREVIEW_LOGGING__LEVEL" .name) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Callbacks of the cloud that would never arrive. */}}
{{- define "gw.checkCallbacks" -}}
{{- $callbacks := .Values.callbacks -}}
{{- if $callbacks.publicUrl }}
{{- if not (regexMatch "^https?://[^/?#@]+(/[^?#]*)?$" $callbacks.publicUrl) }}
{{- fail "callbacks.publicUrl: must be scheme, host, port and path only, such as https://previews.example.com/callback" }}
{{- end }}
{{- if gt (len (trimSuffix "/" $callbacks.publicUrl)) 77 }}
{{- fail "callbacks.publicUrl: may have 77 characters: the cloud takes addresses of 100, and a slash and a token of 22 are appended" }}
{{- end }}
{{- $host := regexReplaceAll ":[0-9]+$" (urlParse $callbacks.publicUrl).host "" }}
{{- if and (or $callbacks.ingress.enabled $callbacks.httpRoute.enabled) (or (not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$" $host)) (regexMatch "^[0-9.]+$" $host)) }}
{{- fail (printf "callbacks.publicUrl: an Ingress or HTTPRoute leads from a DNS name of small letters, digits and hyphens, not from %s" $host) }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.callbacks) }}
{{- fail "networkPolicy.callbacks: who passes callbacks on to the pods? Name the pods of the Ingress controller or of the Gateway, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}]" }}
{{- end }}
{{- else if or $callbacks.ingress.enabled $callbacks.httpRoute.enabled (eq $callbacks.mode "queue") }}
{{- fail "callbacks.publicUrl: under which address does the cloud reach the gateway? Set it, such as https://previews.example.com/callback" }}
{{- end }}
{{- if and (eq $callbacks.mode "queue") (not .Values.ledger.keySecretName) }}
{{- fail "ledger.keySecretName: callbacks.mode is queue, and queues keep an address that is made of this secret: without it each pod makes a new one" }}
{{- end }}
{{- if and $callbacks.httpRoute.enabled (not $callbacks.httpRoute.parentRefs) }}
{{- fail "callbacks.httpRoute.parentRefs: which Gateway?" }}
{{- end }}
{{- end -}}
