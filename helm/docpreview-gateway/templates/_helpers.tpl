{{- define "gw.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 50 characters, so that the suffixes of other objects fit. */}}
{{- define "gw.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "gw.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gw.selector" -}}
app.kubernetes.io/name: {{ include "gw.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "gw.selectorOf" -}}
app.kubernetes.io/name: {{ include "gw.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "gw.labelsOf" -}}
{{ include "gw.selectorOf" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "gw.labels" -}}
{{ include "gw.labelsOf" (dict "root" . "component" "gateway") }}
{{- end -}}

{{- define "gw.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "gw.edgeImage" -}}
{{- with .Values.edge.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gw.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ include "gw.fullname" . }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "gw.tlsSecret" -}}
{{- if .Values.certificate.enabled -}}
{{ .Values.tls.secretName | default (printf "%s-tls" (include "gw.fullname" .)) }}
{{- else -}}
{{ .Values.tls.secretName }}
{{- end -}}
{{- end -}}

{{/* Secrets of `helm test`, with ca.crt, and with tls.crt and tls.key. cert-manager alone puts ca.crt beside a certificate. */}}
{{- define "gw.testCa" -}}
{{- if include "gw.tlsSecret" . -}}
{{ .Values.test.caSecretName | default (ternary (include "gw.tlsSecret" .) "" .Values.certificate.enabled) }}
{{- end -}}
{{- end -}}

{{/* The edge needs no certificate of a caller with a token. */}}
{{- define "gw.testClient" -}}
{{- if and .Values.tls.clientCaSecretName (not (and .Values.edge.enabled .Values.test.tokenSecretName)) -}}
{{ .Values.test.tlsSecretName }}
{{- end -}}
{{- end -}}

{{- define "gw.hasPolicy" -}}
{{- if or .Values.policy.document .Values.policy.secretName .Values.policy.configMapName -}}yes{{- end -}}
{{- end -}}

{{- define "gw.shared" -}}
{{- if or .Values.sharedState.url .Values.sharedState.secretName .Values.trialStore.enabled -}}yes{{- end -}}
{{- end -}}

{{/* Name of the deployment among those that share its server or its buckets: at most 32 of [a-z0-9-]. */}}
{{- define "gw.namespace" -}}
{{- $name := include "gw.fullname" . -}}
{{- if gt (len $name) 32 -}}{{ printf "%s-%s" (trunc 23 $name) (sha256sum $name | trunc 8) }}{{- else -}}{{ $name }}{{- end -}}
{{- end -}}

{{/* Whether there is a secret for creates; else the gateway generates one in its state directory. */}}
{{- define "gw.ledgerKey" -}}
{{- if or .Values.ledger.keySecretName .Values.trialStore.enabled -}}yes{{- end -}}
{{- end -}}

{{/* The maximum number of replicas: each enforces its share of the limits that they do not count together. */}}
{{- define "gw.replicas" -}}
{{- if .Values.autoscaling.enabled -}}{{ .Values.autoscaling.maxReplicas }}{{- else -}}{{ .Values.replicaCount }}{{- end -}}
{{- end -}}

{{/* The gateway's own defaults of docs/configuration.md, when they are not set; a test compares them. */}}
{{- define "gw.delaySeconds" -}}
{{- $drain := .Values.config.drain | default dict -}}
{{- hasKey $drain "delay_seconds" | ternary $drain.delay_seconds 5 -}}
{{- end -}}

{{- define "gw.terminationSeconds" -}}
{{- $drain := .Values.config.drain | default dict -}}
{{- $delay := include "gw.delaySeconds" . | float64 -}}
{{- $grace := hasKey $drain "grace_seconds" | ternary $drain.grace_seconds 25 -}}
{{- add (ceil (addf $delay $grace)) .Values.terminationMarginSeconds -}}
{{- end -}}

{{/* Pod Security "restricted", and more. */}}
{{- define "gw.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "gw.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Errors that would otherwise only show when the pod does not start. */}}
{{- define "gw.check" -}}
{{- /* Not as kubeVersion of the chart: a helm that was built from its Go module takes v1.20.0 for granted where it sees no cluster. */ -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- if and (semverCompare "<1.29.0-0" $version) (ne $version "v1.20.0") }}
{{- fail (printf "Kubernetes %s: this chart needs 1.29 or newer" $version) }}
{{- end -}}
{{- if not .Values.buckets }}{{ fail "buckets: name at least one; a bucket that is not listed does not exist for callers" }}{{ end -}}
{{- include "gw.checkForms" . }}
{{- range $bucket := .Values.buckets }}
{{- range compact (list .credentials .upload_credentials) }}
{{- if and (not (hasKey $.Values.credentials .)) (not $.Values.emulator.enabled) }}
{{- fail (printf "credentials.%s: missing, and the bucket %s needs it: {secretName: ..., key: cloud.yaml}" . $bucket.name) }}
{{- end }}
{{- end }}
{{- end }}
{{- $ways := list }}
{{- if .Values.auth.insecure }}{{ $ways = append $ways "auth.insecure" }}{{ end -}}
{{- range $key := list "document" "secretName" "configMapName" }}
{{- if index $.Values.policy $key }}{{ $ways = append $ways (printf "policy.%s" $key) }}{{ end -}}
{{- end }}
{{- if ne (len $ways) 1 }}
{{- fail (printf "who may call? Set exactly one of policy.document, policy.secretName, policy.configMapName and auth.insecure (set: %s)" (join ", " $ways | default "none")) }}
{{- end }}
{{- range $name, $target := (.Values.policy.document | default dict).webhooks }}
{{- if and (hasPrefix "/etc/docpreview/webhooks/" $target.secret_file) (not $.Values.webhooks.secretName) }}
{{- fail (printf "webhooks.secretName: missing, and policy.document.webhooks.%s has its secret there: kubectl create secret generic NAME --from-literal=%s=whsec_$(openssl rand -base64 32)" $name (base $target.secret_file)) }}
{{- end }}
{{- end }}
{{- if and .Values.webhooks.secretName (not (include "gw.hasPolicy" .)) }}
{{- fail "webhooks.secretName: the targets of webhooks are in the policy, and there is none" }}
{{- end }}
{{- if and (include "gw.hasPolicy" .) (not (include "gw.tlsSecret" .)) (not .Values.tls.plaintext) }}
{{- fail "tls: a policy needs tls.secretName or certificate.enabled, or tls.plaintext: true when something before the gateway does TLS" }}
{{- end }}
{{- if and (include "gw.tlsSecret" .) .Values.tls.plaintext }}
{{- fail "tls.plaintext: true, but there is a certificate; take one of them away" }}
{{- end }}
{{- if and .Values.tls.clientCaSecretName (not (include "gw.tlsSecret" .)) }}
{{- fail "tls.clientCaSecretName: client certificates need a certificate of the server: set tls.secretName or certificate.enabled" }}
{{- end }}
{{- if and .Values.tls.clientCrlSecretName (not .Values.tls.clientCaSecretName) }}
{{- fail "tls.clientCrlSecretName: revocation lists of which CA? Set tls.clientCaSecretName" }}
{{- end }}
{{- if and (or .Values.test.caSecretName .Values.test.serverName) (not (include "gw.tlsSecret" .)) }}
{{- fail "test.caSecretName, test.serverName: the gateway has no certificate: set tls.secretName or certificate.enabled" }}
{{- end }}
{{- if and .Values.test.tlsSecretName (not .Values.tls.clientCaSecretName) }}
{{- fail "test.tlsSecretName: a caller's certificate, and the gateway asks for none: set tls.clientCaSecretName, or test.caSecretName if this is about the authorities of the gateway's certificate" }}
{{- end }}
{{- if and (gt (int (include "gw.replicas" .)) 1) (not (include "gw.shared" .)) }}
{{- fail "sharedState: more than one gateway need a Redis or Valkey server (sharedState.url or sharedState.secretName), or a request_id would be several jobs" }}
{{- end }}
{{- if gt (len (compact (list .Values.sharedState.url .Values.sharedState.secretName (ternary "trial" "" .Values.trialStore.enabled)))) 1 }}
{{- fail "sharedState: one of sharedState.url, sharedState.secretName and trialStore.enabled" }}
{{- end }}
{{- if and .Values.proxy.url .Values.proxy.secretName }}
{{- fail "proxy: one of proxy.url and proxy.secretName" }}
{{- end }}
{{- if and (include "gw.shared" .) (not (include "gw.ledgerKey" .)) }}
{{- fail "ledger.keySecretName: missing, and sharedState is set; replicas need one secret for creates, or a request_id would be several jobs: kubectl create secret generic NAME --from-literal=ledger.key=$(openssl rand -base64 32)" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail "autoscaling.minReplicas: must not be more than autoscaling.maxReplicas" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not .Values.autoscaling.targetCPU) (not .Values.autoscaling.targetWatchers) }}
{{- fail "autoscaling: set targetCPU or targetWatchers" }}
{{- end }}
{{- if and .Values.config.edge (not .Values.edge.enabled) }}
{{- fail "config.edge: has limits of an edge that is not there; set edge.enabled: true" }}
{{- end }}
{{- if and .Values.certificate.enabled (not .Values.certificate.issuerRef.name) }}
{{- fail "certificate.issuerRef.name: which issuer of cert-manager?" }}
{{- end }}
{{- if and .Values.grpcRoute.enabled (not .Values.grpcRoute.parentRefs) }}
{{- fail "grpcRoute.parentRefs: which Gateway?" }}
{{- end }}
{{- include "gw.checkCallbacks" . }}
{{- end -}}

{{/* gateway.yaml: `config`, overridden by the settings of the chart. */}}
{{- define "gw.config" -}}
{{- include "gw.check" . -}}
{{- $config := deepCopy .Values.config -}}
{{- if .Values.edge.enabled -}}
{{- $edge := dict "listen" "0.0.0.0:50051" "metrics_listen" "0.0.0.0:9465" "admin_listen" "127.0.0.1:9901" "folder" "/etc/docpreview/edge" -}}
{{- $_ := set $config "edge" (merge $edge (.Values.config.edge | default dict)) -}}
{{- $_ := set $config "listen" "127.0.0.1:50050" -}}
{{- else -}}
{{- $_ := set $config "listen" "0.0.0.0:50051" -}}
{{- end -}}
{{- $_ := set $config "admin_listen" "0.0.0.0:9464" -}}
{{- $_ := set $config "replicas" (int (include "gw.replicas" .)) -}}
{{- $_ := set $config "buckets" .Values.buckets -}}
{{- $_ := set $config "state_dir" "/var/lib/docpreview" -}}
{{- $credentials := dict -}}
{{- range .Values.buckets -}}
{{- range compact (list .credentials .upload_credentials) -}}
{{- if hasKey $.Values.credentials . -}}
{{- $_ := set $credentials . (dict "file" (printf "/etc/docpreview/credentials/%s/cloud.yaml" .)) -}}
{{- else -}}
{{- $_ := set $credentials . (dict "secret_id" "example-secret-id" "secret_key" "EXAMPLEsecretKEY00000000000000000") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "credentials" $credentials -}}
{{- if .Values.auth.insecure -}}
{{- $_ := set $config "auth" "insecure" -}}
{{- else -}}
{{- $_ := set $config "policy" (dict "file" "/etc/docpreview/policy/policy.yaml") -}}
{{- with .Values.auth.jwt -}}{{- $_ := set $config "auth" (dict "jwt" .) -}}{{- end -}}
{{- end -}}
{{- if include "gw.tlsSecret" . -}}
{{- $tls := dict "certificate" "/etc/docpreview/tls/tls.crt" "key" "/etc/docpreview/tls/tls.key" -}}
{{- if .Values.tls.clientCaSecretName -}}{{- $_ := set $tls "client_ca" "/etc/docpreview/client-ca/ca.crt" -}}{{- end -}}
{{- if .Values.tls.clientCrlSecretName -}}{{- $_ := set $tls "client_crl" "/etc/docpreview/client-crl/ca.crl" -}}{{- end -}}
{{- $_ := set $config "tls" $tls -}}
{{- else if .Values.tls.plaintext -}}
{{- $_ := set $config "tls" (dict "plaintext" true) -}}
{{- end -}}
{{- $state := deepCopy (.Values.config.shared_state | default dict) -}}
{{- if .Values.sharedState.url -}}{{- $_ := set $state "url" .Values.sharedState.url -}}{{- end -}}
{{- if .Values.trialStore.enabled -}}{{- $_ := set $state "url" (printf "redis://%s-trial-store:6379/0" (include "gw.fullname" .)) -}}{{- end -}}
{{- if and (include "gw.shared" .) (not $state.namespace) -}}{{- $_ := set $state "namespace" (include "gw.namespace" .) -}}{{- end -}}
{{- if $state -}}{{- $_ := set $config "shared_state" $state -}}{{- end -}}
{{- if include "gw.ledgerKey" . -}}
{{- $ledger := deepCopy (.Values.config.ledger | default dict) -}}
{{- $_ := set $config "ledger" (set $ledger "key_file" "/etc/docpreview/ledger/ledger.key") -}}
{{- end -}}
{{- with .Values.callbacks.publicUrl -}}
{{- $_ := set $config "callbacks" (dict "public_url" . "listen" "0.0.0.0:8090" "mode" $.Values.callbacks.mode) -}}
{{- end -}}
{{- with .Values.proxy.url -}}
{{- $_ := set $config "upstream" (merge (dict "proxy" .) ($config.upstream | default dict)) -}}
{{- end -}}
{{- if .Values.emulator.enabled -}}
{{- $address := printf "http://%s-emulator:8089" (include "gw.fullname" .) -}}
{{- $upstream := deepCopy ($config.upstream | default dict) -}}
{{- $_ := set $config "upstream" (merge $upstream (dict "endpoint" $address "object_url_base" (printf "%s/_emulator/objects/{host}" $address))) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Environment variables of every container that reads the settings. */}}
{{- define "gw.env" -}}
- name: DOCPREVIEW_CONFIG
  value: /etc/docpreview/config/gateway.yaml
- name: GRPC_VERBOSITY
  value: error
{{- if .Values.sharedState.secretName }}
- name: DOCPREVIEW_SHARED_STATE__URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.sharedState.secretName }}
      key: {{ .Values.sharedState.urlKey }}
{{- with .Values.sharedState.ledgerUrlKey }}
- name: DOCPREVIEW_SHARED_STATE__LEDGER_URL
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.sharedState.secretName }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- if .Values.proxy.secretName }}
- name: DOCPREVIEW_UPSTREAM__PROXY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.proxy.secretName }}
      key: {{ .Values.proxy.urlKey }}
{{- end }}
{{- with .Values.extraEnv }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}
