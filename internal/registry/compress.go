package registry

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// compression is how a tar is packed, told by its first bytes.
type compression string

const (
	plain   compression = "tar"
	gzipped compression = "gzip"
	zstded  compression = "zstd"
	bzipped compression = "bzip2"
	xzed    compression = "xz"
)

// sniffLen is how many bytes sniff wants to see.
const sniffLen = 6

func sniff(head []byte) compression {
	for _, m := range []struct {
		magic string
		c     compression
	}{
		{"\x1f\x8b\x08", gzipped},
		{"\x28\xb5\x2f\xfd", zstded},
		{"BZh", bzipped},
		{"\xfd7zXZ\x00", xzed},
	} {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.c
		}
	}
	return plain
}

// maxWindow is the most history a zstd stream may ask for: what `zstd
// --long=27` writes. It bounds this process's memory against hostile files.
const maxWindow = 128 << 20

// errDamaged marks what an unpacker refused.
var errDamaged = errors.New("damaged")

// decompress unpacks r whatever its packing. Closing the result does not close r.
// What the unpacker refuses is errDamaged, a missing end io.ErrUnexpectedEOF.
func decompress(r io.Reader) (io.ReadCloser, compression, error) {
	b := bufio.NewReaderSize(r, 128<<10)
	head, err := b.Peek(sniffLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, plain, err
	}
	switch c := sniff(head); c {
	case gzipped:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, c, asDamaged(err)
		}
		return unpacking{z}, c, nil
	case zstded:
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, c, asDamaged(err)
		}
		return unpacking{z.IOReadCloser()}, c, nil
	case bzipped:
		return unpacking{io.NopCloser(bzip2.NewReader(b))}, c, nil
	case xzed:
		return nil, c, errors.New("slipway does not read xz; unpack it first with `xz -dk`, then import the .tar")
	default:
		return io.NopCloser(b), plain, nil
	}
}

// unpacking gives the many errors of the unpackers one meaning.
type unpacking struct{ io.ReadCloser }

func (u unpacking) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	return n, asDamaged(err)
}

func asDamaged(err error) error {
	var file *fs.PathError
	if err == nil || err == io.EOF || errors.As(err, &file) { //nolint:errorlint // a wrapped EOF is not an end
		return err
	}
	return fmt.Errorf("%w: %w", errDamaged, err)
}
