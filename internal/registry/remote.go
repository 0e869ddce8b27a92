package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Options says how to talk to a registry.
type Options struct {
	ConfigDir string   // directory of Docker's config.json, for credentials; "": none
	Insecure  bool     // plain HTTP and unverified certificates are allowed; plain HTTP to loopback always is
	CA        []string // PEM files trusted besides the system's

	wait time.Duration // before the first retry; zero means firstWait
}

// firstWait, tripled each time, is the pause before a retry: three retries in
// some three seconds outlast a restart of a proxy.
const (
	firstWait = 200 * time.Millisecond
	attempts  = 4
	maxWait   = 15 * time.Second // whatever a registry's Retry-After says
)

// client is one conversation with a registry.
type client struct {
	o    Options
	http *http.Transport
	safe http.RoundTripper
	keys *keychain

	mu        sync.Mutex
	challenge *transport.Challenge // how the registry wants to be spoken to; nil: not asked yet
	fallback  sync.Mutex           // held while an index of referrers is rewritten; see referrers.go
}

func newClient(o Options) (*client, error) {
	keys, err := loadKeychain(o.ConfigDir)
	if err != nil {
		return nil, err
	}
	if o.wait == 0 {
		o.wait = firstWait
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment, // as every tool that speaks HTTP does
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   2 * jobs,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute, // counted from the end of the request's body
		DisableCompression:    true,            // blobs are compressed, and digests are of what was sent
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}
	if t.TLSClientConfig, err = o.tls(); err != nil {
		return nil, err
	}
	return &client{o: o, http: t, keys: keys, safe: transport.NewUserAgent(httpsOnly{t, o.Insecure}, "slipway")}, nil
}

// tls says whose certificates are believed; nil: those that the system does.
func (o Options) tls() (*tls.Config, error) {
	if o.Insecure {
		return &tls.Config{InsecureSkipVerify: true}, nil //nolint:gosec // asked for, per registry
	}
	if len(o.CA) == 0 {
		return nil, nil //nolint:nilnil // http.Transport's own words for it
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a system without any
	}
	for _, file := range o.CA {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("`ca` of a registry: %w", err)
		}
		if !roots.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("`ca` of a registry: %s holds no certificate in PEM", file)
		}
	}
	return &tls.Config{RootCAs: roots}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

func (c *client) nameOptions() []name.Option {
	if c.o.Insecure {
		return []name.Option{name.Insecure}
	}
	return nil
}

// open gives a repository of the client's host.
func (c *client) open(repository string) (*remoteRepository, error) {
	repo, err := name.NewRepository(repository, c.nameOptions()...)
	if err != nil {
		return nil, fmt.Errorf("%q is not a repository (%w); write HOST/NAME without tag or digest", repository, err)
	}
	return &remoteRepository{client: c, name: repository, repo: repo, sessions: map[string]*http.Client{}}, nil
}

// ping asks the registry once how it wants to be spoken to.
func (c *client) ping(ctx context.Context, reg name.Registry) (*transport.Challenge, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.challenge != nil {
		return c.challenge, nil
	}
	ch, err := transport.Ping(ctx, reg, c.safe)
	if err != nil {
		return nil, err
	}
	c.challenge = ch
	return ch, nil
}

// session logs in to the scopes that a request needs, once for each.
func (r *remoteRepository) session(ctx context.Context, scope string) (*http.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sessions[scope]; s != nil {
		return s, nil
	}
	reg := r.repo.Registry
	ch, err := r.client.ping(ctx, reg)
	if err != nil {
		return nil, err
	}
	auth, err := r.client.keys.Resolve(r.repo)
	if err != nil {
		return nil, err
	}
	token := &transport.Token{}
	if isBearer(ch) {
		if token, err = transport.Exchange(ctx, reg, auth, r.client.safe, []string{r.repo.Scope(scope)}, ch); err != nil {
			return nil, err
		}
		if token.Token == "" {
			token.Token = token.AccessToken
		}
	}
	t, err := transport.FromToken(reg, auth, r.client.safe, ch, token)
	if err != nil {
		return nil, err
	}
	s := &http.Client{Transport: t, CheckRedirect: redirect}
	if !isBearer(ch) { // no token, so there is one session for all scopes
		r.sessions[transport.PullScope], r.sessions[transport.PushScope] = s, s
	}
	r.sessions[scope] = s
	return s, nil
}

// redirect follows to https or within the machine that was asked, so that no
// answer leads a request to a service that is reachable from here alone.
func redirect(r *http.Request, via []*http.Request) error {
	from := via[0].URL
	if len(via) > 10 {
		return errors.New("too many redirects")
	}
	if r.URL.Hostname() == from.Hostname() || allowedPlain(from.Hostname()) {
		return nil
	}
	if r.URL.Scheme != "https" && from.Scheme == "https" || isPrivate(r.URL.Hostname()) && !isPrivate(from.Hostname()) {
		return fmt.Errorf("%s leads to %s, which is not followed", from.Host, r.URL.Host)
	}
	return nil
}

// url is an address in the repository: "blobs/sha256:…".
func (r *remoteRepository) url(path string) *url.URL {
	scheme := "https"
	r.client.mu.Lock()
	if ch := r.client.challenge; ch != nil && ch.Insecure {
		scheme = "http"
	}
	r.client.mu.Unlock()
	return &url.URL{Scheme: scheme, Host: r.repo.RegistryStr(), Path: "/v2/" + r.repo.RepositoryStr() + "/" + path}
}

// request is one exchange with the registry.
type request struct {
	method, path string
	query        url.Values
	at           *url.URL // instead of path and query
	header       http.Header
	scope        string
	body         io.ReadCloser
	size         int64
	want         []int // status codes; any other is an error
}

// send makes one attempt. The caller closes the answer's body.
func (r *remoteRepository) send(ctx context.Context, q request) (*http.Response, error) {
	if q.scope == "" {
		q.scope = transport.PullScope
	}
	s, err := r.session(ctx, q.scope)
	if err != nil {
		if q.body != nil {
			_ = q.body.Close()
		}
		return nil, err
	}
	if q.at == nil {
		q.at = r.url(q.path)
		q.at.RawQuery = q.query.Encode()
	}
	req := (&http.Request{Method: q.method, URL: q.at, Host: q.at.Host, Header: http.Header{}, Body: q.body, ContentLength: q.size}).WithContext(ctx)
	if q.header != nil {
		req.Header = q.header.Clone()
	}
	if q.body != nil && q.size == 0 {
		_ = q.body.Close()
		req.Body = http.NoBody
	}
	resp, err := s.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, q.want...); err != nil {
		return nil, errors.Join(&answerError{err: err, after: retryAfter(resp)}, resp.Body.Close())
	}
	return resp, nil
}

// answerError is an answer with another status than wanted.
type answerError struct {
	err   error
	after time.Duration
}

func (e *answerError) Error() string { return e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// Is makes an answer that something is not there a missing file.
func (e *answerError) Is(target error) bool {
	var a *transport.Error
	return target == fs.ErrNotExist && errors.As(e.err, &a) && a.StatusCode == http.StatusNotFound
}

// retryAfter reads the seconds that a registry asks to wait.
func retryAfter(resp *http.Response) time.Duration {
	n, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxWait)
}

// again does f until it succeeds, fails for good, or has failed often enough.
func (c *client) again(ctx context.Context, f func() error) error {
	wait := c.o.wait
	for n := 1; ; n++ {
		err := f()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil || n == attempts || !temporary(err) {
			return err
		}
		pause := wait + rand.N(wait/10+1)
		var a *answerError
		if errors.As(err, &a) {
			pause = max(pause, a.after)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		wait *= 3
	}
}

// do is send, tried again; for requests without a body.
func (r *remoteRepository) do(ctx context.Context, q request) (resp *http.Response, err error) {
	err = r.client.again(ctx, func() error {
		resp, err = r.send(ctx, q) //nolint:bodyclose // the caller closes it
		return err
	})
	return resp, err
}

// temporary reports whether the same request may succeed a moment later.
func temporary(err error) bool {
	if err == nil || errors.Is(err, errPlainHTTP) {
		return false
	}
	var answer *transport.Error
	if errors.As(err, &answer) {
		s := answer.StatusCode
		if blobUnknown(answer) {
			return true
		}
		return s >= 500 && s != http.StatusNotImplemented && s != http.StatusInsufficientStorage || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout
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

// blobUnknown reports whether a registry misses a blob of a manifest. We have
// just asked for all of them or sent them: some need a moment until one that two
// clients sent at once is there for good.
func blobUnknown(a *transport.Error) bool {
	return slices.ContainsFunc(a.Errors, func(d transport.Diagnostic) bool { return d.Code == transport.ManifestBlobUnknownErrorCode })
}

func isBearer(ch *transport.Challenge) bool { return strings.EqualFold(ch.Scheme, "bearer") }

// isPrivate reports whether host is an address that only some machines reach.
func isPrivate(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && (a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified())
}
