package builder

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pullServer is the pull half of a registry that holds one image under every
// name and asks for a password; see the OCI distribution specification.
type pullServer struct {
	target ocispec.Descriptor
	blobs  memory
	pulls  atomic.Int32
}

func (s *pullServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, pass, ok := r.BasicAuth(); !ok || user != "me" || pass != "right" {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if path == "" {
		return
	}
	d := digest.Digest(path[strings.LastIndex(path, "/")+1:])
	if strings.Contains(path, "/manifests/") && d.Validate() != nil {
		d = s.target.Digest // a tag
	}
	data, ok := s.blobs[d]
	if !ok || strings.Contains(path, "missing") {
		http.NotFound(w, r)
		return
	}
	s.pulls.Add(1)
	w.Header().Set("Docker-Content-Digest", d.String())
	if strings.Contains(path, "/manifests/") {
		w.Header().Set("Content-Type", s.target.MediaType)
	}
	_, _ = w.Write(data) // the client sees a short answer
}

func dockerConfig(tb testing.TB, host, password string) string {
	tb.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte("me:" + password))
	return project(tb, map[string]string{"config.json": `{"auths": {"` + host + `": {"auth": "` + auth + `"}}}`})
}

func TestPull(t *testing.T) {
	srv := &pullServer{}
	srv.target, srv.blobs = busybox(t)
	web := httptest.NewServer(srv)
	defer web.Close()
	host := strings.TrimPrefix(web.URL, "http://")
	ctx := context.Background()

	o := testOptions(t)
	o.DockerConfig = dockerConfig(t, host, "right")
	o.Registries = map[string]Registry{"docker.io": {Mirrors: []string{host}}, host: {PlainHTTP: true}}
	b := open(t, o)
	for from, name := range map[string]string{host + "/team/base:1": host + "/team/base:1", "debian:12": "docker.io/library/debian:12"} {
		dir := project(t, map[string]string{"Dockerfile": "FROM " + from + " AS a\nRUN echo ok > /ok\n"})
		out := build(t, b, Request{Dir: dir})
		if len(out.Bases) != 1 || out.Bases[name] != srv.target.Digest {
			t.Errorf("FROM %s: it stands on %v, want %s", from, out.Bases, srv.target.Digest)
		}
		if got := fileIn(t, b, out.Image, "ok"); got != "ok\n" {
			t.Errorf("FROM %s: /ok holds %q", from, got)
		}
	}
	if srv.pulls.Load() == 0 {
		t.Error("nothing was pulled")
	}
	fails(t, b, host+"/team/missing:1", "slipway images import FILE --name "+host+"/team/missing:1")

	// A name in the store is no answer when the registry refuses.
	web.Close()
	fails(t, b, host+"/team/base:1", "cannot get the base image")
	if _, err := b.Images(ctx); err != nil {
		t.Error(err)
	}
}

func TestPullWrongPassword(t *testing.T) {
	srv := &pullServer{}
	srv.target, srv.blobs = busybox(t)
	web := httptest.NewServer(srv)
	defer web.Close()
	host := strings.TrimPrefix(web.URL, "http://")
	o := testOptions(t)
	o.DockerConfig = dockerConfig(t, host, "wrong")
	fails(t, open(t, o), host+"/team/base:1", "credentials")

	o = testOptions(t)
	o.DockerConfig = t.TempDir()
	if err := os.WriteFile(filepath.Join(o.DockerConfig, "config.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, o).Build(context.Background(), Request{Name: "app", Dir: project(t, map[string]string{"Dockerfile": "FROM scratch\n"})})
	if err == nil || !strings.Contains(err.Error(), "mend") {
		t.Errorf("a broken config.json: %v", err)
	}
}

func fails(t *testing.T, b *Builder, from, says string) {
	t.Helper()
	dir := project(t, map[string]string{"Dockerfile": "FROM " + from + "\nRUN true\n"})
	_, err := b.Build(context.Background(), Request{Name: "app", Dir: dir})
	var be *BuildError
	if !errors.As(err, &be) || be.Line != 1 || !strings.Contains(err.Error(), says) {
		t.Errorf("FROM %s: %v", from, err)
	}
}
