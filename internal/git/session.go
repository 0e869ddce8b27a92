package git

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// session is one conversation with git-upload-pack (gitprotocol-pack(5)): what
// there is, and then at most one pack.
type session struct {
	refs  *packp.AdvRefs
	fetch func(context.Context, *packp.UploadPackRequest) (*packp.UploadPackResponse, error)
	close func() error
}

// dial asks a remote what it has. An empty repository has no refs.
func (r Remote) dial(ctx context.Context, limit int64) (*session, error) {
	endpoint, err := r.Policy.endpoint(r.URL)
	if err != nil {
		return nil, err
	}
	var s *session
	switch endpoint.Protocol {
	case "file":
		s, err = dialDirectory(ctx, endpoint, limit)
	case "ssh":
		s, err = r.dialSSH(ctx, endpoint, limit)
	default:
		s, err = r.dialHTTP(ctx, endpoint, limit)
	}
	if err != nil {
		return nil, r.explain(ctx, err)
	}
	return s, nil
}

func (r Remote) dialHTTP(ctx context.Context, endpoint *transport.Endpoint, limit int64) (*session, error) {
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		base = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	base = base.Clone()
	base.ResponseHeaderTimeout = 2 * time.Minute
	base.DialContext = (&net.Dialer{Timeout: 30 * time.Second}).DialContext
	if len(r.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(r.CA) {
			return nil, errors.New("the certificates given for it are not PEM; give a file of BEGIN CERTIFICATE blocks")
		}
		base.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	client := &http.Client{Transport: limited{base, limit}, CheckRedirect: sameHost}
	var auth transport.AuthMethod
	if r.Token != "" {
		user := r.User
		if user == "" {
			user = "slipway"
		}
		auth = &githttp.BasicAuth{Username: user, Password: r.Token}
	}
	c, err := githttp.NewClient(client).NewUploadPackSession(endpoint, auth)
	if err != nil {
		return nil, err
	}
	refs, err := c.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		refs, err = packp.NewAdvRefs(), nil
	}
	if err != nil {
		base.CloseIdleConnections()
		return nil, err
	}
	return &session{refs: refs, fetch: c.UploadPack, close: func() error { base.CloseIdleConnections(); return nil }}, nil
}

// sameHost refuses to be led to another server: it could be one inside the
// network that only this machine reaches.
func sameHost(next *http.Request, via []*http.Request) error {
	first := via[0].URL
	if next.URL.Host != first.Host || next.URL.Scheme != first.Scheme {
		return fmt.Errorf("it leads on to %s://%s, which is not followed; register the repository with that address", next.URL.Scheme, next.URL.Host)
	}
	return nil
}

// limited cuts off answers that are larger than expected.
type limited struct {
	http.RoundTripper
	limit int64
}

func (l limited) RoundTrip(q *http.Request) (*http.Response, error) {
	res, err := l.RoundTripper.RoundTrip(q)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{&limitedReader{res.Body, l.limit}, res.Body}
	}
	return res, err
}

// tooLarge says which limit a repository is over.
type tooLarge struct{ what string }

func (t *tooLarge) Error() string {
	return t.what + "; raise the server's limit for this repository, or make the repository smaller"
}

// limitedReader fails where io.LimitedReader would call it an end.
type limitedReader struct {
	in   io.Reader
	left int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, &tooLarge{"it sends more bytes than allowed"}
	}
	n, err := l.in.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// stream speaks the protocol over a pair of pipes: ssh, or a process.
func stream(in io.WriteCloser, out io.Reader, limit int64, closer func() error) (*session, error) {
	out = &limitedReader{out, limit}
	refs := packp.NewAdvRefs()
	err := refs.Decode(out)
	empty := errors.Is(err, packp.ErrEmptyAdvRefs)
	if err != nil && !empty {
		return nil, err
	}
	asked := false
	return &session{
		refs: refs,
		fetch: func(_ context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
			asked = true
			err := errors.Join(req.Validate(), req.UploadRequest.Encode(in), req.UploadHaves.Encode(in, false))
			if err == nil {
				err = pktline.NewEncoder(in).EncodeString("done\n")
			}
			if err != nil {
				return nil, err
			}
			res := packp.NewUploadPackResponse(req)
			return res, res.Decode(io.NopCloser(out))
		},
		close: func() error {
			if !asked {
				_ = pktline.NewEncoder(in).Flush() // goodbye; the other side may have gone
			}
			_ = in.Close()
			return closer()
		},
	}, nil
}

// at is the object that a ref names and the commit it leads to; a zero hash
// where there is no such ref.
func (s *session) at(ref string) (object, commit plumbing.Hash) {
	object = s.refs.References[ref]
	if peeled, ok := s.refs.Peeled[ref]; ok {
		return object, peeled
	}
	return object, object
}

// any says that commits may be asked for although no ref names them.
func (s *session) any() bool {
	return s.refs.Capabilities.Supports(capability.AllowReachableSHA1InWant)
}

// ErrDenied says that the other side answers, and does not let us at the repository.
var ErrDenied = errors.New("it is not to be read")

// explain says what to do about an error of the other side.
func (r Remote) explain(ctx context.Context, err error) error {
	address := withoutCredentials(r.URL)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("fetch from %s: %w", address, context.Cause(ctx))
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return fmt.Errorf("fetch from %s: %w: %w; give credentials that may read it", address, ErrDenied, err)
	case errors.Is(err, transport.ErrRepositoryNotFound) || strings.Contains(err.Error(), "does not appear to be a git repository"):
		return fmt.Errorf("fetch from %s: %w: there is no such repository, or these credentials may not see it; check the address and what they may read", address, ErrDenied)
	}
	return fmt.Errorf("fetch from %s: %w", address, err)
}
