package runner_test

import (
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/pipeline"
)

// How a command ends, and what is said about it.
func TestEnds(t *testing.T) {
	b := open(t)
	for _, c := range []struct {
		name   string
		test   pipeline.Test
		state  pipeline.State
		exit   int
		reason string // part of it
	}{
		{"true", pipeline.Test{Command: []string{"/bin/true"}}, pipeline.Passed, 0, ""},
		{"false", pipeline.Test{Command: []string{"false"}}, pipeline.Failed, 1, "exit code 1"},
		{"exit code", pipeline.Test{Command: []string{"sh", "-c", "exit 42"}}, pipeline.Failed, 42, "exit code 42"},
		{"its own signal", pipeline.Test{Command: []string{"sh", "-c", "kill -SEGV $$"}}, pipeline.Failed, 139, "SIGSEGV"},
		{"TERM", pipeline.Test{Command: []string{"sh", "-c", "kill -TERM $$; sleep 5"}}, pipeline.Failed, 143, "SIGTERM"},
		{"not found", pipeline.Test{Command: []string{"pytest", "-q"}}, pipeline.Failed, 127, "pytest is not in the image"},
		{"path not found", pipeline.Test{Command: []string{"/opt/missing"}}, pipeline.Failed, 127, "/opt/missing is not in the image"},
		{"not executable", pipeline.Test{Command: []string{"/srv/noexec"}}, pipeline.Failed, 126, "not executable"},
		{"no #! line", pipeline.Test{Command: []string{"/srv/noshebang"}}, pipeline.Failed, 126, "#! line"},
		{"no interpreter", pipeline.Test{Command: []string{"/srv/nointerp"}}, pipeline.Failed, 127, "needs /bin/missing"},
		{"a directory", pipeline.Test{Command: []string{"/srv"}}, pipeline.Failed, 126, "is a directory"},
		{"foreign machine", pipeline.Test{Command: []string{"/srv/foreign"}}, pipeline.Failed, 126, "built for s390x"},
		{"unknown user", pipeline.Test{Command: []string{"true"}, User: "alice"}, pipeline.Failed, 126, `user "alice" is not in the image`},
		{"unknown group", pipeline.Test{Command: []string{"true"}, User: "bob:staff"}, pipeline.Failed, 126, `group "staff" is not in the image`},
		{"id out of range", pipeline.Test{Command: []string{"true"}, User: "70000"}, pipeline.Failed, 126, "beyond 65535"},
		{"no command", pipeline.Test{}, pipeline.Failed, 127, "no command"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, out := b.run(c.test)
			if res.State != c.state || res.ExitCode != c.exit || !strings.Contains(res.Reason, c.reason) {
				t.Errorf("got %s, %d, %q\n%s", res.State, res.ExitCode, res.Reason, out)
			}
			if (res.State == pipeline.Passed) != (res.Reason == "") {
				t.Errorf("state %s with reason %q", res.State, res.Reason)
			}
		})
	}
}

// The image's config, and what a test puts over it.
func TestImageConfig(t *testing.T) {
	b := open(t)
	for _, c := range []struct {
		name   string
		config ocispec.ImageConfig
		test   pipeline.Test
		want   string
	}{
		{"root by default", ocispec.ImageConfig{}, pipeline.Test{Command: []string{"id"}}, "uid=0(root) gid=0(root) groups=0(root),20(audio)\n"},
		{"the image's user", ocispec.ImageConfig{User: "bob"}, pipeline.Test{Command: []string{"id"}}, "uid=1000(bob) gid=1001(bob) groups=10(wheel),20(audio),1001(bob)\n"},
		{"the test's user", ocispec.ImageConfig{User: "bob"}, pipeline.Test{Command: []string{"id"}, User: "root"}, "uid=0(root) gid=0(root) groups=0(root),20(audio)\n"},
		{"a number", ocispec.ImageConfig{User: "1000"}, pipeline.Test{Command: []string{"id"}}, "uid=1000(bob) gid=1001(bob) groups=10(wheel),20(audio),1001(bob)\n"},
		{"a number that is not listed", ocispec.ImageConfig{User: "4242"}, pipeline.Test{Command: []string{"id"}}, "uid=4242 gid=0(root) groups=0(root)\n"},
		{"user and group", ocispec.ImageConfig{User: "bob:audio"}, pipeline.Test{Command: []string{"id"}}, "uid=1000(bob) gid=20(audio) groups=20(audio)\n"},
		{"two numbers", ocispec.ImageConfig{User: "7:8"}, pipeline.Test{Command: []string{"id"}}, "uid=7 gid=8 groups=8\n"},
		{"workdir", ocispec.ImageConfig{WorkingDir: "/srv"}, pipeline.Test{Command: []string{"pwd"}}, "/srv\n"},
		{"workdir that is not there", ocispec.ImageConfig{WorkingDir: "/new/dir"}, pipeline.Test{Command: []string{"pwd"}}, "/new/dir\n"},
		{"workdir of the test, relative", ocispec.ImageConfig{WorkingDir: "/srv"}, pipeline.Test{Command: []string{"pwd"}, WorkingDir: "app"}, "/srv/app\n"},
		{"no environment", ocispec.ImageConfig{}, pipeline.Test{Command: []string{"env"}}, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOME=/root\nHOSTNAME=slipway\n"},
		{
			"environment",
			ocispec.ImageConfig{Env: []string{"PATH=/bin", "A=image", "B=image"}, User: "bob"},
			pipeline.Test{Command: []string{"env"}, Environment: map[string]string{"B": "test", "C": "with = and\nline"}},
			"PATH=/bin\nA=image\nB=test\nC=with = and\nline\nHOME=/home/bob\nHOSTNAME=slipway\n",
		},
		{
			"the image's entrypoint does not count",
			ocispec.ImageConfig{Entrypoint: []string{"/bin/false"}, Cmd: []string{"x"}},
			pipeline.Test{Command: []string{"echo", "a b"}},
			"a b\n",
		},
		{
			"unless there is no command",
			ocispec.ImageConfig{Entrypoint: []string{"/bin/echo", "e"}, Cmd: []string{"c"}},
			pipeline.Test{},
			"e c\n",
		},
		{"the test's entrypoint", ocispec.ImageConfig{Entrypoint: []string{"/bin/false"}}, pipeline.Test{Entrypoint: []string{"echo", "-n"}, Command: []string{"x"}}, "x"},
		{"a command relative to the workdir", ocispec.ImageConfig{WorkingDir: "/bin"}, pipeline.Test{Command: []string{"./echo", "x"}}, "x\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, out := b.run(c.test, withConfig(b, c.config))
			if res.State != pipeline.Passed || out != c.want {
				t.Errorf("%s: %s\ngot  %q\nwant %q", res.State, res.Reason, out, c.want)
			}
		})
	}
}

func TestFigures(t *testing.T) {
	b := open(t)
	res, _ := b.sh("dd if=/dev/zero of=/dev/shm/x bs=1M count=48 2>/dev/null; sleep 0.1; md5sum /dev/shm/x; exit 0")
	if res.State != pipeline.Passed {
		t.Fatal(res)
	}
	if res.Start <= 0 || res.Duration < 100_000_000 || res.CPU <= 0 || res.PeakMemory < 48<<20 || res.OutputSize == 0 {
		t.Errorf("implausible figures: %+v", res)
	}
}

// A PID 1 that is signalled by what it runs goes on working.
func TestSignalsToPID1(t *testing.T) {
	b := open(t)
	out := b.passes(`for s in TERM INT HUP QUIT ABRT SEGV USR1 USR2 PIPE ALRM STOP KILL BUS FPE ILL TRAP SYS CHLD; do kill -$s 1; done; sleep 0.1; echo alive`)
	if out != "alive\n" {
		t.Errorf("got %q", out)
	}
}
