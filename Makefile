# Muster. `make` alone says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The CDK's bindings are 240 MB that only infra/cdk needs, so every target but cdk, synth, sam and deploy leaves it out.
PACKAGES = $$(go list ./... | grep -v /infra/cdk)
FUNCTIONS := $(patsubst functions/%/main.go,%,$(wildcard functions/*/main.go))

# The packages whose tests talk to emulators of AWS.
EMULATED = $$(go list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | grep ' .*muster/shared/emulator' | cut -d' ' -f1)

STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
CDK := npx --yes aws-cdk@2.1148.1

# The race detector wants a C compiler. Without one the tests still run, and say what they did not look for.
ifeq ($(shell command -v "$$(go env CC)" 2>/dev/null),)
  ifneq ($(CI),)
    RACE = $(error There is no C compiler, so the race detector cannot run; with CI set that is a failure)
  else
    RACE = $(info *** There is no C compiler: the tests run WITHOUT the race detector. ***)
  endif
else
  # SQLite is C put into Go: its memory is not Go's, so the race detector sees nothing there, and would take a quarter of
  # the suite's time to look.
  RACE = -race -gcflags=modernc.org/sqlite/lib=-race=false
endif

.PHONY: help
help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{ printf "make %-14s %s\n", $$1, $$2 }'

.PHONY: run
run: ## start Muster on 127.0.0.1:8080, deploy the sample crews and run one of them
	@go run ./infra/local -demo $(foreach crew,$(wildcard testevents/crews/*/),-deploy $(crew:/=))

.PHONY: demo-triggers
demo-triggers: ## start a run in every way there is, on a fresh and temporary Muster, and show the stream of each
	@data=$$(mktemp -d); trap 'rm -rf "$$data"' EXIT; \
	  go run ./infra/local -demo-triggers testevents -addr 127.0.0.1:0 -data "$$data" $(foreach crew,$(wildcard testevents/crews/*/),-deploy $(crew:/=))

.PHONY: test
test: check unit homes guides emulators cdk ## run everything that CI runs

.PHONY: check
check: ## gofmt, vet, staticcheck, import rules
	@unformatted=$$(gofmt -l events functions infra shared); \
	  if [ -n "$$unformatted" ]; then echo "gofmt these:"; echo "$$unformatted"; exit 1; fi
	go vet $(PACKAGES)
	$(STATICCHECK) $(PACKAGES)
	go test ./infra

# The packages whose tests run whole homes: they take longer than all others together.
HOMES = ./infra/e2e ./infra/faults

.PHONY: unit
unit: ## run the tests of each package
	go test -shuffle=on $(strip $(RACE)) $$(go list ./... | grep -vE '/infra/(cdk|e2e|faults)$$')

.PHONY: homes
homes: ## run whole homes from end to end, calm ones and broken ones
	go test -shuffle=on $(strip $(RACE)) $(HOMES)

.PHONY: emulators
emulators: ## run the AWS adapters and the end-to-end suite against emulators
	MUSTER_EMULATORS=1 go test -shuffle=on -count=1 $(EMULATED)

.PHONY: guides
guides: ## run every snippet of the guides (fetches Express, TypeScript and Flask; wants curl, jq and openssl)
	MUSTER_GUIDES=1 go test -count=1 ./infra/guides

.PHONY: soak
soak: ## break runs in every way for some minutes: faults, frozen and killed processes; print what came of it
	MUSTER_EMULATORS=1 go test -count=1 -timeout 20m -parallel 4 -v ./infra/faults -soak

.PHONY: soak-every
soak-every: ## break runs at every call that they make of the AWS adapters (about a quarter of an hour)
	MUSTER_EMULATORS=1 go test -count=1 -timeout 60m -v ./infra/faults -run 'TestNoFaultBreaks.*OnAWS' -soak -every

.PHONY: cdk
cdk: ## synthesise the stack and hold the template to its rules (needs Node)
	@if ! command -v node >/dev/null; then \
	  echo "*** There is no Node: the CloudFormation template is NOT tested. ***"; [ -z "$${CI:-}" ] || exit 1; \
	else \
	  set -x; go vet ./infra/cdk; $(STATICCHECK) ./infra/cdk; JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION=1 go test -p 1 ./infra/cdk; \
	fi

.PHONY: bench
bench: ## measure this machine (about two minutes; asserts nothing)
	@go run ./infra/bench

.PHONY: bench-delivery
bench-delivery: ## measure the delivery of webhooks (two to three minutes; asserts nothing)
	@go run ./infra/bench -delivery

# The architecture of the functions. infra/cdk reads it too.
export ARCH ?= arm64

.PHONY: build
build: $(FUNCTIONS:%=dist/%/bootstrap) ## build the functions into dist/ (ARCH=amd64 for another machine)

.PHONY: $(FUNCTIONS:%=dist/%/bootstrap)
$(FUNCTIONS:%=dist/%/bootstrap): dist/%/bootstrap:
	CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -tags lambda.norpc -trimpath -buildvcs=false \
	  -ldflags='-s -w -buildid=' -o $@ ./functions/$*

.PHONY: synth
synth: build ## write the CloudFormation template to cdk.out/ (needs Node, but neither an account nor the CDK's command line)
	@command -v node >/dev/null || { echo "The CDK needs Node; https://nodejs.org has it."; exit 1; }
	@JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION=1 CDK_OUTDIR=cdk.out \
	  CDK_CONTEXT_JSON='{"aws:cdk:enable-asset-metadata":true,"aws:cdk:enable-path-metadata":true}' \
	  go run ./infra/cdk
	@echo "cdk.out/Muster.template.json is written."

.PHONY: deploy
deploy: build ## deploy to the AWS account that the aws command line is logged in to
	@infra/cdk/prepare
	$(CDK) deploy --require-approval never

.PHONY: destroy
destroy: build ## take the deployment down; the table, the tokens and the keys stay
	$(CDK) destroy
	@echo "The table and the SSM parameters below /muster/ are still there."

.PHONY: sam
sam: ## serve the template's HTTP API on this machine, by `sam local start-api` (needs sam and a running Docker)
	@command -v sam >/dev/null || { echo "sam is not installed: see https://docs.aws.amazon.com/serverless-application-model"; exit 1; }
	@docker info >/dev/null 2>&1 || { echo "sam local runs functions in Docker, and no Docker engine answers."; exit 1; }
	@$(MAKE) --no-print-directory synth ARCH=$$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
	sam local start-api -t cdk.out/Muster.template.json --env-vars testevents/sam.json

.PHONY: local-clean
local-clean: ## throw away what `make run` keeps (.muster/) and what was built
	rm -rf .muster dist cdk.out
