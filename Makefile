# Every target does the set-up it needs: Python >= 3.11 and make are enough on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
RUNS := .venv/.runs
READY := .venv/.ready
GENERATE_READY := .venv-generate/.ready
AUDIT_READY := .venv-audit/.ready
PROTOS := $(wildcard protos/docpreview/v1/*.proto)

# Of the images; `make image IMAGE_BASE=... IMAGE_BUILD_ARGS='...'` where the usual base cannot be pulled, or TLS is inspected (docs/deploy.md).
IMAGE_BUILDER ?= $(notdir $(firstword $(shell command -v buildah) $(shell command -v docker)))
IMAGE_BASE ?= docker.io/library/python:3.11-slim-bookworm
IMAGE_RUNTIME ?= $(IMAGE_BASE)
IMAGE_PREFIX ?= docpreview
IMAGE_TARGETS ?= gateway emulator
IMAGE_BUILD_ARGS ?=
IMAGE_VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE_EPOCH = $(shell git log -1 --format=%ct)
SBOM_DIR ?= build/sbom

.PHONY: help dev docs demo test test-rest check-docs test-all test-long clients soak check format generate lock bench bench-day bench-emulator clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

dev: $(READY) ## a virtual environment in .venv with everything for development

# Contract, client and gateway: three distributions, installed as they are in the checkout.
DISTRIBUTIONS := protos clients/python .

$(RUNS): pyproject.toml protos/pyproject.toml clients/python/pyproject.toml requirements/runtime.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed; name one with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(DISTRIBUTIONS:%=-e ./%)
	@touch $@

$(READY): $(RUNS) requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@touch $@

$(AUDIT_READY): requirements/audit.lock
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/audit.lock
	@touch $@

$(GENERATE_READY): requirements/generate.lock
	$(PYTHON) -m venv .venv-generate
	.venv-generate/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/generate.lock
	@touch $@

demo: $(RUNS) ## real documents in, page images out, through emulator and gateway
	$(BIN)/python examples/demo.py

# Two cores are busy with four workers: tests mostly wait. What measures runs alone, after the others, also when one of
# these has failed. The table of what was skipped goes on from one run to the next (--continued). A worker that dies
# ends the run: pytest-xdist would wait for the rest of its file for ever.
SESSIONS := tests/documents/test_sessions.py
QUICK := tests/unit tests/mutants tests/contract tests/packaging tests/integration tests/simulation \
  $(filter-out $(SESSIONS),$(wildcard tests/documents/test_*.py))
REST := tests/conformance tests/installs tests/faults tests/chart tests/monitoring tests/examples tests/model tests/vendor
BESIDE := -n 4 --dist loadfile --max-worker-restart 0 --no-loadscope-reorder -m "not alone and not long and not soak"
ALONE := --continued -m "alone and not long and not soak"
ALONE_OF = $(shell grep -rl --include='test_*.py' 'mark\.alone' $(1))

test: $(READY) ## the tests that need nothing but Python and make, in minutes; says what it skipped, and how to get it
	$(BIN)/pytest $(QUICK) $(BESIDE); first=$$?; $(BIN)/pytest $(call ALONE_OF,$(QUICK)) $(ALONE) && exit $$first

test-rest: $(READY) ## the others: clients in five languages, the vendor's SDKs, faults, chart, monitoring
	$(BIN)/pytest $(REST) $(BESIDE) --continued; first=$$?; $(BIN)/pytest $(call ALONE_OF,$(REST)) $(ALONE) && exit $$first

# The other blocks are loaded in `test`, and those in other languages compiled in `test-rest`; the list names the tests.
check-docs: $(READY) ## every code block of the documents and how it is run; runs the commands of all documents, a session for each
	$(BIN)/python -m tests.documents
	$(BIN)/pytest $(SESSIONS) --continued

test-all: ## these, and test-long
	$(MAKE) test
	$(MAKE) test-rest
	$(MAKE) check-docs
	$(MAKE) test-long

test-long: $(READY) ## the suites that take minutes each: churn, overload, 10,000 simulated schedules
	$(BIN)/pytest -m long --timeout 900

clients: $(READY) ## every client in its language: its own checks, and all of the conformance table; nothing is skipped
	CI=true $(BIN)/pytest tests/conformance -n 4 --dist loadfile

soak: $(READY) ## long fault campaigns, with figures; FAULTS_FULL=1 takes hours, FAULTS_SEED sets the seed (docs/faults.md)
	$(BIN)/pytest -m soak -s tests/faults tests/integration/test_callback_campaign.py

.PHONY: mutants
mutants: $(READY) ## would a test notice? one change of a money path at a time (half an hour); MUTANTS='--count 20' for a taste (CONTRIBUTING.md)
	nice -n 5 $(BIN)/python -m tests.mutants $(MUTANTS)

.PHONY: contact-sheet
contact-sheet: $(READY) ## build/contact-sheet.png: what the emulator makes of documents of all families, to look at (needs LibreOffice)
	$(BIN)/python -m tests.contact_sheet

check: $(READY) $(GENERATE_READY) ## style, types, layers, contract, drift of generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy release tests bench examples clients/python/conformance clients/python/examples
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf breaking protos --against '.git#subdir=protos'
	$(BIN)/python requirements/check_generated.py
	$(BIN)/python requirements/generate_docs.py --check
	$(BIN)/python helm/generate.py --check

format: $(READY) ## rewrite the sources as `check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format -w protos

# Stubs of a language whose toolchain is missing are left as they are. `check` generates into another place and compares.
OUT ?= .
STUBS := $(if $(shell command -v go),generate-go) $(if $(shell command -v npm),generate-typescript) $(if $(shell command -v cargo),generate-rust)

generate generate-python generate-go generate-typescript: export PATH := $(CURDIR)/.venv-generate/bin:$(PATH)
generate: generate-python $(STUBS) ## the stubs of all clients from protos/, Python's beside each .proto

generate-python: $(GENERATE_READY)
	@mkdir -p $(OUT)/protos
	python -m grpc_tools.protoc -I protos --python_out=$(OUT)/protos --mypy_out=quiet:$(OUT)/protos $(PROTOS)
	python -m grpc_tools.protoc -I protos --grpc_python_out=$(OUT)/protos --mypy_grpc_out=quiet:$(OUT)/protos $(filter %_service.proto,$(PROTOS))

GO_MODULE := github.com/docpreview/docpreview-gateway/clients/go
generate-go: $(GENERATE_READY)
	@mkdir -p $(OUT)/clients/go
	@test -x .venv-generate/bin/protoc-gen-go || GOBIN=$(CURDIR)/.venv-generate/bin go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	@test -x .venv-generate/bin/protoc-gen-go-grpc || GOBIN=$(CURDIR)/.venv-generate/bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
	python -m grpc_tools.protoc -I protos --go_out=$(OUT)/clients/go --go_opt=module=$(GO_MODULE) \
	  --go-grpc_out=$(OUT)/clients/go --go-grpc_opt=module=$(GO_MODULE) $(PROTOS)

# No compiler of protobuf is needed: the test that makes them has one, in Rust.
generate-rust:
	cd clients/rust && GENERATE_INTO=$(abspath $(OUT))/clients/rust/src/generated cargo test --quiet --locked --all-features --test generated

docs: $(READY) ## the documents that are made from sources
	$(BIN)/python requirements/generate_docs.py

TYPESCRIPT_READY := clients/typescript/node_modules/.package-lock.json
$(TYPESCRIPT_READY): clients/typescript/package-lock.json
	cd clients/typescript && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

generate-typescript: $(GENERATE_READY) $(RUNS) $(TYPESCRIPT_READY)
	@mkdir -p $(OUT)/clients/typescript/src/gen
	python -m grpc_tools.protoc -I protos -I $(wildcard .venv/lib/python*/site-packages) \
	  --plugin=clients/typescript/node_modules/.bin/protoc-gen-es \
	  --es_out=$(OUT)/clients/typescript/src/gen --es_opt=target=ts,import_extension=js \
	  $(PROTOS) google/rpc/status.proto google/rpc/error_details.proto

# Our own distributions are installed from the checkout, so no lock names them.
OURS := docpreview-gateway docpreview-client docpreview-protos
COMPILE = $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url $(OURS:%=--no-emit-package %)
lock: $(READY) ## newest versions that the pyproject.toml files allow, with hashes
	$(COMPILE) --universal --upgrade --custom-compile-command 'make lock' pyproject.toml --extra emulator --extra otel --group dev \
	  -o requirements/dev.lock
	$(COMPILE) --universal --custom-compile-command 'make lock' pyproject.toml clients/python/pyproject.toml --extra emulator --extra otel \
	  --extra cli --group build --constraint requirements/dev.lock -o requirements/runtime.lock
	$(COMPILE) --universal --upgrade --custom-compile-command 'make lock' --group generate -o requirements/generate.lock
	$(COMPILE) --universal --upgrade --custom-compile-command 'make lock' --group audit -o requirements/audit.lock

.PHONY: chart chart-files chart-goldens chart-cluster apiserver
chart: export CI := $(or $(CI),1)
chart: $(READY) ## the Helm chart: lint, rendering, schemas, and its configuration as the gateway reads it (needs helm)
	$(BIN)/python helm/generate.py --check
	$(BIN)/pytest tests/chart

chart-files: $(READY) ## the chart's schema of values and README, from values.yaml and the gateway's settings
	$(BIN)/python helm/generate.py

chart-goldens: $(READY) ## take over what the chart renders now
	CHART_GOLDENS=write $(BIN)/pytest -q tests/chart -k goldens

# With its version in it: helm asks the server.
apiserver: ## etcd and kube-apiserver from their Go modules, in build/apiserver, for chart-cluster (needs go; six minutes of a core)
	cd tests/chart/apiserver && version=$$(sed -n 's/^.*k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' go.mod) && \
	  go build -o $(CURDIR)/build/apiserver/etcd go.etcd.io/etcd/server/v3 && \
	  go build -ldflags "-X k8s.io/component-base/version.gitVersion=$$version" -o $(CURDIR)/build/apiserver/kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver

chart-cluster: $(READY) apiserver ## the chart's objects in a real API server: strict decoding, validation, admission, helm install (needs helm)
	$(BIN)/pytest -m long tests/chart

.PHONY: image image-test sbom audit
# Without buildah's cache of layers: it would keep Debian's packages, and labels, of an earlier build.
image: ## the images of gateway and emulator, by buildah or docker; IMAGE_BUILD_ARGS='--build-arg OFFICE=no' leaves LibreOffice out
	@test -n "$(IMAGE_BUILDER)" || { echo "buildah or docker is needed (apt-get install --no-install-recommends buildah)"; exit 1; }
	for target in $(IMAGE_TARGETS); do \
	  SOURCE_DATE_EPOCH=$(IMAGE_EPOCH) $(IMAGE_BUILDER) build \
	    $(if $(filter buildah,$(IMAGE_BUILDER)),--format docker --layers=false --timestamp $(IMAGE_EPOCH)) \
	    --build-arg BASE_IMAGE=$(IMAGE_BASE) --build-arg RUNTIME_IMAGE=$(IMAGE_RUNTIME) \
	    --label org.opencontainers.image.version=$(IMAGE_VERSION) --label org.opencontainers.image.revision=$$(git rev-parse HEAD) \
	    --target $$target -t $(IMAGE_PREFIX)-$$target:$(IMAGE_VERSION) $(IMAGE_BUILD_ARGS) . || exit 1; \
	done

image-test: $(READY) $(AUDIT_READY) ## build the images, run them as a strict cluster would; prints size and uid (needs buildah, runc, root)
	CI=$(or $(CI),1) IMAGE_TESTS=required IMAGE_BASE=$(IMAGE_BASE) IMAGE_BUILD_ARGS="$(IMAGE_BUILD_ARGS)" $(BIN)/pytest -m long -s tests/image

sbom: $(READY) $(AUDIT_READY) ## what the lock gives to each image as CycloneDX, with hashes, in build/sbom
	$(BIN)/python -m release.sbom --into $(SBOM_DIR)

audit: sbom ## known vulnerabilities of what the images contain; needs a source of advisories
	@.venv-audit/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r $(SBOM_DIR)/gateway.txt -r $(SBOM_DIR)/emulator.txt \
	|| { echo "audit: NOT clean. Either there are findings above, or no source of advisories answered and nothing was audited"; exit 1; }

.PHONY: dist release-dry-run
dist: $(READY) $(AUDIT_READY) ## what is installed, in build/dist: wheels, sdists, images, the chart; SBOMs and checksums (docs/releasing.md)
	$(BIN)/python -m release --into build/dist python images chart

release-dry-run: $(READY) $(AUDIT_READY) ## every package of a release, built and checked but not uploaded (docs/releasing.md); PACKAGES='python go' for some
	$(BIN)/python -m release $(PACKAGES)

bench: $(READY) ## comparisons against peers (one in Go, where Go is there), as ratios in one run; BASE=REVISION: against the gateway of that revision
	$(BIN)/python bench/run.py $(if $(BASE),--base $(BASE))

bench-day: $(READY) ## a realistic day of jobs: CPU and upstream requests of SDK, Go service and gateway, in three minutes
	$(BIN)/python bench/day.py

bench-emulator: $(READY) ## start-up, memory and answers of the emulator while it converts hostile documents, in two minutes
	$(BIN)/python -m bench.emulator

http-clients: $(READY) ## the refused HTTP clients of docs/adr/0001 under the contract of the port (it fails), and all candidates compared
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target build/http-clients pyreqwest==0.15.1 httpx2==2.16.2 httpcore2==2.16.2 truststore==0.10.5
	for name in aiohttp pyreqwest httpx2; do \
	  HTTP_CANDIDATE=$$name PYTHONPATH=build/http-clients $(BIN)/python -m pytest --quiet --tb=no tests/contract/http/test_transport.py; \
	done; $(BIN)/python bench/http_clients.py

clean: ## remove what the targets above made
	rm -rf .venv .venv-generate .venv-audit .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist \
	  clients/*/build clients/*/target clients/typescript/dist clients/typescript/node_modules tests/vendor/node/node_modules tests/vendor/php/vendor
