package endpoint

import (
	"net/http/httptest"
	"strings"
	"testing"

	"slipway/internal/registry/local"
)

// serve starts the endpoint on loopback, over a fresh store where o has none.
func serve(t *testing.T, o Options) (host string) {
	t.Helper()
	if o.Store == nil {
		s, err := local.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		o.Store = s
	}
	s := httptest.NewServer(New(o))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}
