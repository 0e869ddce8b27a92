package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// newEncoder: the same bytes give the same blob. The level stays: another one
// would send every volume anew.
func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)))
}

// newDecoder refuses what unpacks to more than limit.
func newDecoder(limit uint64) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(limit), zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)))
}

// readBlob gives the uncompressed bytes of a blob out of the tree at root.
func readBlob(ctx context.Context, root int, l *listing, pieces []piece) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var end int64
	for _, p := range pieces {
		end = max(end, p.At+p.Length)
	}
	raw := make([]byte, end)
	for i, p := range pieces {
		if i > 0 && p.At == pieces[i-1].At && p.Length <= pieces[i-1].Length {
			continue // the same bytes once more, of an equal file
		}
		f, err := openIn(root, string(l.Entries[p.entry].Path), unix.O_RDONLY)
		if err != nil {
			return nil, err
		}
		_, err = f.ReadAt(raw[p.At:p.At+p.Length], p.Offset)
		closeFile(f)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	return raw, nil
}

// openIn opens a file of a tree by its path, following no symlink at all.
func openIn(root int, path string, flags int) (*os.File, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags: uint64(flags) | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// zero: the first byte is zero, and every other equals the one before.
func zero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}
