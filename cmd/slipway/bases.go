//go:build linux && !client

package main

import (
	"context"
	"fmt"

	"github.com/containerd/platforms"

	"slipway/builder/dockerfile"
	"slipway/internal/store"
	"slipway/pipeline"
)

// normalName writes a reference out as Dockerfiles mean it: "debian:12" is
// "docker.io/library/debian:12".
func normalName(name string) (string, error) {
	ref, err := dockerfile.Normalize(name)
	if err != nil {
		return "", fmt.Errorf("--name %s: %w; write it as a Dockerfile's FROM does, e.g. debian:12", name, err)
	}
	return ref.Name, nil
}

// recordBase notes what a reference was imported as, for dry runs: they open
// no store but the records.
func (s *stack) recordBase(ctx context.Context, name string, image pipeline.Image) error {
	config, err := s.builder.Config(ctx, image, "")
	if err != nil {
		return err
	}
	return s.store.PutBase(name, store.Base{Digest: image.Descriptor.Digest, Config: config})
}

// machinePlatform is the platform that tests run on.
func machinePlatform() string { return platforms.Format(platforms.DefaultSpec()) }
