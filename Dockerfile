# Two images from one set of wheels: `gateway` (the default) and `emulator`. Nothing is compiled, nothing is installed that
# requirements/runtime.lock does not name with its hash. `make image` builds both; docs/deploy.md tells how they are run.
#
# Behind a proxy that inspects TLS, or with a package index of your own, a build takes two secrets, which get into no image: `ca`, a PEM file of the
# authorities that pip trusts, and `pip`, a pip.conf. They are not mounted over files: buildah 1.28 deletes what is below.

# Where wheels are made, and what the emulator stands on.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm
# What the gateway stands on: the same Python at the same path. It needs neither a shell nor a package manager.
ARG RUNTIME_IMAGE=${BASE_IMAGE}

FROM ${BASE_IMAGE} AS wheels
# pip would look at authorities of its own; these are the base's.
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_CONFIG_FILE=/run/secrets/pip
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/runtime.lock requirements/
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip \
    if [ -e /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && python3 -m venv /build \
 && /build/bin/pip wheel --quiet --only-binary :all: --require-hashes -r requirements/runtime.lock -w /wheels \
 && /build/bin/pip install --quiet --no-index --find-links /wheels hatchling
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY server server
COPY docs/runbooks docs/runbooks
COPY clients/python clients/python
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation -w /wheels ./protos ./clients/python .

# Only what serves, and the command `docpreview`: no pip, no commands of libraries, no emulator. Bytecode is written now, since the root is
# read-only later; it does not depend on times, so that the same sources give the same files.
FROM wheels AS gateway-files
RUN python3 -m venv --without-pip /opt/docpreview \
 && /build/bin/pip --python /opt/docpreview/bin/python install --quiet --no-compile --no-index --find-links /wheels \
    'docpreview-gateway[otel]' 'docpreview-client[cli]' \
 && rm -r /opt/docpreview/lib/python3*/site-packages/docpreview_emulator /opt/docpreview/bin/docpreview-emulator \
 && find /opt/docpreview/bin -type f ! -name 'docpreview*' -delete \
 && /opt/docpreview/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/docpreview/lib \
 && mkdir -p /empty

FROM wheels AS emulator-files
RUN python3 -m venv --without-pip /opt/docpreview \
 && /build/bin/pip --python /opt/docpreview/bin/python install --quiet --no-compile --no-index --find-links /wheels 'docpreview-gateway[emulator]' \
 && rm -r /opt/docpreview/lib/python3*/site-packages/docpreview_gateway /opt/docpreview/bin/docpreview-gateway \
 && find /opt/docpreview/bin -type f ! -name 'docpreview*' -delete \
 && /opt/docpreview/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/docpreview/lib \
 && mkdir -p /empty

FROM ${BASE_IMAGE} AS emulator
# Slides, text documents and spreadsheets need LibreOffice and fonts (with those for Chinese, Japanese and Korean 800 MB); PDFs need nothing.
# `--build-arg OFFICE=no` leaves them out.
ARG OFFICE=yes
# The distribution's security updates are wanted, so its packages are not pinned.
# hadolint ignore=DL3008
RUN if [ "$OFFICE" = yes ]; then \
      apt-get update \
      && apt-get install -y --no-install-recommends libreoffice-impress libreoffice-writer libreoffice-calc libreoffice-math \
        fonts-dejavu-core fonts-liberation fonts-noto-cjk \
      && rm -rf /var/lib/apt/lists/*; \
    fi
LABEL org.opencontainers.image.title="docpreview-emulator" \
      org.opencontainers.image.description="Emulator of Tencent Cloud CI document-preview jobs that really renders; for development, not for the internet" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=emulator-files /opt/docpreview /opt/docpreview
COPY --from=emulator-files --chown=65532:65532 /empty /var/lib/docpreview
ENV PATH=/opt/docpreview/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /var/lib/docpreview
USER 65532:65532
EXPOSE 8089
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
  CMD ["/opt/docpreview/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8089/_emulator/health', timeout=4)"]
ENTRYPOINT ["/opt/docpreview/bin/docpreview-emulator"]
CMD ["serve", "--host", "0.0.0.0", "--allow-remote", "--data-dir", "/var/lib/docpreview"]

FROM ${RUNTIME_IMAGE} AS gateway
LABEL org.opencontainers.image.title="docpreview-gateway" \
      org.opencontainers.image.description="gRPC gateway to Tencent Cloud CI document-preview jobs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=gateway-files /opt/docpreview /opt/docpreview
# The ledger of creates, where replicas share no state: mount a volume here, the rest of the root can be read-only.
COPY --from=gateway-files --chown=65532:65532 /empty /var/lib/docpreview
ENV PATH=/opt/docpreview/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1 \
    DOCPREVIEW_CONFIG=/etc/docpreview/gateway.yaml
WORKDIR /var/lib/docpreview
USER 65532:65532
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["/opt/docpreview/bin/docpreview-gateway", "healthcheck"]
ENTRYPOINT ["/opt/docpreview/bin/docpreview-gateway"]
CMD ["serve"]
