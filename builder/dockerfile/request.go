package dockerfile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// Request asks for the steps of one build on one platform.
type Request struct {
	Dir      string // the pipeline file's directory
	Build    pipeline.Build
	Platform string // "linux/amd64"; empty is the machine's own
	// Attrs are what the builder sets on every build besides, in the frontend's
	// words. They are part of the keys wherever they are part of a step.
	Attrs map[string]string
	// Resolve gives what is on record about an image: "docker.io/library/debian:12"
	// as References writes it, or "image:NAME" of the pipeline.
	Resolve func(ctx context.Context, name, platform string) (Image, error)
	Digests *Digests // of files read before; may be nil
}

// Image is what is on record about one that the Dockerfile stands on.
type Image struct {
	Digest   digest.Digest // of its manifest or index; empty when there is no record
	Config   []byte        // its OCI image configuration
	Imported bool          // it lies in the builder's store and is built on by digest
	Unsure   string        // why the record may be out of date ("the tag may have moved"); empty: it is not
}

// layoutStore is the store's name in a named context that is an image on record.
const layoutStore = "record"

// attrs puts the request into the frontend's words.
func (r *Request) attrs() map[string]string {
	a := map[string]string{
		"cmdline":            "builtin", // no `# syntax=`, which would need the network
		"image-resolve-mode": "pull",
	}
	for k, v := range r.Attrs {
		a[k] = v
	}
	a["filename"] = r.dockerfile()
	for k, v := range r.Build.Args {
		a["build-arg:"+k] = v
	}
	for k, v := range r.Build.Labels {
		a["label:"+k] = v
	}
	if r.Build.Target != "" {
		a["target"] = r.Build.Target
	}
	if r.Platform != "" {
		a["platform"] = r.Platform
	}
	if r.Build.NoCache {
		a["no-cache"] = ""
	}
	return a
}

func (r *Request) dockerfile() string {
	if r.Build.Dockerfile == "" {
		return "Dockerfile"
	}
	return filepath.ToSlash(filepath.Clean(r.Build.Dockerfile))
}

// contextDir is the directory that is the build context.
func contextDir(r *Request) (string, error) {
	dir := filepath.Join(r.Dir, filepath.FromSlash(r.Build.Context))
	fi, err := os.Stat(dir)
	if err != nil || !fi.IsDir() {
		return "", fmt.Errorf("the build context %q is no directory; name one in build.context", r.Build.Context)
	}
	return dir, nil
}

// readDockerfile reads and parses it, from inside the context only.
func readDockerfile(dir string, r *Request) ([]byte, *File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = root.Close() }() // only read from
	text, err := root.ReadFile(r.dockerfile())
	if err != nil {
		return nil, nil, fmt.Errorf("read the Dockerfile: %w; name it in build.dockerfile, relative to build.context", err)
	}
	file, err := Parse(r.dockerfile(), text)
	return text, file, err
}

// addContexts gives the frontend the named contexts: those of the build, and
// the imported images among refs.
func (c *recorder) addContexts(ctx context.Context, r *Request, refs []Reference) error {
	for name, where := range r.Build.AdditionalContexts {
		ref, err := Normalize(name)
		if err != nil {
			return &SyntaxError{File: r.dockerfile(), Message: "additional_contexts: " + err.Error()}
		}
		if err := c.addContext(ctx, r, ref.Context, where); err != nil {
			return err
		}
	}
	for _, ref := range refs {
		if _, given := c.attrs["context:"+ref.Context]; given {
			continue
		}
		img, err := c.image(ctx, ref.Name)
		if err != nil {
			return err
		}
		if img.Imported {
			c.attrs["context:"+ref.Context] = c.layout(ref.Name, img)
		}
	}
	return nil
}

func (c *recorder) addContext(ctx context.Context, r *Request, key, where string) error {
	name, isImage := where, strings.HasPrefix(where, "image:")
	if rest, ok := strings.CutPrefix(where, "docker-image://"); ok {
		ref, err := Normalize(rest)
		if err != nil {
			return &SyntaxError{File: r.dockerfile(), Message: "additional_contexts: " + err.Error()}
		}
		name, isImage = ref.Name, true
	}
	if isImage {
		img, err := c.image(ctx, name)
		if err != nil {
			return err
		}
		c.attrs["context:"+key] = c.layout(name, img)
		return nil
	}
	local := "context-" + shortHash(key)
	c.dirs[local] = filepath.Join(r.Dir, filepath.FromSlash(where))
	if fi, err := os.Stat(c.dirs[local]); err != nil || !fi.IsDir() {
		return &SyntaxError{File: r.dockerfile(), Message: fmt.Sprintf("additional_contexts: %s: %q is no directory", key, where)}
	}
	c.attrs["context:"+key] = "local:" + local
	return nil
}

// layout writes an image on record as a named context.
func (c *recorder) layout(name string, img Image) string {
	c.byDigest[img.Digest] = name
	return "oci-layout://" + layoutStore + "@" + img.Digest.String()
}

// shortHash is long enough to tell things of one build apart.
func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}
