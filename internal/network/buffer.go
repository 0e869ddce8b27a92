package network

import (
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// headroom is what the largest header needs in front of a payload: IPv6 and UDP.
const headroom = 48

// buffer holds one packet of the largest size there is.
type buffer [headroom + mtu]byte

// bufferPool lends buffers, so that only flows at work hold one.
type bufferPool struct{ pool sync.Pool }

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new(buffer) }}}
}

func (p *bufferPool) get() *buffer  { return p.pool.Get().(*buffer) }
func (p *bufferPool) put(b *buffer) { p.pool.Put(b) }

// readWhenReady waits for input and reads it into one of pool's buffers from
// offset on; the caller gives the buffer back. While it waits it holds none: an
// idle flow costs a goroutine, not 64 KiB. At the end of a stream n is 0.
func readWhenReady(from syscall.RawConn, pool *bufferPool, offset int) (buf *buffer, n int, err error) {
	waitErr := from.Read(func(fd uintptr) bool {
		buf = pool.get()
		for {
			n, err = unix.Read(int(fd), buf[offset:])
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if errors.Is(err, unix.EAGAIN) {
			pool.put(buf)
			buf, err = nil, nil
			return false
		}
		return true
	})
	if err = errors.Join(waitErr, err); err != nil {
		if buf != nil {
			pool.put(buf)
		}
		return nil, 0, err
	}
	return buf, n, nil
}
