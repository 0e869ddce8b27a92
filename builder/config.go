package builder

import (
	"context"
	"encoding/json"
	"fmt"

	"slipway/pipeline"
)

// Config gives the image configuration of img for a platform, as its bytes
// stand in the store; an empty platform is this machine's.
func (b *Builder) Config(ctx context.Context, img pipeline.Image, platform string) (json.RawMessage, error) {
	all, err := b.manifests(ctx, img.Descriptor)
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", img.Descriptor.Digest, err)
	}
	m, err := pick(all, platform)
	if err != nil {
		return nil, err
	}
	var config json.RawMessage
	if err := b.readJSON(ctx, m.manifest.Config, &config); err != nil {
		return nil, fmt.Errorf("read the configuration of %s: %w", img.Descriptor.Digest, err)
	}
	return config, nil
}
