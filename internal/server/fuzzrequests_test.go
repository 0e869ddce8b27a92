package server_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/server"
)

// FuzzRequests asks for whatever the fuzzer makes: nobody without a token is shown or
// does anything, and no request is a fault of the server's.
func FuzzRequests(f *testing.F) {
	w := newWorld(f)
	w.serve(f, server.Options{}, passes)
	h := w.http.Config.Handler
	secret, _, err := w.ledger.AddToken(context.Background(), "admin", ledger.Admin, time.Time{})
	must(f, err)
	for _, path := range []string{"/", "/healthz", "/readyz", "/metrics", "/hooks/hook", "/runs/r1", "/api/v1/runs?limit=2&before=r1", "/api/v1/runs/r1", "/api/v1/runs/r1/logs?after=1-2", "/api/v1/repos", "/api/v1/audit", "/../etc"} {
		f.Add("GET", path, "", "application/json")
	}
	for _, path := range []string{"/api/v1/runs/r1/cancel", "/api/v1/runs/r1/rerun", "/api/v1/runs/r1/allow", "/hooks/hook"} {
		f.Add("POST", path, `{"commit": "0"}`, "application/json")
		f.Add("POST", path, `{`, "text/event-stream")
	}
	f.Fuzz(func(t *testing.T, method, path, body, kind string) {
		if strings.HasPrefix(path, "/hooks/") && method == http.MethodPost {
			return // internal/forge has those
		}
		for _, token := range []string{"", secret} {
			r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
			if err != nil {
				return // no client could send it
			}
			r.RemoteAddr = "127.0.0.1:1"
			r.Header.Set("Content-Type", kind)
			r.Header.Set("Accept", kind)
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if rec.Code >= 500 && rec.Code != http.StatusNotImplemented {
				t.Errorf("%s %q with %q: %d %s", method, path, body, rec.Code, rec.Body)
			}
			if open := strings.HasPrefix(path, "/healthz") || strings.HasPrefix(path, "/readyz") || strings.HasPrefix(path, "/api/v1/openapi"); token == "" && rec.Code < 300 && !open && method != http.MethodOptions {
				t.Errorf("without a token %s %q: %d %s", method, path, rec.Code, rec.Body)
			}
		}
	})
}
