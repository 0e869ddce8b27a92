package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
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
	finish := func(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) {
		if d.Digest == "" {
			return d, store.drop(ctx)
		}
		d, err := store.unmark(ctx, d)
		if err != nil {
			return d, errors.Join(err, store.drop(ctx))
		}
		return d, store.name(ctx, builtName(r.Name)+"@"+d.Digest.String(), d)
	}
	return client.ExportEntry{Type: client.ExporterOCI, Attrs: attrs, OutputStore: store}, finish, nil
}

// rewriteMark is what BuildKit's exporter leaves on each layer it rewrote. It
// says nothing about the image and would be the one difference between the
// manifest of a remote build and that of the same build here.
const rewriteMark = "buildkit/rewritten-timestamp"

// unmark writes d again without those marks and gives its new descriptor.
func (i *intake) unmark(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	if !images.IsIndexType(d.MediaType) {
		var m ocispec.Manifest
		if err := i.b.readJSON(ctx, d, &m); err != nil {
			return d, err
		}
		for n := range m.Layers {
			if delete(m.Layers[n].Annotations, rewriteMark); len(m.Layers[n].Annotations) == 0 {
				m.Layers[n].Annotations = nil
			}
		}
		return i.write(ctx, d, m)
	}
	var index ocispec.Index
	if err := i.b.readJSON(ctx, d, &index); err != nil {
		return d, err
	}
	for n, m := range index.Manifests {
		clean, err := i.unmark(ctx, m)
		if err != nil {
			return d, err
		}
		index.Manifests[n].Digest, index.Manifests[n].Size = clean.Digest, clean.Size
	}
	return i.write(ctx, d, index)
}

// write stores a document in place of d, laid out as BuildKit lays out its own.
func (i *intake) write(ctx context.Context, d ocispec.Descriptor, doc any) (ocispec.Descriptor, error) {
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return d, err
	}
	d.Digest, d.Size = digest.FromBytes(data), int64(len(data))
	return d, content.WriteBlob(ctx, i, i.lease.ID+"-"+d.Digest.Encoded(), bytes.NewReader(data), d)
}
