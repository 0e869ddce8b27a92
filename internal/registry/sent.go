package registry

import (
	"io"
	"net/http"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sentBytes is the last transport before the wire. It counts what is really
// uploaded, and keeps to https: go-containerregistry would speak plain HTTP to
// any private address.
type sentBytes struct {
	inner    http.RoundTripper
	insecure bool

	mu       sync.Mutex
	bytes    int64
	uploaded map[string]bool // digests of blobs and paths of manifests the registry took
}

func (s *sentBytes) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !s.insecure && !allowedPlain(r.URL.Hostname()) {
		if r.Body != nil {
			_ = r.Body.Close() // a RoundTripper closes the body, whatever happens
		}
		return nil, errPlainHTTP
	}
	if r.Body != nil && r.Body != http.NoBody {
		r = r.Clone(r.Context())
		r.Body = &sentBody{r.Body, s}
	}
	resp, err := s.inner.RoundTrip(r)
	if err == nil && r.Method == http.MethodPut && resp.StatusCode/100 == 2 {
		s.took(r)
	}
	return resp, err
}

// took notes what an accepted PUT stored: a blob names its digest in the query,
// a manifest in the path.
func (s *sentBytes) took(r *http.Request) {
	key := r.URL.Query().Get("digest")
	if _, ref, ok := strings.Cut(r.URL.Path, "/manifests/"); ok {
		key = ref
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uploaded == nil {
		s.uploaded = map[string]bool{}
	}
	s.uploaded[key] = true
}

// totals says what went out: bytes of every request body, and which of all the
// registry took.
func (s *sentBytes) totals(all []ocispec.Descriptor) (bytes int64, took int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range all {
		if s.uploaded[d.Digest.String()] {
			took++
		}
	}
	return s.bytes, took
}

type sentBody struct {
	io.ReadCloser
	s *sentBytes
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.s.mu.Lock()
	b.s.bytes += int64(n)
	b.s.mu.Unlock()
	return n, err
}
