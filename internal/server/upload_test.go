package server_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/internal/upload"
)

func (w *world) post(t *testing.T, path, token, kind string, body io.Reader) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, w.http.URL+path, body)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(said)
}

func TestUploads(t *testing.T) {
	w := newWorld(t)
	store := upload.Store{Dir: filepath.Join(w.dir, "uploads"), Limit: 1000}
	w.serve(t, server.Options{Uploads: store}, func(_ context.Context, r ledger.Run, _ *server.Log) (ledger.End, error) {
		if r.Trusted || r.Asked.Upload == "" || !r.Asked.Event.Dirty {
			return ledger.End{State: ledger.Failed, Reason: "it is no upload"}, nil
		}
		return ledger.End{State: ledger.Passed}, nil
	})
	developer := w.token(t, ledger.Developer)
	const packed = "application/zstd"
	begin := func(d digest.Digest) io.Reader {
		data, err := json.Marshal(map[string]any{"upload": d, "event": map[string]any{"ref": "refs/heads/main", "dirty": true}})
		must(t, err)
		return strings.NewReader(string(data))
	}
	for _, c := range []struct {
		path, token, kind string
		body              io.Reader
		code              int
		says              string
	}{
		{"/api/v1/uploads", w.token(t, ledger.Viewer), packed, strings.NewReader("x"), http.StatusForbidden, "takes a developer"},
		{"/api/v1/uploads?bytes=1001", developer, packed, strings.NewReader("x"), http.StatusRequestEntityTooLarge, "--upload-limit"},
		{"/api/v1/uploads", developer, packed, strings.NewReader(strings.Repeat("x", 1001)), http.StatusRequestEntityTooLarge, "--upload-limit"},
		{"/api/v1/uploads", developer, packed, io.MultiReader(strings.NewReader(strings.Repeat("x", 1001))), http.StatusRequestEntityTooLarge, "--upload-limit"}, // of unknown length
		{"/api/v1/runs", developer, "application/json", begin(digest.FromString("another")), http.StatusGone, "upload it again"},
		{"/api/v1/runs", developer, "application/json", begin("sha256:../../x"), http.StatusGone, "upload it again"},
		{"/api/v1/forecasts", developer, "application/json", begin(digest.FromString("another")), http.StatusGone, "upload it again"},
		{"/api/v1/runs", developer, "application/json", strings.NewReader(`{"upload": "sha256:1", "event": {}, "keep_seconds": 60}`), http.StatusConflict, "for an admin to say"},
		{"/api/v1/runs", developer, "text/plain", begin("sha256:1"), http.StatusUnsupportedMediaType, "application/json"},
		{"/api/v1/uploads?bytes=10", developer, packed, strings.NewReader("some files"), http.StatusCreated, digest.FromString("some files").String()},
		{"/api/v1/runs", developer, "application/json", begin(digest.FromString("some files")), http.StatusAccepted, `"repo":"uploads"`},
	} {
		if code, said := w.post(t, c.path, c.token, c.kind, c.body); code != c.code || !strings.Contains(said, c.says) {
			t.Errorf("%s: %d %s, want %d with %q", c.path, code, said, c.code, c.says)
		}
	}
	r := w.until(t, "over", over)
	if r.State != ledger.Passed || r.Name != ledger.Uploads || !strings.HasPrefix(r.Author, "token ") || r.Allowed != r.Author || r.Promotion != nil {
		t.Errorf("%+v", r)
	}
	if code, _ := w.post(t, "/hooks/uploads", "", "application/json", strings.NewReader("{}")); code != http.StatusNotFound {
		t.Errorf("uploads have a hook: %d", code)
	}
	if all, err := os.ReadDir(store.Dir); err != nil || len(all) != 1 {
		t.Errorf("kept: %v %v", all, err)
	}
	deeds, err := w.ledger.Deeds(t.Context(), 10)
	must(t, err)
	if i := len(deeds); i < 3 || deeds[0].Action != "run" || deeds[0].Object != r.ID {
		t.Errorf("deeds: %+v", deeds)
	}
	old := time.Now().Add(-25 * time.Hour)
	must(t, os.Chtimes(filepath.Join(store.Dir, digest.FromString("some files").Encoded()+".tar.zst"), old, old))
	w.stop()
	w.serve(t, server.Options{Uploads: store}, nil) // it looks at its start
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all, err := os.ReadDir(store.Dir)
		must(t, err)
		if len(all) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("an old upload stays: %v", all)
		}
	}
}
