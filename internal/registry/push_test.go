package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// server is a registry on loopback behind handlers that may answer first.
func server(t *testing.T, before func(w http.ResponseWriter, r *http.Request) (answered bool)) (host string) {
	t.Helper()
	s := httptest.NewServer(behind(before))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func behind(before func(w http.ResponseWriter, r *http.Request) bool) http.Handler {
	reg := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before == nil || !before(w, r) {
			reg.ServeHTTP(w, r)
		}
	})
}

func fast() Options { return Options{wait: time.Millisecond} }

func connect(o Options) *Registries {
	return &Registries{Options: func(string) Options { return o }}
}

func pushTo(ctx context.Context, blobs Blobs, d ocispec.Descriptor, repository string, o Options) (Copied, error) {
	r := connect(o)
	defer r.Close()
	to, err := r.Repository(repository)
	if err != nil {
		return Copied{}, err
	}
	return Push(ctx, blobs, d, to, CopyOptions{})
}

func resolve(ctx context.Context, reference string, o Options) (ocispec.Descriptor, error) {
	r := connect(o)
	defer r.Close()
	_, d, err := r.Open(ctx, reference)
	return d, err
}

func copyTo(ctx context.Context, source, repository string, o Options) (Copied, error) {
	r := connect(o)
	defer r.Close()
	from, d, err := r.Open(ctx, source)
	if err != nil {
		return Copied{}, err
	}
	to, err := r.Repository(repository)
	if err != nil {
		return Copied{}, err
	}
	return Copy(ctx, from, d, to, CopyOptions{})
}

func TestPushSendsOnlyWhatIsMissing(t *testing.T) {
	repo := server(t, nil) + "/team/app"
	s := store{}
	one, two := s.image(t, "amd64", "base", "one"), s.image(t, "amd64", "base", "two")
	sizes := func(desc ocispec.Descriptor, skip int) (n int64) {
		must(t, walk(t.Context(), s.blobs, desc, func(d ocispec.Descriptor, _ []byte) error {
			n += d.Size
			return nil
		}))
		for _, l := range layersOf(t, s, desc)[:skip] {
			n -= l.Size
		}
		return n
	}
	for _, tt := range []struct {
		name string
		desc ocispec.Descriptor
		want Copied
	}{
		{"first", one, Copied{Digest: one.Digest, Sent: sizes(one, 0), Blobs: 4}},
		{"again", one, Copied{Digest: one.Digest, Blobs: 4, Skipped: 4, Saved: sizes(one, 0)}},
		{"another on the same base", two, Copied{Digest: two.Digest, Sent: sizes(two, 1), Blobs: 4, Skipped: 1, Saved: layersOf(t, s, two)[0].Size}},
	} {
		got, err := pushTo(t.Context(), s.blobs, tt.desc, repo, fast())
		if err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
		d, err := resolve(t.Context(), repo+"@"+tt.desc.Digest.String(), fast())
		if err != nil || d.Digest != tt.desc.Digest || d.Size != tt.desc.Size || d.MediaType != tt.desc.MediaType {
			t.Errorf("%s: resolves to %+v, %v", tt.name, d, err)
		}
	}
}

func TestPushIndexWithTagAndProgress(t *testing.T) {
	repo := server(t, nil) + "/app"
	s := store{}
	desc := s.index(t, "amd64", "arm64")
	var sent, total int64
	to, err := connect(fast()).Repository(repo)
	must(t, err)
	p, err := Push(t.Context(), s.blobs, desc, to, CopyOptions{Progress: func(s, n int64) { sent, total = s, n }})
	must(t, err)
	must(t, to.Tag(t.Context(), "v1", desc.Digest))
	if p.Blobs != 8 || p.Skipped != 0 { // index, 2 manifests, 2 configs, 3 layers
		t.Errorf("pushed %+v", p)
	}
	if sent != total || total != p.Sent {
		t.Errorf("progress ended at %d of %d, %d were sent", sent, total, p.Sent)
	}
	d, err := resolve(t.Context(), repo+":v1", fast())
	if err != nil || d.Digest != desc.Digest {
		t.Errorf("v1 is %s, %v", d.Digest, err)
	}
}

func TestCopyKeepsTheDigest(t *testing.T) {
	from, to := server(t, nil), server(t, nil)
	s := store{}
	for what, desc := range map[string]ocispec.Descriptor{"image": s.image(t, "amd64", "one"), "index": s.index(t, "amd64", "arm64")} {
		if _, err := pushTo(t.Context(), s.blobs, desc, from+"/test/app", fast()); err != nil {
			t.Fatal(err)
		}
		for _, repo := range []string{to + "/prod/app", from + "/prod/app"} {
			p, err := copyTo(t.Context(), from+"/test/app@"+desc.Digest.String(), repo, fast())
			if err != nil {
				t.Fatal(err)
			}
			if p.Digest != desc.Digest {
				t.Errorf("%s arrived as %s", what, p.Digest)
			}
			if d, err := resolve(t.Context(), repo+"@"+desc.Digest.String(), fast()); err != nil || d.Digest != desc.Digest {
				t.Errorf("%s is not in %s: %v", what, repo, err)
			}
		}
	}
	_, err := copyTo(t.Context(), from+"/none@"+s.image(t, "amd64").Digest.String(), to+"/x", fast())
	wantError(t, err, "pull "+from+"/none", "does not have it in none", "check name and digest")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
}

// Within a registry that can mount, layers do not travel.
func TestCopyMounts(t *testing.T) {
	var mu sync.Mutex
	mounted := map[string]bool{}
	host := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		mu.Lock()
		defer mu.Unlock()
		if r.Method != http.MethodPost || q.Get("from") != "test/app" {
			return false
		}
		mounted[q.Get("mount")] = true // ggcr keeps blobs of all repositories together
		w.WriteHeader(http.StatusCreated)
		return true
	})
	s := store{}
	desc := s.image(t, "amd64", "one")
	if _, err := pushTo(t.Context(), s.blobs, desc, host+"/test/app", fast()); err != nil {
		t.Fatal(err)
	}
	// Where every repository shows every blob nothing needs mounting, so hide them.
	hidden := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead && strings.Contains(r.URL.Path, "prod/app/blobs") {
			http.NotFound(w, r)
			return true
		}
		q := r.URL.Query()
		mu.Lock()
		defer mu.Unlock()
		if r.Method != http.MethodPost || q.Get("from") == "" {
			return false
		}
		mounted[q.Get("from")+" "+q.Get("mount")] = true
		w.WriteHeader(http.StatusCreated)
		return true
	})
	if _, err := pushTo(t.Context(), s.blobs, desc, hidden+"/test/app", fast()); err != nil {
		t.Fatal(err)
	}
	p, err := copyTo(t.Context(), hidden+"/test/app@"+desc.Digest.String(), hidden+"/prod/app", fast())
	if err != nil {
		t.Fatal(err)
	}
	layer := layersOf(t, s, desc)[0].Digest.String()
	if !mounted["test/app "+layer] || p.Skipped < 1 {
		t.Errorf("layer was not mounted: %+v, %v", p, mounted)
	}
}

func TestPushTriesAgain(t *testing.T) {
	cut := func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = c.Close()
		}
	}
	fail := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for name, tt := range map[string]struct {
		method, path string
		times        int
		fail         http.HandlerFunc
	}{
		"ping 503":          {http.MethodGet, "/v2/", 2, fail(503)},
		"blob check 500":    {http.MethodHead, "/blobs/", 1, fail(500)},
		"upload start 502":  {http.MethodPost, "/blobs/uploads/", 2, fail(502)},
		"upload 504":        {http.MethodPut, "/blobs/uploads/", 2, fail(504)},
		"upload 429":        {http.MethodPut, "/blobs/uploads/", 1, fail(429)},
		"upload cut":        {http.MethodPut, "/blobs/uploads/", 2, cut},
		"commit 500":        {http.MethodPut, "/blobs/uploads/", 1, fail(500)},
		"manifest 503":      {http.MethodPut, "/manifests/", 3, fail(503)},
		"manifest cut":      {http.MethodPut, "/manifests/", 1, cut},
		"manifest head 500": {http.MethodHead, "/manifests/", 1, fail(500)},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			left := tt.times
			host := server(t, func(w http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				hit := left > 0 && r.Method == tt.method && strings.Contains(r.URL.Path, tt.path)
				if hit {
					left--
				}
				mu.Unlock()
				if hit {
					tt.fail(w, r)
				}
				return hit
			})
			s := store{}
			desc := s.image(t, "amd64", "one")
			if _, err := pushTo(t.Context(), s.blobs, desc, host+"/app", fast()); err != nil {
				t.Fatal(err)
			}
			if left != 0 {
				t.Errorf("the registry was to fail %d times more", left)
			}
			if _, err := resolve(t.Context(), host+"/app@"+desc.Digest.String(), fast()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPushErrorsSayWhatToDo(t *testing.T) {
	s := store{}
	desc := s.image(t, "amd64", "one")
	answer := func(method, path string, code int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || !strings.Contains(r.URL.Path, path) {
				return false
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	for name, tt := range map[string]struct {
		before func(http.ResponseWriter, *http.Request) bool
		want   []string
	}{
		"fails for ever": {answer(http.MethodPost, "/uploads/", 500, ""), []string{"failed 4 times", "try again later"}},
		"may not push":   {answer(http.MethodPost, "/uploads/", 403, `{"errors":[{"code":"DENIED","message":"no"}]}`), []string{"does not allow us to push team/app (not logged in)", "DENIED: no"}},
		"no repository":  {answer(http.MethodPost, "/uploads/", 404, `{"errors":[{"code":"NAME_UNKNOWN"}]}`), []string{"has no repository team/app", "create it there"}},
		"too large":      {answer(http.MethodPut, "/uploads/", 413, ""), []string{"client_max_body_size"}},
		"rate limit":     {answer(http.MethodPut, "/uploads/", 429, ""), []string{"limits how often"}},
		"not a registry": {answer(http.MethodGet, "/v2/", 404, "<html>"), []string{"is not a registry"}},
		"login needed":   {basicAuth("ann", "secret"), []string{"no credentials were given", "run `docker login 127.0.0.1:"}},
		"wrong manifest": {answer(http.MethodPut, "/manifests/", 400, `{"errors":[{"code":"MANIFEST_INVALID","message":"too new"}]}`), []string{"MANIFEST_INVALID: too new"}},
	} {
		t.Run(name, func(t *testing.T) {
			repo := server(t, tt.before) + "/team/app"
			_, err := pushTo(t.Context(), s.blobs, desc, repo, fast())
			wantError(t, err, append(tt.want, "push "+repo+"@"+desc.Digest.String())...)
		})
	}
	for repo, want := range map[string]string{"app:v1": "without tag or digest", "UPPER": "lower-case letters", "": "a repository is", "app": "has no host"} {
		_, err := pushTo(t.Context(), s.blobs, desc, repo, fast())
		wantError(t, err, want)
	}
}

func TestPushOfDamagedImage(t *testing.T) {
	s := store{}
	desc := s.image(t, "amd64", "one")
	layer := layersOf(t, s, desc)[0].Digest
	s[layer] = append([]byte("x"), s[layer][1:]...)
	repo := server(t, nil) + "/app"
	_, err := pushTo(t.Context(), s.blobs, desc, repo, fast())
	wantError(t, err, "is damaged", "fetch or build the image again")
	if _, err := resolve(t.Context(), repo+"@"+desc.Digest.String(), fast()); err == nil {
		t.Error("a damaged image was published")
	}
}

func TestPushCanceled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the user pressed Ctrl-C")
	host := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		cancel(why)
		<-r.Context().Done() // the client hangs up
		return true
	})
	s := store{}
	if _, err := pushTo(ctx, s.blobs, s.image(t, "amd64", "one"), host+"/app", fast()); !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
}

// basicAuth lets only one account in.
func basicAuth(user, password string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, ok := r.BasicAuth(); ok && u == user && p == password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return true
	}
}

func configDir(t *testing.T, json string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(json), 0o600))
	return dir
}

func login(host, user, password string) string {
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

func TestCredentials(t *testing.T) {
	host := server(t, basicAuth("ann", "secret"))
	s := store{}
	desc := s.image(t, "amd64", "one")
	for name, tt := range map[string]struct{ config, want string }{
		"right":          {login(host, "ann", "secret"), ""},
		"wrong":          {login(host, "ann", "guess"), `the credentials of "ann" in`},
		"for another":    {login("example.com", "ann", "secret"), "no credentials for it in"},
		"broken file":    {"{", "repair the file"},
		"missing helper": {`{"credsStore":"slipway-test-none"}`, "is not installed; install it"},
	} {
		t.Run(name, func(t *testing.T) {
			o := fast()
			o.ConfigDir = configDir(t, tt.config)
			_, err := pushTo(t.Context(), s.blobs, desc, host+"/app", o)
			if tt.want == "" {
				must(t, err)
				return
			}
			wantError(t, err, tt.want, "docker login")
		})
	}
	t.Run("no file", func(t *testing.T) {
		o := fast()
		o.ConfigDir = t.TempDir()
		_, err := pushTo(t.Context(), s.blobs, desc, host+"/app", o)
		wantError(t, err, "no credentials for it in "+o.ConfigDir)
	})
}

// A token server (distribution's token spec) gives the right to push, or not.
func TestBearerToken(t *testing.T) {
	var host string
	host = server(t, func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			if u, p, _ := r.BasicAuth(); u != "ann" || p != "secret" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			_, _ = io.WriteString(w, `{"token":"t0ken"}`)
			return true
		case r.Header.Get("Authorization") == "Bearer t0ken":
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, host))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	s := store{}
	desc := s.image(t, "amd64", "one")
	o := fast()
	o.ConfigDir = configDir(t, login(host, "ann", "secret"))
	if _, err := pushTo(t.Context(), s.blobs, desc, host+"/app", o); err != nil {
		t.Error(err)
	}
	o.ConfigDir = configDir(t, login(host, "ann", "guess"))
	_, err := pushTo(t.Context(), s.blobs, desc, host+"/app", o)
	wantError(t, err, `the credentials of "ann"`, "docker login "+host)
}
