package supervise

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rs/zerolog"

	"slipway/internal/layers"
	"slipway/internal/need"
	"slipway/internal/secret"
	"slipway/pipeline"
	"slipway/runner"
)

// The tests run real containers of a busybox image, whose directory is lent to
// layers.Keep as a build's would be.

func TestMain(m *testing.M) { os.Exit(need.Run(m)) }

// root is the state of one supervisor, which may be opened again.
type root struct {
	*testing.T
	dir     string
	helpers string
	image   map[string]digest.Digest
	sup     *Supervisor
	run     *runner.Runner
}

func newRoot(t *testing.T) *root {
	t.Helper()
	need.Root(t)
	helper := need.Tool(t, "slipway-sandbox")
	r := &root{T: t, dir: need.OpenDir(t), helpers: filepath.Dir(helper), image: map[string]digest.Digest{}}
	for _, version := range []string{"1", "2"} {
		r.build(version)
	}
	r.open()
	t.Cleanup(r.close)
	return r
}

// build keeps a busybox image that knows its version.
func (r *root) build(version string) {
	r.Helper()
	layer := filepath.Join(r.TempDir(), "layer")
	for _, d := range []string{"bin", "etc", "tmp", "data"} {
		if err := os.MkdirAll(filepath.Join(layer, d), 0o755); err != nil {
			r.Fatal(err)
		}
	}
	if out, err := exec.Command("cp", need.Tool(r, "busybox"), filepath.Join(layer, "bin/busybox")).CombinedOutput(); err != nil {
		r.Fatalf("%s: %v", out, err)
	}
	for _, applet := range strings.Fields("sh nc echo cat sleep test touch rm kill grep id mkdir true false env") {
		if err := os.Symlink("busybox", filepath.Join(layer, "bin", applet)); err != nil {
			r.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(layer, "version"), []byte(version+"\n"), 0o644); err != nil {
		r.Fatal(err)
	}
	d := digest.FromString("image " + version)
	r.image[version] = d
	_, err := layers.Keep(r.Context(), LayersDir(filepath.Join(r.dir, "live")), d, func(context.Context) (layers.Kept, func() error, error) {
		return layers.Kept{Lowers: []string{layer}, Config: ocispec.ImageConfig{Env: []string{"PATH=/bin"}}}, nil, nil
	})
	if err != nil {
		r.Fatal(err)
	}
}

func (r *root) open() {
	r.Helper()
	var err error
	r.run, err = runner.Open(context.Background(), runner.Options{
		Helper: filepath.Join(r.helpers, "slipway-sandbox"), Agent: filepath.Join(r.helpers, "slipway-agent"),
		Root: filepath.Join(r.dir, "sandboxes"), Cgroup: fmt.Sprintf("/slipway-live-%d-%s/live", os.Getpid(), filepath.Base(filepath.Dir(r.dir))),
		Log: zerolog.New(zerolog.NewTestWriter(r)).Level(zerolog.WarnLevel),
	})
	if err != nil {
		r.Fatal(err)
	}
	r.sup, err = Open(Options{Dir: filepath.Join(r.dir, "live"), Runner: r.run, Secrets: secret.Resolver{Getenv: os.LookupEnv}, Log: zerolog.New(zerolog.NewTestWriter(r))})
	if err != nil {
		r.Fatal(err)
	}
}

func (r *root) close() {
	if r.sup == nil {
		return
	}
	if err := r.sup.Close(); err != nil {
		r.Error(err)
	}
	if err := r.run.Close(); err != nil {
		r.Error(err)
	}
	r.sup = nil
}

// web is a server that says its version and a variable to whoever connects to
// its port 7; its port on the host is given.
func (r *root) web(version, port string, edit ...func(*Container)) Container {
	c := Container{
		Name: "web", Digest: r.image[version], StopGrace: 100 * time.Millisecond, Drain: 5 * time.Second,
		Service: pipeline.Service{
			Command:     []string{"/bin/sh", "-c", `echo version $(cat /version) starts; exec nc -ll -p 7 -e /bin/sh -c 'echo $(cat /version) $SAYS'`},
			Environment: map[string]string{"SAYS": "hello"},
			Healthcheck: &pipeline.Healthcheck{Test: []string{"CMD-SHELL", "nc 127.0.0.1 7"}, Interval: time.Second, Retries: 3},
		},
		Ports: []Port{{Host: port, Container: 7}},
	}
	for _, e := range edit {
		e(&c)
	}
	return c
}

func (r *root) apply(containers ...Container) error {
	return r.sup.Apply(r.Context(), Spec{Project: "shop", Containers: containers}, func(step string) { r.Log(step) })
}

func (r *root) must(containers ...Container) {
	r.Helper()
	if err := r.apply(containers...); err != nil {
		r.Fatal(err)
	}
}

// freePort is an address of the loopback that nobody listens at.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// says is what a published port answers.
func says(address string) (string, error) {
	c, err := net.DialTimeout("tcp", address, time.Minute)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

func (r *root) wantSays(address, want string) {
	r.Helper()
	if got, err := says(address); got != want || err != nil {
		r.Errorf("%s says %q, %v, want %q", address, got, err, want)
	}
}

// container is the status of one, by name.
func (r *root) container(name string) ContainerStatus {
	r.Helper()
	for _, p := range r.sup.Status() {
		for _, c := range p.Containers {
			if c.Name == name {
				return c
			}
		}
	}
	r.Fatalf("there is no container %s in %+v", name, r.sup.Status())
	return ContainerStatus{}
}

// eventually waits for a condition.
func (r *root) eventually(what string, holds func() bool) {
	r.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("not within a minute: %s", what)
		}
	}
}
