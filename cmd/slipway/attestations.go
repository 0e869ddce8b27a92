package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/attest"
	"slipway/internal/registry"
	"slipway/internal/registry/local"
)

// attach puts an attestation beside the image it is about.
func attach(ctx context.Context, repo registry.Repository, a attest.Attestation) error {
	config, empty := attest.EmptyConfig()
	layer, err := attest.Layer(a.Manifest)
	if err != nil {
		return err
	}
	if err := registry.PutBytes(ctx, repo, config, empty); err != nil {
		return err
	}
	if err := registry.PutBytes(ctx, repo, layer, a.Bundle); err != nil {
		return err
	}
	return repo.PutManifest(ctx, a.Descriptor, a.Manifest)
}

// attached is what hangs on one image.
type attached struct {
	Good    []attest.Verified
	Refused []refused
}

// refused is an attestation that does not count.
type refused struct {
	Digest digest.Digest
	Why    *attest.Refusal
}

// attestations reads and checks all attestations of an image. One that does not
// hold is no error: it is among the refused.
func attestations(ctx context.Context, repo registry.Repository, subject ocispec.Descriptor, keys []attest.Key, now time.Time) (attached, error) {
	var all attached
	list, err := repo.Referrers(ctx, subject.Digest, attest.MediaType)
	if err != nil {
		return all, err
	}
	for _, d := range list {
		manifest, bundle, err := fetch(ctx, repo, d)
		var v attest.Verified
		if err == nil {
			v, err = attest.Verify(subject, manifest, bundle, keys, now)
		}
		var why *attest.Refusal
		switch {
		case errors.As(err, &why):
			all.Refused = append(all.Refused, refused{d.Digest, why})
		case err != nil:
			return all, err
		default:
			all.Good = append(all.Good, v)
		}
	}
	return all, nil
}

// fetch reads the two documents of an attestation, no further than they may be long.
func fetch(ctx context.Context, repo registry.Repository, d ocispec.Descriptor) (manifest, bundle []byte, err error) {
	if _, manifest, err = repo.Manifest(ctx, d.Digest); err != nil {
		return nil, nil, err
	}
	layer, err := attest.Layer(manifest)
	if err != nil {
		return nil, nil, err
	}
	bundle, err = registry.Read(ctx, repo, layer)
	return manifest, bundle, err
}

// imageStore is the registry of a root: its images with what refers to them.
func imageStore(root string) string { return filepath.Join(root, "registry") }

func (g *globals) images() (*local.Store, error) { return local.Open(imageStore(g.root)) }

// withRepositories opens the local store of the root and registries as the
// configuration says they are to be spoken to.
func (g *globals) withRepositories(insecure bool, do func(*registry.Registries) error) error {
	store, err := g.images()
	if err != nil {
		return err
	}
	all := g.registriesWith(store, insecure)
	err = do(all)
	all.Close()
	return errors.Join(err, store.Close())
}

// registriesWith opens repositories of store, which may be nil, and of registries
// as the configuration says they are to be spoken to.
func (g *globals) registriesWith(store *local.Store, insecure bool) *registry.Registries {
	return &registry.Registries{Local: store, Options: func(host string) registry.Options {
		known := g.registries[host]
		return registry.Options{ConfigDir: dockerConfig(), Insecure: insecure || known.PlainHTTP || known.Insecure, CA: known.CA}
	}}
}

// dockerConfig is the directory of Docker's config file, with the credentials
// people already have.
func dockerConfig() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	return filepath.Join(home(), ".docker")
}
