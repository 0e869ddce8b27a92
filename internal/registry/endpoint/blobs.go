package endpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/registry/local"
	"slipway/internal/registry/manifest"
)

const octets = "application/octet-stream"

// digest reads a digest out of a request.
func readDigest(s string) (digest.Digest, error) {
	d := digest.Digest(s)
	if err := manifest.CheckDigest(d); err != nil {
		return "", badRequest("DIGEST_INVALID", "%v", err)
	}
	return d, nil
}

// getBlob answers GET and HEAD, with ranges (RFC 9110).
func getBlob(c *call) error {
	d, err := readDigest(c.ref)
	if err != nil {
		return err
	}
	f, _, err := c.repo.OpenBlob(c.r.Context(), d)
	if err != nil {
		return coded("BLOB", err)
	}
	defer f.Close()
	h := c.w.Header()
	h.Set("Content-Type", octets)
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", `"`+d.String()+`"`)
	h.Set("Cache-Control", "max-age=31536000, immutable")
	if c.r.Method == http.MethodHead {
		// Whoever asks may be about to name it in a manifest.
		if _, err := c.repo.Has(c.r.Context(), ocispecDigest(d)); err != nil {
			return err
		}
	}
	http.ServeContent(c.w, c.r, "", time.Time{}, f)
	return nil
}

// beginUpload mounts a blob of another repository, takes one whole, or begins
// one that comes in pieces.
func beginUpload(c *call) error {
	q := c.r.URL.Query()
	if q.Has("mount") {
		mounted, err := mount(c, q.Get("mount"), q.Get("from"))
		if mounted || err != nil {
			return err
		}
	} else if q.Has("digest") {
		d, err := readDigest(q.Get("digest"))
		if err != nil {
			return err
		}
		if err := c.repo.Receive(c.r.Context(), d, c.body()); err != nil {
			return coded("BLOB_UPLOAD", err)
		}
		return created(c, d)
	}
	u, err := c.repo.NewUpload(c.r.Context())
	if err != nil {
		return err
	}
	progress(c, u)
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

func mount(c *call, what, from string) (bool, error) {
	d, err := readDigest(what)
	if err != nil {
		return false, err
	}
	var mounted bool
	if from == "" {
		mounted, err = c.repo.MountAny(c.r.Context(), d)
	} else {
		other, nameErr := c.Store.Repository(from)
		if nameErr != nil {
			return false, nameErr
		}
		mounted, err = c.repo.Mount(c.r.Context(), d, other)
	}
	if !mounted || err != nil {
		return false, coded("BLOB", err)
	}
	return true, created(c, d)
}

// created answers that a blob is there now.
func created(c *call, d digest.Digest) error {
	c.w.Header().Set("Location", "/v2/"+c.repo.Name()+"/blobs/"+d.String())
	c.w.Header().Set("Docker-Content-Digest", d.String())
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

// progress says where an upload goes on, and how far it is.
func progress(c *call, u *local.Upload) {
	h := c.w.Header()
	h.Set("Location", "/v2/"+c.repo.Name()+"/blobs/uploads/"+u.ID)
	h.Set("Docker-Upload-UUID", u.ID)
	h.Set("Range", fmt.Sprintf("0-%d", max(0, u.Size-1)))
	h.Set("Content-Length", "0")
}

func (c *call) upload() (*local.Upload, error) {
	u, err := c.repo.Upload(c.r.Context(), c.ref)
	return u, coded("BLOB_UPLOAD", err)
}

func uploadStatus(c *call) error {
	u, err := c.upload()
	if err != nil {
		return err
	}
	progress(c, u)
	c.w.Header().Del("Content-Length") // an answer without content has none
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// appendUpload takes the next piece: with a Content-Range that one, else
// whatever comes.
func appendUpload(c *call) error {
	u, err := c.upload()
	if err != nil {
		return err
	}
	at, length, err := pieceOf(c.r)
	if err != nil {
		return err
	}
	err = u.Append(c.r.Context(), at, length, c.body())
	progress(c, u)
	if err != nil {
		return coded("BLOB_UPLOAD", err)
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// finishUpload takes the last piece, if there is one, and makes the upload a blob.
func finishUpload(c *call) error {
	d, err := readDigest(c.r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	u, err := c.upload()
	if err != nil {
		return err
	}
	at, length, err := pieceOf(c.r)
	if err != nil {
		return err
	}
	if u.Size == 0 && at <= 0 { // whole in one piece: it is hashed as it comes
		if err := c.repo.Receive(c.r.Context(), d, c.body()); err != nil {
			return coded("BLOB_UPLOAD", err)
		}
		if err := u.Cancel(c.r.Context()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return coded("BLOB_UPLOAD", err)
		}
		return created(c, d)
	}
	if c.r.ContentLength != 0 {
		if err := u.Append(c.r.Context(), at, length, c.body()); err != nil {
			progress(c, u)
			return coded("BLOB_UPLOAD", err)
		}
	}
	if err := u.Finish(c.r.Context(), d); err != nil {
		return coded("BLOB_UPLOAD", err)
	}
	return created(c, d)
}

func cancelUpload(c *call) error {
	u, err := c.upload()
	if err != nil {
		return err
	}
	if err := u.Cancel(c.r.Context()); err != nil {
		return coded("BLOB_UPLOAD", err)
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// pieceOf reads where a piece begins and how long it is; less than zero where
// the request does not say.
func pieceOf(r *http.Request) (at, length int64, err error) {
	at, length = -1, r.ContentLength
	header := r.Header.Get("Content-Range")
	if header == "" {
		return at, length, nil
	}
	first, last, ok := parsePiece(header)
	if !ok || length >= 0 && length != last-first+1 {
		return 0, 0, badRequest("SIZE_INVALID", "Content-Range %.80q does not fit a body of %d bytes; write it as FIRST-LAST", header, length)
	}
	return first, last - first + 1, nil
}

// parsePiece reads the spec's own form, FIRST-LAST, and that of RFC 9110,
// "bytes FIRST-LAST/TOTAL", which some clients send.
func parsePiece(s string) (first, last int64, ok bool) {
	s = strings.TrimPrefix(s, "bytes ")
	s, _, _ = strings.Cut(s, "/")
	a, b, ok := strings.Cut(s, "-")
	if !ok || !digits(a) || !digits(b) {
		return 0, 0, false
	}
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	return first, last, err1 == nil && err2 == nil && first <= last && last-first+1 > 0
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func deleteBlob(c *call) error {
	d, err := readDigest(c.ref)
	if err != nil {
		return err
	}
	if err := c.repo.DeleteBlob(c.r.Context(), d); err != nil {
		return coded("BLOB", err)
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}
