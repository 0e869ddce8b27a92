# slipway: `make help` says what there is. Every target but help and clean first
# installs the system packages it needs (.ci/setup), and only those missing.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# A tree without git (an unpacked archive) still builds; its binaries say so.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.0.0-dev)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# libseccomp is C. The helpers that need it are linked statically: they run in
# any image and on any distribution. slipway itself and the agent have no C.
SECCOMP_TAGS := seccomp netgo osusergo
STATIC := CGO_ENABLED=1 go build -trimpath -buildvcs=false -tags "$(SECCOMP_TAGS)"
PURE   := CGO_ENABLED=0 go build -trimpath -buildvcs=false

# Where slipway, its helpers and buildkitd are built: those for another architecture not here.
BIN := bin

# What `make test` insists on: where one is missing the test fails instead of skipping.
# internal/floors checks that every name a test asks for stands here, or below.
REQUIRE := root,go,curl,sandbox,slipway-sandbox,buildkit,buildkitd,runc,netns,busybox,mmdebstrap,skopeo,umoci,btrfs,docker-registry,oci-conformance,xfs,mariadb,postgres,openssl,webhook-samples,slipway,dockerd,docker,docker-compose,nsenter
KNOWN := suppressions=$(CURDIR)/.ci/race.known

# What depends on the kernel alone and may be lacking on a supported one, and what only
# `make soak` builds, and insists on.
MAYSKIP := btrfs-quota,tmpfs-root,cosign,gitea

# Where slipway is the client of a server, without sandboxes.
CLIENTS := darwin windows

TOOL := go tool -modfile=.ci/tools/go.mod

.PHONY: help build demo test check bench soak soak-tests soak-vm soak-arm64 soak-systemd soak-debian soak-fuzz release clean setup-% binaries helpers bases

help: ## say what the targets do
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

build: setup-build binaries ## build slipway and its helpers into bin/

binaries: helpers
	$(PURE) -ldflags "$(LDFLAGS)" -o $(BIN)/slipway ./cmd/slipway

helpers:
	$(STATIC) -ldflags "$(LDFLAGS) -extldflags -static" -o $(BIN)/slipway-sandbox ./cmd/slipway-sandbox
	$(PURE) -ldflags "-s -w" -o $(BIN)/slipway-agent ./cmd/slipway-agent
	$(STATIC) -ldflags "-s -w -extldflags -static" -o $(BIN)/slipway-runc github.com/opencontainers/runc

# Another machine's builder, for the tests of --builder: BuildKit's own program, from its module.
$(BIN)/buildkitd: .ci/buildkitd/go.mod
	CGO_ENABLED=0 go build -modfile=.ci/buildkitd/go.mod -trimpath -buildvcs=false -ldflags "-s -w" -o $@ github.com/moby/buildkit/cmd/buildkitd

# The OCI's own test of a registry, from its module.
bin/oci-conformance: .ci/conformance/go.mod
	CGO_ENABLED=0 go build -modfile=.ci/conformance/go.mod -trimpath -buildvcs=false -ldflags "-s -w" -o $@ github.com/opencontainers/distribution-spec/conformance

# What holds proofs to the format that others read: stock cosign, from its module (minutes).
bin/cosign: .ci/cosign/go.mod
	CGO_ENABLED=0 go build -modfile=.ci/cosign/go.mod -trimpath -buildvcs=false -ldflags "-s -w" -o $@ github.com/sigstore/cosign/v3/cmd/cosign

# A peer in make bench, from the module that slipway talks to registries with.
bin/crane: .ci/crane/go.mod
	CGO_ENABLED=0 go build -modfile=.ci/crane/go.mod -trimpath -buildvcs=false -ldflags "-s -w" -o $@ github.com/google/go-containerregistry/cmd/crane

# A forge whose webhooks are real: Gitea, from its module (minutes). `.ci/gitea/serve` runs it.
bin/gitea: .ci/gitea/go.mod
	CGO_ENABLED=1 go build -modfile=.ci/gitea/go.mod -trimpath -buildvcs=false -tags "sqlite sqlite_unlock_notify" -ldflags "-s -w" -o $@ code.gitea.io/gitea

bases:
	examples/bases --fetch all

# Webhooks that others recorded, for internal/forge to answer.
bin/samples: .ci/samples/fetch .ci/samples/go.mod
	.ci/samples/fetch $@

demo: setup-examples binaries ## build, then run the pipeline of examples/hello (root: $SLIPWAY_ROOT)
	examples/bases hello
	bin/slipway run pipeline examples/hello

test: setup-test binaries bin/buildkitd bin/oci-conformance bin/samples bases ## run every test, as CI does: race detector on, nothing skipped
	PATH="$(CURDIR)/bin:$$PATH" GORACE=$(KNOWN) SLIPWAY_REQUIRE=$(REQUIRE) go test -race -tags seccomp -timeout 30m ./...

check: setup-check ## format, lint, vet, tidiness of go.mod, floors, clients for other systems
	$(TOOL) golangci-lint run --build-tags seccomp ./...
	$(TOOL) golangci-lint fmt --diff
	go vet -tags seccomp ./...
	go mod tidy -diff
	go test ./internal/floors
	for os in $(CLIENTS); do GOOS=$$os $(PURE) -o /dev/null ./cmd/slipway || exit; done

bench: setup-bench binaries bin/crane ## measure slipway against docker, podman and others on this machine (internal/bench)
	internal/bench/run

soak: soak-tests soak-vm soak-arm64 soak-systemd soak-debian soak-fuzz ## the long trials, with full counts: kills, races, fuzzing (hours; make -k: all, whatever fails)

soak-tests: setup-soak binaries bin/buildkitd bin/oci-conformance bin/samples bin/cosign bin/gitea bases
	PATH="$(CURDIR)/bin:$$PATH" SLIPWAY_SOAK=1 GORACE=$(KNOWN) SLIPWAY_REQUIRE=$(REQUIRE),cosign,gitea go test -race -tags seccomp -timeout 6h -p 1 ./...

soak-vm soak-arm64 soak-systemd soak-debian: setup-soak bases

soak-vm:
	runner/testdata/vm/run

soak-arm64:
	VM_ARCH=arm64 runner/testdata/vm/run

soak-systemd:
	.ci/systemd/run

soak-debian:
	.ci/debian/run

soak-fuzz: setup-soak
	.ci/fuzz $(FUZZTIME)

release: setup-build helpers ## one file that needs no other: bin/release/slipway, and clients for other systems
	mkdir -p bin/release cmd/slipway/helpers
	cp bin/slipway-sandbox bin/slipway-agent bin/slipway-runc cmd/slipway/helpers/
	$(PURE) -tags embed -ldflags "-s -w $(LDFLAGS)" -o bin/release/slipway ./cmd/slipway
	for arch in amd64 arm64; do \
		GOOS=darwin GOARCH=$$arch $(PURE) -ldflags "-s -w $(LDFLAGS)" -o bin/release/slipway-darwin-$$arch ./cmd/slipway && \
		GOOS=windows GOARCH=$$arch $(PURE) -ldflags "-s -w $(LDFLAGS)" -o bin/release/slipway-windows-$$arch.exe ./cmd/slipway || exit; \
	done
	cd bin/release && sha256sum slipway slipway-* > slipway.sha256

clean: ## remove what make built; stores and base images stay
	rm -rf bin
	rm -f cmd/slipway/helpers/slipway-*

setup-%:
	@.ci/setup $*
