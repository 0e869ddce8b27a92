package local

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestUploadInPieces(t *testing.T) {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		s := open(t)
		r := repository(t, s, "app")
		u, err := r.NewUpload(t.Context())
		must(t, err)
		must(t, u.Append(t.Context(), -1, -1, strings.NewReader("one, ")))
		must(t, u.Append(t.Context(), 5, 5, strings.NewReader("two, and more than was said")))
		if err := u.Append(t.Context(), 3, -1, strings.NewReader("x")); !errors.Is(err, ErrOffset) {
			t.Errorf("a piece at the wrong place: %v", err)
		}
		// The connection breaks: what came is kept, and another process goes on.
		cut := io.MultiReader(strings.NewReader("th"), iotest.ErrReader(errors.New("cut")))
		if err := u.Append(t.Context(), 10, 5, cut); err == nil {
			t.Error("a cut piece counts")
		}
		u, err = repository(t, openAt(t, s.dir), "app").Upload(t.Context(), u.ID)
		must(t, err)
		if u.Size != 12 {
			t.Fatalf("%d bytes", u.Size)
		}
		if err := u.Append(t.Context(), 12, 9, strings.NewReader("ree")); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a short piece counts: %v", err)
		}
		d := algorithm.FromString("one, two, three")
		must(t, u.Finish(t.Context(), d))
		checkBytes(t, r, ocispec.Descriptor{Digest: d, Size: 15})
		if _, err := r.Upload(t.Context(), u.ID); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the upload is still there: %v", err)
		}
		if l := left(t, s); len(l) > 0 {
			t.Errorf("left: %v", l)
		}
	}
}

// The sum that is kept beside an upload is never trusted over the bytes.
func TestUploadSumIsOnlyAShortcut(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"missing":         os.Remove,
		"half":            func(p string) error { return os.Truncate(p, 20) },
		"of another boot": func(p string) error { return os.WriteFile(p, []byte(`{"boot":"x","size":3,"sum":""}`), 0o600) },
	} {
		s := open(t)
		r := repository(t, s, "app")
		u, err := r.NewUpload(t.Context())
		must(t, err)
		must(t, u.Append(t.Context(), -1, -1, strings.NewReader("one")))
		must(t, spoil(filepath.Join(s.dir, u.path+stateSuffix)))
		must(t, u.Append(t.Context(), -1, -1, strings.NewReader("two")))
		if err := u.Finish(t.Context(), digest.FromString("onetwo")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		check(t, s)
	}
}

func TestUploadIsRefused(t *testing.T) {
	s := open(t)
	r := repository(t, s, "app")
	u, err := r.NewUpload(t.Context())
	must(t, err)
	for _, id := range []string{"", "..", "../" + u.ID, strings.ToLower(u.ID), "new-" + u.ID} {
		if _, err := r.Upload(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("upload %q: %v", id, err)
		}
	}
	if _, err := repository(t, s, "other").Upload(t.Context(), u.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an upload of another repository: %v", err)
	}
	f, err := u.hold()
	must(t, err)
	if err := u.Append(t.Context(), -1, -1, strings.NewReader("x")); !errors.Is(err, ErrBusy) {
		t.Errorf("two at once: %v", err)
	}
	must(t, f.Close())
	must(t, u.Append(t.Context(), -1, -1, strings.NewReader("wrong")))
	if err := u.Finish(t.Context(), digest.FromString("right")); !errors.Is(err, ErrDigest) {
		t.Errorf("wrong bytes: %v", err)
	}
	if l := left(t, s); len(l) > 0 {
		t.Errorf("wrong bytes are kept: %v", l)
	}
	if files(t, filepath.Join(s.dir, blobsDir)) > 0 {
		t.Error("wrong bytes are in the store")
	}
}

func TestUploadsExpire(t *testing.T) {
	s := open(t)
	r := repository(t, s, "app")
	u, err := r.NewUpload(t.Context())
	must(t, err)
	must(t, u.Append(t.Context(), -1, -1, strings.NewReader("begun")))
	must(t, s.ExpireUploads(DefaultGrace))
	if _, err := r.Upload(t.Context(), u.ID); err != nil {
		t.Errorf("a new one expired: %v", err)
	}
	must(t, s.ExpireUploads(0))
	if l := left(t, s); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}
