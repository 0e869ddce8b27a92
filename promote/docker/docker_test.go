package docker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/rs/zerolog"

	"slipway/internal/need"
	"slipway/internal/registry"
	"slipway/internal/registry/endpoint"
	"slipway/internal/registry/local"
	"slipway/internal/secret"
	"slipway/pipeline"
	"slipway/promote"
	"slipway/promote/deliverytest"
	"slipway/promote/docker"
	"slipway/promote/docker/dockertest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	code := need.Run(m)
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the engine:", err)
		return 1
	}
	return code
}

// place is one engine with a registry, for all tests of the package.
type place struct {
	*dockertest.Engine
	registry string                              // host:port
	images   map[string]map[string]digest.Digest // version → image → digest
}

// serve stays up until it is asked to end.
const serve = `trap 'exit 0' TERM; while :; do /bin/busybox sleep 1000 & wait $!; done`

var (
	start = sync.OnceValues(newPlace)
	stop  = func() error { return nil } // what start has begun
)

func newPlace() (*place, error) {
	dir, err := os.MkdirTemp("", "d")
	if err != nil {
		return nil, err
	}
	p := &place{images: map[string]map[string]digest.Digest{}}
	if p.Engine, err = dockertest.Start(context.Background(), dir); err != nil {
		return nil, err
	}
	store, err := local.Open(filepath.Join(dir, "images"))
	stop = func() error { return errors.Join(p.Stop(), store.Close(), os.RemoveAll(dir)) }
	if err != nil {
		return nil, err
	}
	if p.registry, err = p.Serve(endpoint.New(endpoint.Options{Store: store, Log: zerolog.Nop()})); err != nil {
		return nil, err
	}
	all := &registry.Registries{Local: store}
	for version, script := range map[string]string{"one": serve, "two": serve, "broken": "echo broken; exit 3"} {
		p.images[version] = map[string]digest.Digest{}
		for _, name := range []string{"web", "api"} {
			repo, err := all.Repository("shop/" + name)
			if err != nil {
				return nil, err
			}
			if p.images[version][name], err = dockertest.Busybox(context.Background(), repo, "V="+version+" I="+name+"; "+script); err != nil {
				return nil, err
			}
		}
	}
	_, err = p.Docker(context.Background(), "swarm", "init", "--advertise-addr", "127.0.0.1")
	return p, err
}

// newEngine gives the engine of the package's tests.
func newEngine(t *testing.T) *place {
	t.Helper()
	need.Root(t)
	for _, program := range []string{"dockerd", "docker", "docker-compose", "busybox"} {
		need.Tool(t, program)
	}
	p, err := start()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const composeYML = `version: "3.7"
services:
  web:
    image: will.be/replaced
    restart: unless-stopped
    stop_grace_period: 1s
    environment: [GREETING=of the file, OWN=kept]
    volumes: ["./motd:/motd:ro"]
  worker: {image: will.be/replaced, restart: unless-stopped, stop_grace_period: 1s}
  api: {image: will.be/replaced, restart: unless-stopped, stop_grace_period: 1s}
  db: {image: "REGISTRY/shop/api@DB", restart: unless-stopped, stop_grace_period: 1s}
`

const smallYML = `version: "3.7"
services:
  web: {image: will.be/replaced, stop_grace_period: 1s}
  api: {image: will.be/replaced, stop_grace_period: 1s}
`

// A Swarm watches a new task for a while before it goes on; here that may be short.
const smallStackYML = `version: "3.7"
x-all: &all {image: will.be/replaced, stop_grace_period: 1s, deploy: {update_config: {monitor: 100ms, order: stop-first}}}
services: {web: *all, api: *all}
networks: {default: {external: true, name: host}}
`

const stackYML = `version: "3.7"
services:
  web:
    image: will.be/replaced
    stop_grace_period: 1s
    environment: [GREETING=of the file, OWN=kept]
    configs: [{source: motd, target: /motd}]
    deploy: {replicas: 2, update_config: {order: stop-first, parallelism: 2}}
  worker: {image: will.be/replaced, stop_grace_period: 1s}
  api: {image: will.be/replaced, stop_grace_period: 1s}
configs: {motd: {file: ./motd}}
networks: {default: {external: true, name: host}}
`

// subject is an environment on the engine, and how it is delivered to.
type subject struct {
	*testing.T
	*place
	kind      string
	project   string
	deliverer func() promote.Deliverer
	delivery  promote.Delivery
}

var projects atomic.Int32

func newSubject(t *testing.T, kind string) *subject {
	s := &subject{T: t, place: newEngine(t), kind: kind}
	s.project = fmt.Sprintf("shop%d", projects.Add(1))
	o := docker.Options{Dir: t.TempDir(), Secrets: secret.Resolver{Getenv: func(name string) (string, bool) { return "hush of " + name, name == "DB" }}}
	files := map[string]string{
		"compose.yml": strings.NewReplacer("REGISTRY", s.registry, "DB", s.images["one"]["api"].String()).Replace(composeYML),
		"stack.yml":   stackYML, "small.yml": map[string]string{"compose": smallYML, "swarm": smallStackYML}[kind], "motd": "hello\n",
	}
	config := map[string]any{"compose": map[string]any{"file": "compose.yml", "project": s.project}, "swarm": map[string]any{"file": "stack.yml", "stack": s.project, "timeout": "3m"}}[kind].(map[string]any)
	config["host"], config["files"] = s.Host, []any{"motd"}
	config["services"] = map[string]any{"web": "web", "worker": "web", "api": "api"}
	s.deliverer = func() promote.Deliverer { return docker.Compose{Options: o} }
	down := []string{"stop-and-remove"}
	if kind == "swarm" {
		s.deliverer = func() promote.Deliverer { return docker.Swarm{Options: o} }
		down = []string{"stack", "rm", s.project}
	}
	s.delivery = promote.Delivery{
		Environment: "prod", Promotion: "p1", Config: config,
		Variables: map[string]string{"GREETING": "$HOME ${x} \"it's\" 7%\nsecond line"}, Secrets: map[string]pipeline.Secret{"PASSWORD": {Env: "DB"}},
		Images: []promote.DeliveredImage{{Name: "web", Repository: s.registry + "/shop/web"}, {Name: "api", Repository: s.registry + "/shop/api"}},
		Beside: func(name string) ([]byte, error) {
			text, ok := files[name]
			if !ok {
				return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
			}
			return []byte(text), nil
		},
	}
	t.Cleanup(func() { s.remove(down) })
	return s
}

// remove takes the project away again.
func (s *subject) remove(down []string) {
	ctx := context.WithoutCancel(s.Context())
	if s.kind == "compose" {
		ids := s.ids(ctx)
		if len(ids) == 0 {
			return
		}
		down = append([]string{"rm", "--force", "--volumes"}, ids...)
	}
	if _, err := s.Docker(ctx, down...); err != nil {
		s.Error(err)
	}
}

func (s *subject) ids(ctx context.Context) []string {
	s.Helper()
	out, err := s.Docker(ctx, "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project="+s.project)
	if err != nil {
		s.Error(err)
	}
	return strings.Fields(out)
}

// of is the delivery of some digests.
func (s *subject) of(digests map[string]digest.Digest) promote.Delivery {
	d := s.delivery
	d.Images = slices.Clone(d.Images)
	for i := range d.Images {
		d.Images[i].Digest = digests[d.Images[i].Name]
	}
	return d
}

func (s *subject) deliver(digests map[string]digest.Digest) (string, error) {
	s.Helper()
	var out bytes.Buffer
	err := s.deliverer().Deliver(s.Context(), s.of(digests), &out)
	return out.String(), err
}

func (s *subject) status(digests map[string]digest.Digest) map[string]promote.ImageStatus {
	s.Helper()
	st, err := s.deliverer().Status(s.Context(), s.of(digests))
	if err != nil || !st.Known {
		s.Fatalf("%+v, %v", st, err)
	}
	all := map[string]promote.ImageStatus{}
	for _, im := range st.Images {
		all[im.Name] = im
	}
	return all
}

// in runs a command in a container of a service and gives what it prints.
func (s *subject) in(service string, argv ...string) string {
	s.Helper()
	label := "label=com.docker.compose.service=" + service
	if s.kind == "swarm" {
		label = "label=com.docker.swarm.service.name=" + s.project + "_" + service
	}
	out, err := s.Docker(s.Context(), "ps", "--quiet", "--filter", "label=com.docker.compose.project="+s.project, "--filter", label)
	if s.kind == "swarm" {
		out, err = s.Docker(s.Context(), "ps", "--quiet", "--filter", label)
	}
	ids := strings.Fields(out)
	if err != nil || len(ids) == 0 {
		s.Fatalf("no container of %s: %v", service, err)
	}
	if out, err = s.Docker(s.Context(), append([]string{"exec", ids[0]}, argv...)...); err != nil {
		s.Fatal(err)
	}
	return out
}

func TestEveryKind(t *testing.T) {
	for _, kind := range []string{"compose", "swarm"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			deliverytest.Run(t, func(t *testing.T) deliverytest.Subject {
				s := newSubject(t, kind)
				s.delivery.Config["file"], s.delivery.Config["services"] = "small.yml", nil // each image runs in the service of its name
				wrong := maps.Clone(s.delivery.Config)
				wrong["services"] = map[string]any{"web": "web", "nowhere": "api"}
				return deliverytest.Subject{Deliverer: s.deliverer(), Again: s.deliverer, Delivery: s.delivery, Old: s.images["one"], New: s.images["two"], Wrong: wrong}
			})
		})
	}
}

// TestConfigurationIsHandedOver: the environment's variables, secrets and files,
// whatever is in them, and what the file itself says beside them.
func TestConfigurationIsHandedOver(t *testing.T) {
	for _, kind := range []string{"compose", "swarm"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSubject(t, kind)
			if _, err := s.deliver(s.images["one"]); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"web", "worker"} {
				got := s.in(name, "/bin/busybox", "sh", "-c", `echo "$GREETING|$PASSWORD|$OWN|"; cat /motd 2>/dev/null || :`)
				want := s.delivery.Variables["GREETING"] + "|hush of DB|"
				if name == "web" {
					want += "kept|\nhello"
				} else {
					want += "|"
				}
				if got != want {
					t.Errorf("%s has %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestNoImageNoService: before an image is promoted its services do not run, and
// after the first promotion was taken back they run no more.
func TestNoImageNoService(t *testing.T) {
	for _, kind := range []string{"compose", "swarm"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSubject(t, kind)
			both, one := s.images["one"], map[string]digest.Digest{"web": s.images["one"]["web"]}
			for _, digests := range []map[string]digest.Digest{one, both, one, {}} {
				if _, err := s.deliver(digests); err != nil {
					t.Fatal(err)
				}
				got := s.status(digests)
				for _, name := range []string{"web", "api"} {
					if got[name].Digest != digests[name] {
						t.Errorf("%s: %+v, want %q", name, got[name], digests[name])
					}
				}
			}
		})
	}
}

// TestDriftIsSeen: what somebody starts by hand in place of what was delivered,
// stops or removes is told of, whatever it is called.
func TestDriftIsSeen(t *testing.T) {
	s := newSubject(t, "compose")
	if _, err := s.deliver(s.images["one"]); err != nil {
		t.Fatal(err)
	}
	docker := func(args ...string) string {
		out, err := s.Docker(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	find := func(service string) string {
		return docker("ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project="+s.project, "--filter", "label=com.docker.compose.service="+service)
	}
	// Another image under a tag, as `docker compose up` without the override would run.
	two := s.registry + "/shop/web@" + s.images["two"]["web"].String()
	docker("pull", "--quiet", two)
	docker("tag", two, s.registry+"/shop/web:latest")
	docker("rm", "--force", find("web"))
	docker("run", "--detach", "--label", "com.docker.compose.project="+s.project, "--label", "com.docker.compose.service=web", "--label", "com.docker.compose.oneoff=False", s.registry+"/shop/web:latest")
	if got := s.status(s.images["one"])["web"]; got.Digest != s.images["two"]["web"] || !strings.Contains(got.Detail, ":latest") {
		t.Errorf("by hand: %+v", got)
	}
	docker("stop", "--time", "1", find("api"))
	if got := s.status(s.images["one"])["api"]; got.Digest != "" || got.State != "stopped" {
		t.Errorf("stopped: %+v", got)
	}
	docker("rm", find("api"))
	if got := s.status(s.images["one"])["api"]; got.Digest != "" || !strings.Contains(got.Detail, "no container of api") {
		t.Errorf("removed: %+v", got)
	}
	// An image that no registry gave.
	docker("rm", "--force", find("web"))
	made := docker("commit", find("worker"), "made/here:1")
	docker("run", "--detach", "--label", "com.docker.compose.project="+s.project, "--label", "com.docker.compose.service=web", "--label", "com.docker.compose.oneoff=False", "made/here:1")
	if got := s.status(s.images["one"])["web"]; got.Digest.String() != made || !strings.Contains(got.Detail, "no registry gave") {
		t.Errorf("made here: %+v, want %s", got, made)
	}
	if _, err := s.deliver(s.images["one"]); err != nil {
		t.Fatal(err)
	}
	if got := s.status(s.images["one"]); got["web"].Digest != s.images["one"]["web"] || got["api"].Digest != s.images["one"]["api"] {
		t.Errorf("delivered again: %+v", got)
	}
}

// TestStackThatDoesNotRun: a Swarm would try for ever; the delivery says what is wrong.
func TestStackThatDoesNotRun(t *testing.T) {
	s := newSubject(t, "swarm")
	s.delivery.Config["file"], s.delivery.Config["services"] = "small.yml", nil
	if _, err := s.deliver(s.images["one"]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.deliver(s.images["broken"]); err == nil || !strings.Contains(err.Error(), "non-zero exit (3)") && !strings.Contains(err.Error(), "gave up on") {
		t.Errorf("delivered a broken image: %v", err)
	}
	if _, err := s.deliver(s.images["one"]); err != nil {
		t.Fatal(err)
	}
	if got := s.status(s.images["one"]); got["web"].Digest != s.images["one"]["web"] {
		t.Errorf("back: %+v", got)
	}
}

// TestWhatCannotBeDelivered changes nothing and says what to do.
func TestWhatCannotBeDelivered(t *testing.T) {
	s := newSubject(t, "compose")
	if _, err := s.deliver(s.images["one"]); err != nil {
		t.Fatal(err)
	}
	ids := s.ids(t.Context())
	gone := s.of(map[string]digest.Digest{"web": digest.FromString("nowhere")})
	if err := s.deliverer().Deliver(t.Context(), gone, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "the engine cannot pull") {
		t.Errorf("an image that is not there: %v", err)
	}
	d := s.of(s.images["two"])
	d.Secrets = map[string]pipeline.Secret{"PASSWORD": {File: "/nowhere/secret"}}
	for _, do := range []func() error{
		func() error { return s.deliverer().Check(t.Context(), d) },
		func() error { return s.deliverer().Deliver(t.Context(), d, &bytes.Buffer{}) },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "secret PASSWORD: open /nowhere/secret") {
			t.Errorf("a secret that is not there: %v", err)
		}
	}
	if now := s.ids(t.Context()); !slices.Equal(now, ids) {
		t.Errorf("%v run, before %v", now, ids)
	}
}
