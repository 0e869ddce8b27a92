package supervise

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"slipway/pipeline"
)

func TestProjectRuns(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	port := freePort(t)
	r.must(r.web("1", port))
	r.wantSays(port, "1 hello")
	if c := r.container("web"); c.State != StateHealthy || c.Digest != string(r.image["1"]) {
		t.Errorf("status %+v", c)
	}
	// The same again changes nothing.
	before := r.container("web").Since
	r.must(r.web("1", port))
	if r.container("web").Since != before {
		t.Error("an unchanged container was started anew")
	}
	// Another address is no other container.
	other := freePort(t)
	r.must(r.web("1", other))
	r.wantSays(other, "1 hello")
	if r.container("web").Since != before {
		t.Error("another port started the container anew")
	}
	if _, err := net.Dial("tcp", port); err == nil {
		t.Error("the old port is still open")
	}
	if err := r.sup.Remove("shop", true); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", other); err == nil {
		t.Error("the port of a removed project is still open")
	}
	if len(r.sup.Status()) != 0 {
		t.Errorf("left: %+v", r.sup.Status())
	}
}

// TestSwitchLosesNoRequest: whoever calls while versions change gets an answer
// of one or the other.
func TestSwitchLosesNoRequest(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	port := freePort(t)
	r.must(r.web("1", port))
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var answered, lost atomic.Int32
	for range 4 {
		callers.Go(func() {
			for ctx.Err() == nil {
				if got, err := says(port); err != nil || got != "1 hello" && got != "2 hello" {
					t.Logf("lost: %q, %v", got, err)
					lost.Add(1)
				} else {
					answered.Add(1)
				}
			}
		})
	}
	for _, version := range []string{"2", "1", "2"} {
		r.must(r.web(version, port))
		r.wantSays(port, version+" hello")
	}
	cancel()
	callers.Wait()
	if lost.Load() > 0 || answered.Load() == 0 {
		t.Errorf("%d answered, %d lost", answered.Load(), lost.Load())
	}
}

// TestWhatDoesNotGetHealthyReplacesNothing, and says why with its own words.
func TestWhatDoesNotGetHealthyReplacesNothing(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	port := freePort(t)
	r.must(r.web("1", port))
	since := r.container("web").Since
	for why, edit := range map[string]func(*Container){
		"exit code 3": func(c *Container) { c.Service.Command = []string{"/bin/sh", "-c", "echo cannot start; exit 3"} },
		"never got healthy": func(c *Container) {
			c.Service.Command = []string{"/bin/sh", "-c", "echo cannot start; sleep 60"}
			c.Service.Healthcheck = &pipeline.Healthcheck{Test: []string{"CMD", "false"}, Interval: 300 * time.Millisecond, Retries: 2}
		},
		"not in the image": func(c *Container) { c.Service.Command = []string{"/bin/nothing"} },
	} {
		err := r.apply(r.web("2", port, edit))
		if err == nil || !strings.Contains(err.Error(), why) || why != "not in the image" && !strings.Contains(err.Error(), "cannot start") {
			t.Errorf("%s: got %v", why, err)
		}
	}
	r.wantSays(port, "1 hello")
	if c := r.container("web"); c.Since != since || c.Digest != string(r.image["1"]) {
		t.Errorf("status %+v", c)
	}
	if p := r.sup.Status()[0]; p.Problem == "" {
		t.Error("the status does not tell of the failed change")
	}
	if err := r.apply(Container{Name: "web", Digest: digestA}); err == nil || !strings.Contains(err.Error(), "deliver it again") {
		t.Errorf("layers that are not here: %v", err)
	}
}

// TestSecondContainerFailsFirstStays: a change is made whole or not at all.
func TestSecondContainerFailsFirstStays(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	port, second := freePort(t), freePort(t)
	r.must(r.web("1", port))
	err := r.apply(r.web("2", port), r.web("2", second, func(c *Container) {
		c.Name, c.Service.Command = "worker", []string{"false"}
		c.Service.DependsOn = map[string]string{"web": ""}
	}))
	if err == nil {
		t.Fatal("a container that ends at once was taken for one that runs")
	}
	r.wantSays(port, "1 hello")
	if conn, err := net.Dial("tcp", second); err == nil {
		conn.Close()
		t.Error("the failed container's port is open")
	}
}

// TestWriterIsReplacedOneAfterTheOther: two of them would write to one volume.
// Callers wait meanwhile; a successor that fails brings the old one back.
func TestWriterIsReplacedOneAfterTheOther(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	port := freePort(t)
	writer := func(version string) Container {
		return r.web(version, port, func(c *Container) {
			c.Mounts = []Mount{{Volume: "data", Target: "/data"}}
			c.Service.Command = []string{"/bin/sh", "-c", `test ! -e /data/lock || exit 9; touch /data/lock; trap 'rm /data/lock; exit 0' TERM
				cat /version >>/data/all; nc -ll -p 7 -e /bin/sh -c 'echo $(cat /data/all)' & wait`}
			c.StopGrace = time.Minute
		})
	}
	r.must(writer("1"))
	r.must(writer("2"))
	r.wantSays(port, "1 2")
	broken := writer("1")
	broken.Service.Command = []string{"false"}
	if err := r.apply(broken); err == nil {
		t.Fatal("applied")
	}
	r.wantSays(port, "1 2 2")
	if c := r.container("web"); c.Digest != string(r.image["2"]) {
		t.Errorf("%+v", c)
	}
}

func TestEndedContainerIsStartedAgain(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	port := freePort(t)
	r.must(r.web("1", port, func(c *Container) {
		c.Service.Command = []string{"/bin/sh", "-c", `nc -ll -p 7 -e /bin/sh -c 'echo up; test ! -e /tmp/die || kill -9 1' & wait`}
	}))
	r.wantSays(port, "up")
	r.sup.projects["shop"].slot("web").current().container.Close() // as if the kernel had killed it
	r.eventually("it was started again", func() bool { return r.container("web").Restarts == 1 && r.container("web").State == StateHealthy })
	r.wantSays(port, "up")
}

func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	one := func(name string, policy Restart, script string) Container {
		return Container{Name: name, Digest: r.image["1"], Restart: policy, Service: pipeline.Service{Command: []string{"/bin/sh", "-c", script}}}
	}
	r.must(
		one("done", RestartOnFailure, "sleep 0.2; exit 0"),
		one("never", RestartNo, "sleep 0.2; exit 1"),
		one("again", RestartOnFailure, "sleep 0.2; exit 1"),
	)
	r.eventually("two have ended, one goes on", func() bool {
		return r.container("done").State == StateEnded && r.container("never").State == StateEnded && r.container("again").Restarts > 0
	})
	if c := r.container("never"); !strings.Contains(c.Reason, "exit code 1") {
		t.Errorf("reason %q", c.Reason)
	}
}

// TestContainersFindEachOther by name, also after one has moved.
func TestContainersFindEachOther(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	port := freePort(t)
	front := Container{
		Name: "front", Digest: r.image["1"], Ports: []Port{{Host: port, Container: 8}},
		Service: pipeline.Service{
			Command:   []string{"/bin/sh", "-c", `exec nc -ll -p 8 -e /bin/sh -c 'nc web 7'`},
			DependsOn: map[string]string{"web": "service_healthy"},
		},
	}
	inner := freePort(t)
	r.must(front, r.web("1", inner))
	r.eventually("the front reaches version 1", func() bool { got, _ := says(port); return got == "1 hello" })
	since := r.container("front").Since
	r.must(front, r.web("2", inner))
	r.wantSays(port, "2 hello")
	if r.container("front").Since != since {
		t.Error("the front was started anew")
	}
}

// TestSecretsAndFiles: the plugs of an environment, found at each start.
func TestSecretsAndFiles(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	port := freePort(t)
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("swordfish\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := r.web("1", port, func(c *Container) {
		c.Secrets = map[string]pipeline.Secret{"PASSWORD": {File: file}}
		c.Files = map[string][]byte{"/etc/shop.conf": []byte("colour=green\n")}
		c.Service.Command = []string{"/bin/sh", "-c", `exec nc -ll -p 7 -e /bin/sh -c 'echo $PASSWORD $(cat /etc/shop.conf)'`}
	})
	r.must(c)
	r.wantSays(port, "swordfish colour=green")
	if err := filepath.WalkDir(filepath.Join(r.dir, "live"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), "swordfish") {
			t.Errorf("the secret stands in %s", path)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	c.Service.Environment = map[string]string{"MORE": "x"}
	if err := r.apply(c); err == nil || !strings.Contains(err.Error(), "secret PASSWORD") {
		t.Errorf("a secret that is gone: %v", err)
	}
	r.wantSays(port, "swordfish colour=green")
}

// TestEverythingStartsAgain after a stop, and after a crash of the supervisor,
// whose containers end with it.
func TestEverythingStartsAgain(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	port := freePort(t)
	r.must(r.web("1", port, func(c *Container) { c.Mounts = []Mount{{Volume: "data", Target: "/data"}} }))
	if err := os.WriteFile(filepath.Join(VolumeDir(filepath.Join(r.dir, "live"), "shop", "data"), "kept"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: filepath.Join(r.dir, "live")}); !errors.Is(err, ErrSupervised) {
		t.Errorf("a second supervisor: %v", err)
	}
	r.close()
	if _, err := net.Dial("tcp", port); err == nil {
		t.Error("the port is open without a supervisor")
	}
	r.open()
	r.eventually("it is up again", func() bool { return len(r.sup.Status()) == 1 && len(r.sup.Status()[0].Containers) == 1 })
	r.wantSays(port, "1 hello")
	if _, err := os.Stat(filepath.Join(VolumeDir(filepath.Join(r.dir, "live"), "shop", "data"), "kept")); err != nil {
		t.Error(err)
	}
}

// TestDamagedProjectKeepsNoOther from running.
func TestDamagedProjectKeepsNoOther(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	port := freePort(t)
	r.must(r.web("1", port))
	r.close()
	if err := os.WriteFile(filepath.Join(r.dir, "live", "projects", "broken"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.eventually("the other runs", func() bool { got, err := says(port); return err == nil && got == "1 hello" })
}

// TestClient: another process sees and does the same.
func TestClient(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	c := Dial(filepath.Join(r.dir, "live"))
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody serves: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.sup.Serve(ctx) }()
	defer stop()
	r.eventually("it answers", func() bool { _, err := c.Status(t.Context()); return err == nil })
	if info, err := os.Stat(filepath.Join(r.dir, "live", "socket")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	port := freePort(t)
	var steps []string
	tell := func(step string) { steps = append(steps, step) }
	spec := Spec{Project: "shop", Of: "test", Containers: []Container{r.web("1", port)}}
	if err := c.Apply(t.Context(), spec, tell); err != nil || len(steps) == 0 {
		t.Fatal(err, steps)
	}
	r.wantSays(port, "1 hello")
	if saved, err := Saved(filepath.Join(r.dir, "live"), "shop"); err != nil || saved.Of != "test" {
		t.Errorf("saved %+v, %v", saved, err)
	}
	broken := spec
	broken.Containers = []Container{r.web("2", port, func(c *Container) { c.Service.Command = []string{"false"} })}
	if err := c.Apply(t.Context(), broken, tell); err == nil || !strings.Contains(err.Error(), "exit code 1") {
		t.Errorf("a failed change: %v", err)
	}
	if err := c.Restart(t.Context(), "shop", []string{"web"}, tell); err != nil {
		t.Error(err)
	}
	all, err := c.Status(t.Context())
	if err != nil || len(all) != 1 || all[0].Containers[0].State != StateHealthy {
		t.Errorf("%+v, %v", all, err)
	}
	var log strings.Builder
	if err := c.Logs(t.Context(), "shop", "web", 1, false, &log); err != nil || log.String() != "version 1 starts\n" {
		t.Errorf("log %q, %v", log.String(), err)
	}
	follow, enough := context.WithCancel(t.Context())
	time.AfterFunc(time.Second, enough)
	if err := c.Logs(follow, "shop", "web", -1, true, &log); err != nil {
		t.Error(err)
	}
	if err := c.Restart(t.Context(), "nothing", nil, tell); err == nil {
		t.Error("restarted a project that is not there")
	}
	if err := c.Remove(t.Context(), "shop", false); err != nil {
		t.Error(err)
	}
	if err := c.Remove(t.Context(), "shop", false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
