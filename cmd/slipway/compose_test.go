package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"slipway/internal/need"
	"slipway/internal/registry"
	"slipway/internal/registry/endpoint"
	"slipway/internal/registry/local"
	"slipway/promote/docker/dockertest"
)

// TestPromotedToCompose promotes to a Compose project on a real engine: what is
// promoted answers there, and what fails its check is taken back by itself.
func TestPromotedToCompose(t *testing.T) {
	need.Root(t)
	for _, program := range []string{"dockerd", "docker", "docker-compose", "busybox", "nsenter"} {
		need.Tool(t, program)
	}
	dir, err := os.MkdirTemp("", "d") // short: a socket's path has no more than 108 bytes
	ok(t, err)
	t.Cleanup(func() { ok(t, os.RemoveAll(dir)) })
	engine, err := dockertest.Start(t.Context(), dir)
	ok(t, err)
	t.Cleanup(func() { ok(t, engine.Stop()) })
	root := filepath.Join(dir, "root")
	store, err := local.Open(imageStore(root))
	ok(t, err)
	defer store.Close()
	address, err := engine.Serve(endpoint.New(endpoint.Options{Store: store, Log: zerolog.Nop()}))
	ok(t, err)
	repo, err := (&registry.Registries{Local: store}).Repository("web")
	ok(t, err)
	var refs []string
	for _, script := range []string{
		`/bin/busybox mkdir -p /tmp/w; echo "one for $WHO, $PASSWORD" > /tmp/w/index.html; exec /bin/busybox httpd -f -p 8080 -h /tmp/w`,
		`/bin/busybox mkdir -p /tmp/w; exec /bin/busybox httpd -f -p 8080 -h /tmp/w`, // has no page
	} {
		d, err := dockertest.Busybox(t.Context(), repo, script)
		ok(t, err)
		refs = append(refs, "web@"+d.String())
	}

	app := filepath.Join(dir, "app")
	page := fmt.Sprintf("nsenter --net=/proc/%d/ns/net busybox wget -qO- http://127.0.0.1:8088/", engine.PID)
	for name, text := range map[string]string{
		".ci.yml":    "version: 1\nimages: {web: {build: .}}\nenvironments: [environments/prod.yml]\n",
		"Dockerfile": "FROM scratch\nCOPY .ci.yml /\n",
		"environments/prod.yml": fmt.Sprintf(`version: 1
name: prod
images: {web: {repository: "%s/prod/web"}}
environment: {WHO: prod}
secrets: {PASSWORD: {env: PROD_PASSWORD}}
deliver: {compose: {file: compose.yml, project: shop, host: "%s"}}
verify: {command: [sh, -c, "%s"], timeout: 20s}
`, address, engine.Host, page),
		"environments/compose.yml": "version: \"3.7\"\nservices:\n  web: {image: web, ports: [\"127.0.0.1:8088:8080\"], restart: unless-stopped, stop_grace_period: 1s}\n",
	} {
		ok(t, os.MkdirAll(filepath.Dir(filepath.Join(app, name)), 0o755))
		ok(t, os.WriteFile(filepath.Join(app, name), []byte(text), 0o644))
	}
	slipway := func(code int, args ...string) string {
		t.Helper()
		program, err := os.Executable()
		ok(t, err)
		cmd := exec.CommandContext(t.Context(), program, append([]string{"--root", root}, args...)...)
		cmd.Args[0] = "slipway"
		cmd.Env = append(os.Environ(), "PROD_PASSWORD=hush", "HOME="+dir)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("slipway %s: exit code %d, want %d: %v\n%s", strings.Join(args, " "), got, code, err, out)
		}
		return string(out)
	}
	gitIn(t, app, "init", "-q", "-b", "main")
	gitIn(t, app, "add", "-A")
	gitIn(t, app, "commit", "-qm", "first")

	slipway(0, "env", "init", app)
	slipway(0, "promote", refs[0], "--to", "prod", "--yes", "--insecure")
	says := func() string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "sh", "-c", page).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got := says(); got != "one for prod, hush" {
		t.Errorf("prod says %q", got)
	}
	out := slipway(1, "promote", refs[1], "--to", "prod", "--yes", "--insecure")
	if !strings.Contains(out, "rolled back: verification failed") {
		t.Errorf("slipway said:\n%s", out)
	}
	if got := says(); got != "one for prod, hush" {
		t.Errorf("after the rollback prod says %q", got)
	}
	var status []struct {
		Drift  string
		Images []struct {
			Digest  string
			Running struct{ Digest, State string }
		}
	}
	ok(t, json.Unmarshal([]byte(slipway(0, "env", "status", "prod", "--json")), &status))
	if s := status[0]; s.Drift != "" || "web@"+s.Images[0].Running.Digest != refs[0] || s.Images[0].Running.State != "running" {
		t.Errorf("status %+v", s)
	}
	id, err := engine.Docker(t.Context(), "ps", "--quiet", "--filter", "label=com.docker.compose.project=shop")
	ok(t, err)
	_, err = engine.Docker(t.Context(), "rm", "--force", id)
	ok(t, err)
	if out := slipway(0, "env", "status", "prod"); !strings.Contains(out, "drift: web runs none") {
		t.Errorf("a removed container is not told of:\n%s", out)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func gitIn(t *testing.T, dir string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=Ann", "-c", "user.email=ann@example.com"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
}
