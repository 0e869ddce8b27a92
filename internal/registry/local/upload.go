package local

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"

	"github.com/opencontainers/go-digest"

	"slipway/internal/flock"
	"slipway/internal/registry/manifest"
)

// Receive takes a blob of unknown size in one piece; it must have the digest d.
func (r *Repository) Receive(ctx context.Context, d digest.Digest, in io.Reader) error {
	if err := manifest.CheckDigest(d); err != nil {
		return err
	}
	t, err := r.store.newTemp(ctx)
	if err != nil {
		return err
	}
	defer t.drop()
	sum := d.Algorithm().Hash()
	if _, err := copyBytes(ctx, io.MultiWriter(t, sum), in); err != nil {
		return fmt.Errorf("blob %s: %w", d, explain(err))
	}
	if got := digest.NewDigest(d.Algorithm(), sum); got != d {
		return fmt.Errorf("blob %s: %w: %s", d, ErrDigest, got)
	}
	return r.place(ctx, t, d)
}

// Upload is a blob that comes in pieces. It outlives the process, and is
// removed by a collection when nobody has continued it for long.
type Upload struct {
	ID   string
	Size int64 // bytes that are there

	repo *Repository
	path string
}

var uploadID = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// uploadPath ties an upload to its repository: whoever may write to another one
// cannot continue it there.
func (r *Repository) uploadPath(id string) string {
	sum := sha256.Sum256([]byte(r.name))
	return path.Join(uploadsDir, id+"."+hex.EncodeToString(sum[:8]))
}

// NewUpload begins a blob that comes in pieces.
func (r *Repository) NewUpload(context.Context) (*Upload, error) {
	u := &Upload{ID: rand.Text(), repo: r}
	u.path = r.uploadPath(u.ID)
	f, err := r.store.root.OpenFile(u.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, explain(err)
	}
	return u, f.Close()
}

// Upload finds an upload of this repository.
func (r *Repository) Upload(_ context.Context, id string) (*Upload, error) {
	missing := fmt.Errorf("there is no upload %.40q in repository %s: %w", id, r.name, fs.ErrNotExist)
	if !uploadID.MatchString(id) {
		return nil, missing
	}
	u := &Upload{ID: id, repo: r, path: r.uploadPath(id)}
	info, err := r.store.root.Lstat(u.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	u.Size = info.Size()
	return u, nil
}

// hold opens the upload for one request; others get ErrBusy.
func (u *Upload) hold() (*os.File, error) {
	f, err := u.repo.store.root.OpenFile(u.path, os.O_RDWR, 0)
	if err != nil {
		return nil, explain(err)
	}
	if got, err := flock.Try(f, flock.Exclusive); !got || err != nil {
		return nil, errors.Join(fmt.Errorf("upload %s: %w", u.ID, ErrBusy), f.Close())
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	u.Size = info.Size()
	return f, nil
}

// Append writes in after what is there, and sets Size. at is where in begins, or
// less than zero where whoever sent it did not say; length is how many bytes it
// should have, or less than zero. What came before an error is kept: the upload
// may be continued.
func (u *Upload) Append(ctx context.Context, at, length int64, in io.Reader) (err error) {
	f, err := u.hold()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if at >= 0 && at != u.Size {
		return fmt.Errorf("upload %s has %d bytes, and the next piece begins at %d: %w", u.ID, u.Size, at, ErrOffset)
	}
	if length >= 0 {
		in = io.LimitReader(in, length)
	}
	if _, err := f.Seek(u.Size, io.SeekStart); err != nil {
		return err
	}
	sum, from := u.loadSum()
	whole := sum != nil && from == u.Size
	var w io.Writer = f
	if whole {
		w = io.MultiWriter(f, sum)
	}
	n, err := copyBytes(ctx, w, in)
	before := u.Size
	u.Size += n
	if err != nil {
		return fmt.Errorf("upload %s: %w", u.ID, explain(err))
	}
	if whole && u.Size > before {
		u.saveSum(sum)
	}
	if length >= 0 && n < length {
		return fmt.Errorf("upload %s: %w after %d of %d bytes", u.ID, io.ErrUnexpectedEOF, n, length)
	}
	return nil
}

// Finish makes the upload a blob of its repository; its digest must be d. A
// wrong digest ends the upload too: what is there cannot become right.
func (u *Upload) Finish(ctx context.Context, d digest.Digest) (err error) {
	if err := manifest.CheckDigest(d); err != nil {
		return err
	}
	f, err := u.hold()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	got, err := u.sum(ctx, f, d.Algorithm())
	if err != nil {
		return err
	}
	if got != d {
		return errors.Join(fmt.Errorf("upload %s: %w: %s, not %s", u.ID, ErrDigest, got, d), u.remove())
	}
	t := &temp{File: f, store: u.repo.store, path: u.path}
	if err := u.repo.place(ctx, t, d); err != nil {
		return err
	}
	return u.remove()
}

// Cancel ends the upload without a blob.
func (u *Upload) Cancel(context.Context) (err error) {
	f, err := u.hold()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return u.remove()
}

func (u *Upload) remove() error {
	err := u.repo.store.root.Remove(u.path + stateSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, u.repo.store.root.Remove(u.path))
}

// The SHA-256 of what came so far is kept beside the upload, so that a large
// blob in many pieces is not read again at its end. It is only ever a shortcut
// for bytes that the kernel has: after a reboot, when bytes may be lost, it counts
// for nothing.
const stateSuffix = ".sum"

type sumState struct {
	Boot string `json:"boot"`
	Size int64  `json:"size"`
	Sum  []byte `json:"sum"`
}

// loadSum gives the sum of the first size bytes; nil where nobody kept it.
func (u *Upload) loadSum() (sum hash.Hash, size int64) {
	sum = sha256.New()
	b, err := u.repo.store.root.ReadFile(u.path + stateSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return sum, 0
	}
	var s sumState
	into, ok := sum.(encoding.BinaryUnmarshaler)
	if err != nil || json.Unmarshal(b, &s) != nil || s.Boot == "" || s.Boot != boot() || !ok || into.UnmarshalBinary(s.Sum) != nil {
		return nil, 0
	}
	return sum, s.Size
}

// saveSum keeps the sum of all that is there; where it cannot, the blob is read again.
func (u *Upload) saveSum(sum hash.Hash) {
	from, ok := sum.(encoding.BinaryMarshaler)
	if !ok {
		return
	}
	state, err := from.MarshalBinary()
	if err != nil {
		return
	}
	b, err := json.Marshal(sumState{Boot: boot(), Size: u.Size, Sum: state})
	if err != nil {
		return
	}
	_ = u.repo.store.root.WriteFile(u.path+stateSuffix, b, 0o600) // half of it is no JSON
}

// boot names this boot of the machine, "" where nothing does.
func boot() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(b)
}

// sum is the digest of the whole upload.
func (u *Upload) sum(ctx context.Context, f *os.File, a digest.Algorithm) (digest.Digest, error) {
	h, from := u.loadSum()
	if a != digest.SHA256 || h == nil || from > u.Size {
		h, from = a.Hash(), 0
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return "", err
	}
	if _, err := copyBytes(ctx, h, f); err != nil {
		return "", err
	}
	return digest.NewDigest(a, h), nil
}
