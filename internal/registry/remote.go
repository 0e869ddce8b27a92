package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options says how to talk to a registry.
type Options struct {
	ConfigDir string                  // directory of Docker's config.json, for credentials; "": none
	Insecure  bool                    // plain HTTP and unverified certificates are allowed; plain HTTP to loopback always is
	Jobs      int                     // transfers at a time; 0 means 4
	Tag       string                  // Push and Copy: put the image under this tag too; slipway never reads it back
	Progress  func(sent, total int64) // bytes, those the registry had already included; calls do not overlap; may be nil

	wait time.Duration // before the first retry; zero means firstWait
}

// firstWait, tripled each time, is the pause before a retry: three retries in
// some three seconds outlast a restart of a proxy. go-containerregistry sleeps
// through a cancel, so the pauses are short.
const (
	firstWait = 200 * time.Millisecond
	attempts  = 4
)

// defaultJobs is what docker and containerd upload at a time, about.
const defaultJobs = 4

// client is one conversation with a registry.
type client struct {
	o    Options
	http *http.Transport
	sent *sentBytes
	keys *keychain
}

func newClient(o Options) (*client, error) {
	keys, err := loadKeychain(o.ConfigDir)
	if err != nil {
		return nil, err
	}
	if o.Jobs <= 0 {
		o.Jobs = defaultJobs
	}
	if o.wait == 0 {
		o.wait = firstWait
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment, // as every tool that speaks HTTP does
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   o.Jobs,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute, // counted from the end of the request's body
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}
	if o.Insecure {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // asked for, per registry
	}
	return &client{o: o, http: t, sent: &sentBytes{inner: t, insecure: o.Insecure}, keys: keys}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// options are go-containerregistry's, for one call under ctx.
func (c *client) options(ctx context.Context) []remote.Option {
	again := func(err error) bool { return ctx.Err() == nil && temporary(err) }
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(c.keys),
		remote.WithTransport(c.sent),
		remote.WithJobs(c.o.Jobs),
		remote.WithUserAgent("slipway"),
		remote.WithRetryBackoff(remote.Backoff{Duration: c.o.wait, Factor: 3, Jitter: 0.1, Steps: attempts}),
		remote.WithRetryPredicate(again),
	}
}

// temporary reports whether the same request may succeed a moment later.
func temporary(err error) bool {
	if err == nil || errors.Is(err, errPlainHTTP) {
		return false
	}
	var answer *transport.Error
	if errors.As(err, &answer) {
		s := answer.StatusCode
		return s >= 500 && s != http.StatusNotImplemented || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || answer.Temporary()
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary && !dns.IsNotFound
	}
	var slow interface{ Timeout() bool }
	if errors.As(err, &slow) && slow.Timeout() {
		return true
	}
	for _, cut := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed, os.ErrDeadlineExceeded} {
		if errors.Is(err, cut) {
			return true
		}
	}
	return false
}

func (c *client) nameOptions() []name.Option {
	if c.o.Insecure {
		return []name.Option{name.Insecure}
	}
	return nil
}

func (c *client) repository(s string) (name.Repository, error) {
	r, err := name.NewRepository(s, c.nameOptions()...)
	if err != nil {
		return r, fmt.Errorf("%q is not a repository (%w); write HOST/NAME without tag or digest", s, err)
	}
	return r, nil
}

func (c *client) reference(s string) (name.Reference, error) {
	r, err := name.ParseReference(s, c.nameOptions()...)
	if err != nil {
		return nil, fmt.Errorf("%q is not an image reference (%w); write HOST/NAME@sha256:… or HOST/NAME:TAG", s, err)
	}
	return r, nil
}

// Resolve asks the registry what ref is: its digest, media type and size. A
// digest stays what it is; a tag is true only for this moment, so keep the
// answer and never ask twice.
func Resolve(ctx context.Context, ref string, o Options) (ocispec.Descriptor, error) {
	c, err := newClient(o)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer c.close()
	r, err := c.reference(ref)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := c.get(ctx, r)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolve %s: %w", ref, c.explain(err, r.Context(), "pull"))
	}
	return toOCI(d), nil
}

// get fetches a manifest rather than only asking for it: not every registry
// answers HEAD with a digest, and this way it is checked.
func (c *client) get(ctx context.Context, r name.Reference) (*remote.Descriptor, error) {
	d, err := remote.Get(r, c.options(ctx)...)
	if err != nil {
		return nil, err
	}
	if t := string(d.MediaType); !isIndex(t) && !isManifest(t) {
		return nil, fmt.Errorf("it is a %q, not an image; push it again with a current tool", t)
	}
	return d, nil
}

func toOCI(d *remote.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: string(d.MediaType), Digest: digest.Digest(d.Digest.String()), Size: d.Size}
}

// errPlainHTTP is why a request was not sent.
var errPlainHTTP = errors.New("plain HTTP is not allowed for this registry")

// allowedPlain reports whether passwords may go to host unencrypted: they do
// not leave the machine.
func allowedPlain(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
