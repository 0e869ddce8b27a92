package builder

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/moby/buildkit/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dialTimeout is how long a remote builder may take to answer at all.
const dialTimeout = 10 * time.Second

// dialRemote connects and waits for a first answer, so that a wrong address or
// certificate is told before any work.
func dialRemote(ctx context.Context, r Remote) (*client.Client, error) {
	var opts []client.ClientOpt
	if r.CA != "" {
		opts = append(opts, client.WithServerConfig(r.ServerName, r.CA))
	}
	if r.Cert != "" || r.Key != "" {
		opts = append(opts, client.WithCredentials(r.Cert, r.Key))
	}
	c, err := client.New(ctx, r.Address, opts...)
	if err != nil {
		return nil, fmt.Errorf("builder %s: %w; give it as unix://PATH or tcp://HOST:PORT", r.Address, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, fmt.Errorf("no answer within %s", dialTimeout))
	defer cancel()
	if _, err := c.Info(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		_ = c.Close() // the failure to connect is what counts
		return nil, fmt.Errorf("builder %s does not answer: %w; check the address, that buildkitd runs there, and the certificates", r.Address, err)
	}
	return c, nil
}

// exportRemote streams the image into the local store over the connection that
// the build uses. A remote has BuildKit's own differ, so times are clamped by
// its exporter, to the same epoch.
func (b *Builder) exportRemote(ctx context.Context, r Request, attrs map[string]string) (client.ExportEntry, finishFunc, error) {
	store, err := b.newIntake(ctx)
	if err != nil {
		return client.ExportEntry{}, nil, err
	}
	attrs = maps.Clone(attrs)
	attrs["tar"] = "false"
	attrs["force-compression"] = "true" // it may hold layers that others compressed another way
	attrs["compression-level"] = strconv.Itoa(gzipLevel)
	attrs["rewrite-timestamp"] = "true"
	finish := func(ctx context.Context, d ocispec.Descriptor) error {
		if d.Digest == "" {
			return store.drop(ctx)
		}
		return store.name(ctx, builtName(r.Name)+"@"+d.Digest.String(), d)
	}
	return client.ExportEntry{Type: client.ExporterOCI, Attrs: attrs, OutputStore: store}, finish, nil
}
