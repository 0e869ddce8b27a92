package git

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
)

// receive takes a pack in: it is written aside, measured, indexed, put on the
// disk, and only then given its name.
func (m *Mirror) receive(ctx context.Context, caps *capability.List, in io.Reader) (err error) {
	aside, err := os.MkdirTemp(m.dir, "incoming-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()
	pack, idx := filepath.Join(aside, "pack"), filepath.Join(aside, "idx")
	if caps.Supports(capability.Sideband64k) {
		in = sideband.NewDemuxer(sideband.Sideband64k, in)
	}
	if err := writeFile(pack, func(w io.Writer) error {
		_, err := io.Copy(w, untilDone{ctx, in})
		return err
	}); err != nil {
		return err
	}
	n, err := m.measure(ctx, pack)
	if err != nil || n == 0 {
		return err
	}
	sum, err := index(ctx, pack, idx)
	if err != nil {
		return fmt.Errorf("index what was sent: %w", err)
	}
	name := filepath.Join(m.dir, "objects/pack", "pack-"+sum)
	if err := os.Rename(idx, name+".idx"); err != nil {
		return err
	}
	return os.Rename(pack, name+".pack") // last: a pack is found by this name
}

// untilDone stops reading when a context ends.
type untilDone struct {
	ctx context.Context //nolint:containedctx // it lives as long as one copy
	in  io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.in.Read(p)
}

// writeFile makes a file that is on the disk when it returns.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// measure holds a pack against the limits before it is indexed, which takes the
// memory of its largest object: a few bytes can say a great many. It gives the
// number of objects.
func (m *Mirror) measure(ctx context.Context, pack string) (int, error) {
	f, err := os.Open(pack)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // only read from
	if info, err := f.Stat(); err != nil || info.Size() == 0 {
		return 0, err
	}
	s := packfile.NewScanner(untilDone{ctx, f})
	_, count, err := s.Header()
	if err != nil {
		return 0, fmt.Errorf("read what was sent: %w", err)
	}
	if int64(count) > int64(m.limits.Objects) {
		return 0, &tooLarge{fmt.Sprintf("it sends %d objects, and %d are allowed", count, m.limits.Objects)}
	}
	var all int64
	for range count {
		h, err := s.NextObjectHeader()
		if err != nil {
			return 0, fmt.Errorf("read what was sent: %w", err)
		}
		size := h.Length
		if size > m.limits.Object {
			return 0, &tooLarge{fmt.Sprintf("it has an object of %d bytes, and %d are allowed", size, m.limits.Object)}
		}
		head := &beginning{}
		if _, _, err := s.NextObject(head); err != nil {
			return 0, fmt.Errorf("read what was sent: %w", err)
		}
		if h.Type.IsDelta() {
			if size, err = head.result(); err != nil {
				return 0, err
			}
		}
		if all += size; size > m.limits.Object || all > m.limits.Unpacked {
			return 0, &tooLarge{fmt.Sprintf("its objects have %d bytes unpacked (one of them %d); %d are allowed, and %d for one", all, size, m.limits.Unpacked, m.limits.Object)}
		}
	}
	return int(count), nil
}

// beginning keeps the first bytes of a delta: two sizes, of what it is made from
// and of what it makes (gitformat-pack(5)).
type beginning struct{ kept []byte }

func (b *beginning) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(len(p), 2*binary.MaxVarintLen64-len(b.kept))]...)
	return len(p), nil
}

func (b *beginning) result() (int64, error) {
	in := bytes.NewReader(b.kept)
	if _, err := binary.ReadUvarint(in); err != nil {
		return 0, fmt.Errorf("read what was sent: a delta without a size: %w", err)
	}
	size, err := binary.ReadUvarint(in)
	if err != nil || size > 1<<62 {
		return 0, fmt.Errorf("read what was sent: a delta without a size: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return int64(size), nil
}

// index writes the index of a pack and gives the name of both. It checks the sum
// of the pack, and the sums of its objects are their names.
func index(ctx context.Context, pack, idx string) (string, error) {
	f, err := os.Open(pack)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read from
	w := new(idxfile.Writer)
	p, err := packfile.NewParser(packfile.NewScanner(seeker{untilDone{ctx, f}, f}), w)
	if err != nil {
		return "", err
	}
	sum, err := p.Parse()
	if err != nil {
		return "", err
	}
	made, err := w.Index()
	if err != nil {
		return "", err
	}
	return sum.String(), writeFile(idx, func(out io.Writer) error {
		_, err := idxfile.NewEncoder(out).Encode(made)
		return err
	})
}

type seeker struct {
	io.Reader
	io.Seeker
}
