package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// relay copies both ways between the host's connection and the one inside until
// both have ended, each half by itself. An error or the end of ctx resets both.
func relay(ctx context.Context, pool *bufferPool, host *net.TCPConn, inside *guestConn) {
	reset := sync.OnceFunc(func() {
		_ = host.SetLinger(0)
		_ = host.Close()
		inside.ep.Abort()
	})
	stop := context.AfterFunc(ctx, reset)
	defer stop()

	var halves sync.WaitGroup
	halves.Go(func() {
		if err := inside.copyTo(host, pool); err != nil || host.CloseWrite() != nil {
			reset()
		}
	})
	halves.Go(func() {
		if err := inside.copyFrom(host, pool); err != nil || inside.closeWrite() != nil {
			reset()
		}
	})
	halves.Wait()
	_ = host.Close()
	inside.ep.Close()
}

// guestConn is the end of a connection from inside.
type guestConn struct {
	ep    tcpip.Endpoint
	queue *waiter.Queue
}

func (c *guestConn) closeWrite() error { return stackError(c.ep.Shutdown(tcpip.ShutdownWrite)) }

// copyTo carries what the process inside sends, until it ends its half. While
// nothing comes it holds no buffer.
func (c *guestConn) copyTo(host io.Writer, pool *bufferPool) error {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	c.queue.EventRegister(&entry)
	defer c.queue.EventUnregister(&entry)
	for {
		more, err := c.copyChunk(host, pool)
		if errors.Is(err, errWouldBlock) {
			<-readable
			continue
		}
		if err != nil || !more {
			return err
		}
	}
}

func (c *guestConn) copyChunk(host io.Writer, pool *bufferPool) (more bool, err error) {
	buf := pool.get()
	defer pool.put(buf)
	w := tcpip.SliceWriter(buf[:])
	res, terr := c.ep.Read(&w, tcpip.ReadOptions{})
	switch terr.(type) {
	case nil:
	case *tcpip.ErrClosedForReceive:
		return false, nil
	default:
		return false, stackError(terr)
	}
	_, err = host.Write(buf[:res.Count])
	return true, err
}

// copyFrom carries what the host's connection brings, until its end. A reader
// inside that does not read stops it, and so the sender: at most one buffer and
// the stack's send buffer are held.
func (c *guestConn) copyFrom(host *net.TCPConn, pool *bufferPool) error {
	raw, err := host.SyscallConn()
	if err != nil {
		return err
	}
	entry, writable := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	c.queue.EventRegister(&entry)
	defer c.queue.EventUnregister(&entry)
	for {
		buf, n, err := readWhenReady(raw, pool, 0)
		if err != nil {
			return err
		}
		err = c.writeAll(buf[:n], writable)
		pool.put(buf)
		if err != nil || n == 0 {
			return err
		}
	}
}

func (c *guestConn) writeAll(p []byte, writable <-chan struct{}) error {
	r := bytes.NewReader(p)
	for r.Len() > 0 {
		_, terr := c.ep.Write(r, tcpip.WriteOptions{})
		if err := stackError(terr); errors.Is(err, errWouldBlock) {
			<-writable
		} else if err != nil {
			return err
		}
	}
	return nil
}

// errWouldBlock is the stack's way to say: wait.
var errWouldBlock = errors.New("would block")

// stackError makes an error of one of the stack's.
func stackError(err tcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *tcpip.ErrWouldBlock:
		return errWouldBlock
	}
	return fmt.Errorf("inside: %s", err)
}
