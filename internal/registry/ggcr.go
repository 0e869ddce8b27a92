package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// tree is an image or index of a store in go-containerregistry's terms, for one push.
type tree struct {
	open  func(ocispec.Descriptor) (io.ReadCloser, error) // those terms have no context
	mount name.Reference
	docs  map[digest.Digest][]byte // of every index, manifest and config
}

// load reads all documents under desc; layers stay where they are.
func (c *client) load(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, mount name.Reference) (remote.Taggable, []ocispec.Descriptor, error) {
	open := func(d ocispec.Descriptor) (io.ReadCloser, error) { return openVerified(ctx, blobs, d) }
	t := &tree{open: open, mount: mount, docs: map[digest.Digest][]byte{}}
	var all []ocispec.Descriptor
	err := walk(ctx, blobs, desc, func(d ocispec.Descriptor, doc []byte) error {
		all = append(all, d)
		if doc == nil {
			return nil
		}
		t.docs[d.Digest] = doc
		if isIndex(d.MediaType) {
			return nil
		}
		children, err := childrenOf(d, doc)
		if err != nil {
			return err
		}
		t.docs[children[0].Digest], err = document(ctx, blobs, children[0])
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	switch {
	case isIndex(desc.MediaType):
		return &indexNode{t, desc}, all, nil
	case isManifest(desc.MediaType):
		img, err := t.image(desc)
		return img, all, err
	}
	return nil, nil, fmt.Errorf("it is a %q, not an image", desc.MediaType)
}

func (t *tree) image(d ocispec.Descriptor) (v1.Image, error) {
	img, err := partial.CompressedToImage(&imageNode{t, d})
	if err != nil || t.mount == nil {
		return img, err
	}
	return mountable{img, t.mount}, nil
}

// mountable offers the layers to the target registry from where they are.
type mountable struct {
	v1.Image
	from name.Reference
}

func (m mountable) Layers() ([]v1.Layer, error) {
	layers, err := m.Image.Layers()
	for i, l := range layers {
		layers[i] = &remote.MountableLayer{Layer: l, Reference: m.from}
	}
	return layers, err
}

// imageNode is a partial.CompressedImageCore.
type imageNode struct {
	*tree
	desc ocispec.Descriptor
}

func (i *imageNode) MediaType() (types.MediaType, error) {
	return types.MediaType(i.desc.MediaType), nil
}
func (i *imageNode) RawManifest() ([]byte, error) { return i.docs[i.desc.Digest], nil }
func (i *imageNode) Digest() (v1.Hash, error)     { return v1.NewHash(i.desc.Digest.String()) }
func (i *imageNode) Size() (int64, error)         { return i.desc.Size, nil }

func (i *imageNode) manifest() (ocispec.Manifest, error) {
	var m ocispec.Manifest
	err := json.Unmarshal(i.docs[i.desc.Digest], &m)
	return m, err
}

func (i *imageNode) RawConfigFile() ([]byte, error) {
	m, err := i.manifest()
	return i.docs[m.Config.Digest], err
}

func (i *imageNode) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	m, err := i.manifest()
	if err != nil {
		return nil, err
	}
	for _, l := range append(m.Layers, m.Config) {
		if l.Digest.String() == h.String() {
			return layerNode{i.tree, l}, nil
		}
	}
	return nil, fmt.Errorf("blob %s is not in manifest %s", h, i.desc.Digest)
}

// layerNode is a partial.CompressedLayer.
type layerNode struct {
	*tree
	desc ocispec.Descriptor
}

func (l layerNode) Digest() (v1.Hash, error) { return v1.NewHash(l.desc.Digest.String()) }
func (l layerNode) Size() (int64, error)     { return l.desc.Size, nil }
func (l layerNode) MediaType() (types.MediaType, error) {
	return types.MediaType(l.desc.MediaType), nil
}
func (l layerNode) Compressed() (io.ReadCloser, error) { return l.open(l.desc) }

// indexNode is a v1.ImageIndex.
type indexNode struct {
	*tree
	desc ocispec.Descriptor
}

func (x *indexNode) MediaType() (types.MediaType, error) {
	return types.MediaType(x.desc.MediaType), nil
}
func (x *indexNode) RawManifest() ([]byte, error) { return x.docs[x.desc.Digest], nil }
func (x *indexNode) Digest() (v1.Hash, error)     { return v1.NewHash(x.desc.Digest.String()) }
func (x *indexNode) Size() (int64, error)         { return x.desc.Size, nil }

func (x *indexNode) IndexManifest() (*v1.IndexManifest, error) {
	var m v1.IndexManifest
	err := json.Unmarshal(x.docs[x.desc.Digest], &m)
	return &m, err
}

func (x *indexNode) child(h v1.Hash) (ocispec.Descriptor, error) {
	children, err := childrenOf(x.desc, x.docs[x.desc.Digest])
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, d := range children {
		if d.Digest.String() == h.String() {
			return d, nil
		}
	}
	return ocispec.Descriptor{}, fmt.Errorf("%s is not in index %s", h, x.desc.Digest)
}

func (x *indexNode) Image(h v1.Hash) (v1.Image, error) {
	d, err := x.child(h)
	if err != nil {
		return nil, err
	}
	return x.image(d)
}

func (x *indexNode) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	d, err := x.child(h)
	if err != nil {
		return nil, err
	}
	return &indexNode{x.tree, d}, nil
}
