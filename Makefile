# crimux: every target with a line each is printed by `make` alone.
SHELL      := /bin/bash
.DEFAULT_GOAL := help

GO         ?= go
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS    := -s -w -X main.version=$(VERSION)
# Seconds that each fuzz target runs in `make fuzz`.
FUZZTIME   ?= 30s

.PHONY: help build demo test install compiler unit e2e test-engines lint generate bench fuzz clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/crimux with the version stamped
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/crimux ./cmd/crimux

demo: ## show it on real engines, from nothing to two pods and back (as root)
	$(GO) run ./test/demo

test: install lint unit e2e ## everything that CI runs: lint, unit tests, end-to-end tests on real engines (as root)

install: compiler ## install the engines and tools that the tests need and the machine lacks (as root)
	$(GO) run ./test/lab/cmd/lab install

compiler:
	@command -v gcc >/dev/null || { echo "installing gcc, which the race detector needs"; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null; }

# The log's tables of damage are long, and the race detector makes them ten
# times as long: with it they are short.
unit: ## unit tests with the race detector, no engines
	$(GO) test -race $$($(GO) list ./... | grep -v -e /test/ -e /store$$)
	$(GO) test ./store
	$(GO) test -race -short -skip '^(TestCompactBySize|TestSalvageTruncated|TestTruncated)$$' ./store

e2e: ## end-to-end tests on real engines (as root)
	$(GO) test -race -count=1 -p 1 -timeout 20m ./test/...

test-engines: compiler ## the suites that need Docker, on the Engines of Debian trixie and sid (as root)
	$(GO) run ./test/engines

lint: ## vet, staticcheck, folder boundaries, formatting, generated code current
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	$(GO) test -count=1 ./test/boundaries
	@cp store/eventpb/event.pb.go /tmp/event.pb.go.$$$$ && $(GO) generate ./store/eventpb && \
		cmp -s store/eventpb/event.pb.go /tmp/event.pb.go.$$$$ || { echo "generated code is not current: run make generate and commit"; exit 1; }; rm -f /tmp/event.pb.go.$$$$
	@$(GO) mod tidy -diff >/dev/null || { echo "go.mod is not tidy: run go mod tidy and commit"; exit 1; }

generate: ## regenerate the event records' Go code
	$(GO) generate ./...

bench: ## measure: the log, a fake runtime and real engines directly and through crimux (as root)
	$(GO) test -run '^$$' -bench . ./store
	$(GO) test -run '^$$' -bench Call ./proxy
	$(GO) run ./test/bench

fuzz: ## run each fuzz target for FUZZTIME
	@set -e; for pkg in $$($(GO) list ./...); do \
		dir=$$($(GO) list -f '{{.Dir}}' $$pkg); \
		for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go 2>/dev/null | sed 's/func //'); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; done

clean: ## remove what was built
	rm -rf bin
