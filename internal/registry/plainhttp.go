package registry

import (
	"errors"
	"net/http"
	"net/netip"
)

// errPlainHTTP is why a request was not sent.
var errPlainHTTP = errors.New("plain HTTP is not allowed for this registry")

// httpsOnly is the last transport before the wire. It keeps to https:
// go-containerregistry would speak plain HTTP to any private address.
type httpsOnly struct {
	inner    http.RoundTripper
	insecure bool
}

func (h httpsOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !h.insecure && !allowedPlain(r.URL.Hostname()) {
		if r.Body != nil {
			_ = r.Body.Close() // a RoundTripper closes the body, whatever happens
		}
		return nil, errPlainHTTP
	}
	return h.inner.RoundTrip(r)
}

// allowedPlain reports whether passwords may go to host unencrypted: they do
// not leave the machine.
func allowedPlain(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
