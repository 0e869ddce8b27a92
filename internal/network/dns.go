package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

const (
	// maxQuestions bounds the questions of one namespace under way; one more is
	// lost and asked again.
	maxQuestions = 128
	// dnsPatience is how long one resolver has before the next is asked. The C
	// library inside gives up after 5 s.
	dnsPatience = 2 * time.Second
	dnsHeader   = 12 // bytes (RFC 1035, 4.1.1)
)

var errNoResolver = errors.New("no resolver answers; check the host's /etc/resolv.conf")

func isNameserver(dst netip.AddrPort) bool {
	return dst.Port() == dnsPort && (dst.Addr() == gateway4 || dst.Addr() == gateway6)
}

// question passes a DNS query on and the answer back. It needs no flow, however
// many source ports the C library uses. False: nobody to ask.
func (w *wire) question(ctx context.Context, from, to netip.AddrPort, query []byte) bool {
	if len(w.g.resolvers) == 0 {
		return false
	}
	if len(query) < dnsHeader {
		return true
	}
	select {
	case w.dns <- struct{}{}:
	default:
		return true
	}
	w.flows.Go(func() {
		defer func() { <-w.dns }()
		buf := w.g.buffers.get()
		defer w.g.buffers.put(buf)
		n, err := w.g.ask(ctx, query, buf[headroom:mtu])
		if err != nil {
			w.g.log.Debug().Err(err).Msg("network: name not resolved")
			return
		}
		_ = w.tun.write(putUDP(buf, n, to, from)) // a lost answer is asked for again
	})
	return true
}

// ask puts query to one resolver after the other until one answers. The
// resolvers are the host's own and may be on its loopback: this is the one way
// there, for DNS only.
func (g *Gateway) ask(ctx context.Context, query, answer []byte) (int, error) {
	errs := []error{errNoResolver}
	for _, r := range g.resolvers {
		n, err := exchange(ctx, r, query, answer)
		if err == nil {
			return n, nil
		}
		errs = append(errs, fmt.Errorf("ask %s: %w", r, err))
		if ctx.Err() != nil {
			break
		}
	}
	return 0, errors.Join(errs...)
}

// exchange sends query and reads the answer that carries its ID.
func exchange(ctx context.Context, resolver netip.AddrPort, query, answer []byte) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsPatience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "udp", resolver.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(query); err != nil {
		return 0, err
	}
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return 0, err
		}
		if n >= dnsHeader && answer[0] == query[0] && answer[1] == query[1] {
			return n, nil
		}
	}
}

// dialResolver connects to the first resolver that takes DNS over TCP.
func (g *Gateway) dialResolver(ctx context.Context) (net.Conn, error) {
	errs := []error{errNoResolver}
	for _, r := range g.resolvers {
		d := net.Dialer{Timeout: dnsPatience}
		conn, err := d.DialContext(ctx, "tcp", r.String())
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
