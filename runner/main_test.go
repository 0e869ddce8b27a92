package runner_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rs/zerolog"

	"slipway/internal/need"
	"slipway/pipeline"
	"slipway/runner"
)

// programs are built once, as the Makefile builds them.
var programs struct {
	dir, helper, agent, probe, hostile, busybox string
	weak                                        string // directory of a helper and an agent that can leave defences off
	lack                                        string // why sandboxes cannot be made here; empty: they can
}

// builtEnv names a directory that has the programs already: for machines
// without a compiler, such as testdata/vm's.
const builtEnv = "SLIPWAY_TEST_PROGRAMS"

func TestMain(m *testing.M) {
	code := func() int {
		programs.lack = lack()
		programs.dir = os.Getenv(builtEnv)
		if programs.dir == "" {
			dir, err := os.MkdirTemp("", "slipway-runner-")
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			defer os.RemoveAll(dir)
			programs.dir = dir
			if programs.lack == "" {
				if err := buildPrograms(dir); err != nil {
					programs.lack = err.Error()
				}
			}
		}
		programs.helper, programs.agent = filepath.Join(programs.dir, "slipway-sandbox"), filepath.Join(programs.dir, "slipway-agent")
		programs.probe, programs.hostile, programs.weak = filepath.Join(programs.dir, "probe"), filepath.Join(programs.dir, "hostile"), filepath.Join(programs.dir, "weak")
		return m.Run()
	}()
	os.Exit(code)
}

func lack() string {
	if os.Getuid() != 0 {
		return "sandboxes need root"
	}
	if _, err := os.Stat("/sys/fs/cgroup"); err != nil {
		return "sandboxes need cgroups"
	}
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if _, err := os.Stat(p); err == nil {
			programs.busybox = p
			return ""
		}
	}
	return "the tests need a static busybox (apt-get install busybox-static)"
}

func buildPrograms(dir string) error {
	for _, b := range []struct {
		cgo  string
		args []string
	}{
		{"1", []string{"-tags", "seccomp netgo osusergo", "-ldflags", "-s -w -extldflags -static", "-o", dir, "slipway/cmd/slipway-sandbox"}},
		{"0", []string{"-ldflags", "-s -w", "-o", dir, "slipway/cmd/slipway-agent", "slipway/runner/testdata/probe", "slipway/runner/testdata/hostile"}},
		{"1", []string{"-tags", "seccomp netgo osusergo weak", "-ldflags", "-s -w -extldflags -static", "-o", filepath.Join(dir, "weak") + "/", "slipway/cmd/slipway-sandbox"}},
		{"0", []string{"-tags", "weak", "-ldflags", "-s -w", "-o", filepath.Join(dir, "weak") + "/", "slipway/cmd/slipway-agent"}},
	} {
		cmd := exec.Command("go", append([]string{"build", "-trimpath", "-buildvcs=false"}, b.args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+b.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", b.args[len(b.args)-1], err, out)
		}
	}
	return nil
}

// sandboxes asks for a machine that can make them.
func sandboxes(tb testing.TB) {
	tb.Helper()
	if programs.lack != "" {
		need.Have(tb, "sandbox", errors.New(programs.lack))
	}
}

// bench is a runner over a busybox image.
type bench struct {
	testing.TB
	*runner.Runner
	opts  runner.Options
	image string // the one layer
}

func open(t testing.TB) *bench {
	t.Helper()
	sandboxes(t)
	base := t.TempDir()
	b := &bench{TB: t, image: busyboxLayer(t, filepath.Join(base, "layer"))}
	b.opts = runner.Options{
		Helper: programs.helper, Agent: programs.agent, Root: filepath.Join(base, "root"),
		Cgroup: fmt.Sprintf("/slipway-test-%d-%s-%s/test", os.Getpid(), filepath.Base(filepath.Dir(base)), filepath.Base(base)),
		Log:    zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel),
	}
	b.reopen()
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func (b *bench) reopen() {
	b.Helper()
	r, err := runner.Open(context.Background(), b.opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Runner = r
}

// busyboxLayer makes an image's tree: busybox, users, groups.
func busyboxLayer(t testing.TB, dir string) string {
	t.Helper()
	for _, d := range []string{"bin", "etc", "tmp", "home/bob", "srv"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(programs.busybox)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/busybox", string(data), 0o755)
	for _, applet := range strings.Fields("sh true false cat ls id env sleep seq yes dd head kill ps mount umount unshare ip mkdir ln mkfifo touch chmod chown hostname pwd echo stat wc setsid rm mv find grep sync tail readlink nc ping printf test md5sum") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\n", 0o644)
	write("etc/group", "root:x:0:\nbob:x:1001:\nwheel:x:10:bob\naudio:x:20:bob,root\n", 0o644)
	write("etc/secret-of-the-layer", "layer\n", 0o600)
	write("srv/noexec", "#!/bin/sh\necho hi\n", 0o644)
	write("srv/noshebang", "echo hi\n", 0o755)
	// The first 64 bytes of a 64-bit big-endian program for s390x.
	write("srv/foreign", "\x7fELF\x02\x02\x01"+strings.Repeat("\x00", 9)+"\x00\x02\x00\x16\x00\x00\x00\x01"+strings.Repeat("\x00", 40), 0o755)
	write("srv/nointerp", "#!/bin/missing\n", 0o755)
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o1777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "home/bob"), 1000, 1001); err != nil {
		t.Fatal(err)
	}
	return dir
}

// request is one over the busybox image; edit changes it.
func (b *bench) request(test pipeline.Test, edit ...func(*runner.Request)) runner.Request {
	q := runner.Request{
		ID:    b.Name(),
		Image: pipeline.Image{Repository: "busybox", Descriptor: ocispec.Descriptor{Digest: digest.FromString(b.image)}},
		Test:  test,
		Rootfs: func(context.Context, pipeline.Image) (runner.Rootfs, error) {
			return runner.Rootfs{Lowers: []string{b.image}}, nil
		},
	}
	for _, e := range edit {
		e(&q)
	}
	return q
}

func withConfig(b *bench, c ocispec.ImageConfig) func(*runner.Request) {
	return func(q *runner.Request) {
		q.Rootfs = func(context.Context, pipeline.Image) (runner.Rootfs, error) {
			return runner.Rootfs{Lowers: []string{b.image}, Config: c}, nil
		}
	}
}

// run runs a test and gives its result and output.
func (b *bench) run(test pipeline.Test, edit ...func(*runner.Request)) (pipeline.Result, string) {
	b.Helper()
	if test.Timeout == 0 {
		test.Timeout = time.Minute
	}
	var out strings.Builder
	res, err := b.Test(context.Background(), b.request(test, edit...), &out)
	if err != nil {
		b.Fatalf("%v\n%s", err, out.String())
	}
	return res, out.String()
}

// sh runs a shell script.
func (b *bench) sh(script string, edit ...func(*runner.Request)) (pipeline.Result, string) {
	b.Helper()
	return b.run(pipeline.Test{Command: []string{"/bin/sh", "-c", script}}, edit...)
}

// passes runs a shell script that must pass, and gives its output.
func (b *bench) passes(script string, edit ...func(*runner.Request)) string {
	b.Helper()
	res, out := b.sh(script, edit...)
	if res.State != pipeline.Passed {
		b.Fatalf("%s: %s\n%s", res.State, res.Reason, out)
	}
	return out
}
