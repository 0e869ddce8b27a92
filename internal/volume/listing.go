package volume

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// A volume travels as an OCI artifact: a manifest whose first layer is the
// listing and whose others are the data. Large files are cut at fixed offsets,
// because a database writes in place; small ones are packed, with boundaries
// that depend on their names, so that a new file moves no other boundary far.
const (
	ArtifactType  = "application/vnd.slipway.volume.v1"
	listingType   = "application/vnd.slipway.volume.listing.v1.json+zstd"
	dataType      = "application/vnd.slipway.volume.data.v1+zstd"
	chunkSize     = 4 << 20 // of a large file; one in 4 MiB changed is 4 MiB sent, before compression
	smallFile     = 1 << 20 // the largest that is packed
	packAtLeast   = 512 << 10
	maxBlob       = 8 << 20 // uncompressed; a pack ends before it reaches this
	maxBlobs      = 16_000  // what fits the 4 MiB that registries allow a manifest: 64 GiB in large files
	maxManifest   = 4 << 20
	maxListing    = 256 << 20 // uncompressed
	listingSchema = 1
)

// listing says what the tree of an artifact is made of.
type listing struct {
	Version int           `json:"version"`
	Tree    digest.Digest `json:"tree"` // see hashTree; checked after import
	Entries []listed      `json:"entries"`
	Blobs   []blob        `json:"blobs"`
}

// listed is one entry, in the order of a walk: a directory before its content,
// the first path of a file before its hard links.
type listed struct {
	Path   text    `json:"path"`
	Kind   string  `json:"kind"` // dir, file, symlink, fifo, link
	Mode   uint32  `json:"mode,omitzero"`
	UID    uint32  `json:"uid,omitzero"`
	GID    uint32  `json:"gid,omitzero"`
	MTime  int64   `json:"mtime,omitzero"` // nanoseconds since 1970
	Size   int64   `json:"size,omitzero"`
	Target text    `json:"target,omitzero"` // of a symlink; of a link the first path
	Xattrs []xattr `json:"xattrs,omitzero"`
	Parts  []part  `json:"parts,omitzero"` // what is in none of them is zeros
}

// part of a file is a piece of a blob.
type part struct {
	Offset int64 `json:"offset,omitzero"` // in the file
	Length int64 `json:"length"`
	Blob   int   `json:"blob"`
	At     int64 `json:"at,omitzero"` // in the blob, uncompressed
}

// blob is a layer with data.
type blob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	Raw    int64         `json:"raw"` // bytes, uncompressed
}

// text is bytes that are mostly UTF-8, as file names are; what is not is written in base64.
type text string

const base64Prefix = "base64:"

// MarshalJSON loses no byte.
func (t text) MarshalJSON() ([]byte, error) {
	s := string(t)
	if !utf8.ValidString(s) || strings.HasPrefix(s, base64Prefix) {
		s = base64Prefix + base64.StdEncoding.EncodeToString([]byte(s))
	}
	return json.Marshal(s)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *text) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	if encoded, ok := strings.CutPrefix(s, base64Prefix); ok {
		b, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return err
		}
		s = string(b)
	}
	*t = text(s)
	return nil
}

// check finds everything wrong with a listing that somebody else wrote, before
// a file is made of it.
func (l *listing) check() error {
	if l.Version != listingSchema {
		return fmt.Errorf("the listing has version %d; this slipway reads %d", l.Version, listingSchema)
	}
	if err := l.Tree.Validate(); err != nil {
		return fmt.Errorf("the digest of the tree: %w", err)
	}
	for _, b := range l.Blobs {
		if b.Digest.Validate() != nil || b.Size < 0 || b.Raw <= 0 || b.Raw > maxBlob {
			return fmt.Errorf("blob %s has %d bytes", b.Digest, b.Raw)
		}
	}
	if len(l.Entries) == 0 || l.Entries[0].Path != "." || l.Entries[0].Kind != "dir" {
		return errors.New("the listing does not begin with its root")
	}
	kinds := map[text]string{".": "dir"}
	for _, e := range l.Entries[1:] {
		if err := e.checkPath(kinds); err != nil {
			return fmt.Errorf("entry %q: %w", e.Path, err)
		}
		kinds[e.Path] = e.Kind
	}
	for _, e := range l.Entries {
		if err := e.check(kinds, l.Blobs); err != nil {
			return fmt.Errorf("entry %q: %w", e.Path, err)
		}
	}
	return nil
}

func (e *listed) checkPath(kinds map[text]string) error {
	p := string(e.Path)
	if p == "" || p[0] == '/' || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") || strings.Contains(p, "\x00") {
		return errors.New("the path does not stay inside")
	}
	if len(p) >= unix.PathMax || strings.Count(p, "/") > maxDepth {
		return errors.New("the path is too long")
	}
	if _, twice := kinds[e.Path]; twice {
		return errors.New("it is there twice")
	}
	if kinds[text(path.Dir(p))] != "dir" {
		return errors.New("it is in no directory")
	}
	if e.Kind == "link" && kinds[e.Target] != "file" {
		return errors.New("it is a hard link to no file before it")
	}
	return nil
}

func (e *listed) check(kinds map[text]string, blobs []blob) error {
	if !slices.Contains([]string{"dir", "file", "symlink", "fifo", "link"}, e.Kind) {
		return fmt.Errorf("unknown kind %q", e.Kind)
	}
	if e.Mode&^0o7777 != 0 || e.Size < 0 {
		return errors.New("mode or size is out of range")
	}
	if e.Kind == "symlink" && (e.Target == "" || strings.Contains(string(e.Target), "\x00")) {
		return errors.New("the symlink has no target")
	}
	if e.Kind != "file" && (len(e.Parts) > 0 || e.Size != 0) {
		return errors.New("only a file has content")
	}
	end := int64(0)
	for _, p := range e.Parts {
		if p.Offset < end || p.Length <= 0 || p.Length > maxBlob || p.Offset > e.Size-p.Length {
			return errors.New("its parts do not fit")
		}
		end = p.Offset + p.Length
		if p.Blob < 0 || p.Blob >= len(blobs) || p.At < 0 || p.At > blobs[p.Blob].Raw-p.Length {
			return errors.New("a part is outside its blob")
		}
	}
	return nil
}

// stored is how many bytes the content takes.
func (l *listing) stored() (bytes int64) {
	for _, e := range l.Entries {
		for _, p := range e.Parts {
			bytes += p.Length
		}
	}
	return bytes
}

// pieces says for every blob what of which files it is, in the order of the blob.
func (l *listing) pieces() [][]piece {
	all := make([][]piece, len(l.Blobs))
	for i, e := range l.Entries {
		for _, p := range e.Parts {
			all[p.Blob] = append(all[p.Blob], piece{entry: i, part: p})
		}
	}
	for _, of := range all {
		slices.SortFunc(of, func(a, b piece) int { return int(a.At - b.At) })
	}
	return all
}

type piece struct {
	entry int
	part
}
