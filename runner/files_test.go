package runner_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/pipeline"
	"slipway/runner"
)

func lowers(dirs ...string) func(*runner.Request) {
	return func(q *runner.Request) {
		q.Rootfs = func(context.Context, pipeline.Image) (runner.Rootfs, error) {
			return runner.Rootfs{Lowers: dirs}, nil
		}
	}
}

func keepOut(dir string) func(*runner.Request) {
	return func(q *runner.Request) { q.Out = dir }
}

// Reports come out; whatever could lead a careless copier astray does not.
func TestOut(t *testing.T) {
	b := open(t)
	to := filepath.Join(t.TempDir(), "new", "out")
	script := `
cd /out
echo report > junit.xml
mkdir -p a/b; echo deep > a/b/c.txt
ln -s /etc/shadow link; ln -s / root; ln -s ../../.. up; ln -s junit.xml inside
mkfifo fifo
ln /etc/passwd hard 2>/dev/null
chmod 4755 junit.xml
echo secret > unreadable; chmod 000 unreadable
cd a && ln -s /etc b2
`
	for _, user := range []string{"root", "bob"} {
		res, out := b.run(pipeline.Test{Command: []string{"sh", "-c", script}, User: user}, keepOut(to))
		if res.State != pipeline.Passed {
			t.Fatal(res, out)
		}
		got := map[string]string{}
		err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			rel, _ := filepath.Rel(to, path)
			got[rel] = string(data)
			if info, _ := d.Info(); !info.Mode().IsRegular() || info.Mode() != 0o644 {
				t.Errorf("%s has mode %v", rel, info.Mode())
			}
			return err
		})
		want := map[string]string{"junit.xml": "report\n", "a/b/c.txt": "deep\n", "unreadable": "secret\n"}
		if err != nil || len(got) != len(want) {
			t.Errorf("as %s: %v, got %v", user, err, got)
		}
		for name, content := range want {
			if got[name] != content {
				t.Errorf("as %s: %s is %q", user, name, got[name])
			}
		}
	}
}

// Reports that are too large fail the test, and fill nothing.
func TestOutTooLarge(t *testing.T) {
	b := open(t)
	to := t.TempDir()
	res, _ := b.sh(`dd if=/dev/zero of=/out/sparse bs=1 count=1 seek=9999999999 2>/dev/null`, keepOut(to))
	if res.State != pipeline.Failed || !strings.Contains(res.Reason, "/out: more than 1024 MiB") {
		t.Errorf("%+v", res)
	}
	if left, _ := os.ReadDir(to); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A test that failed or ran out of time leaves its reports too.
func TestOutOfFailedTest(t *testing.T) {
	b := open(t)
	to := t.TempDir()
	if res, _ := b.sh(`echo r > /out/r; exit 1`, keepOut(to)); res.ExitCode != 1 {
		t.Fatal(res)
	}
	if data, err := os.ReadFile(filepath.Join(to, "r")); string(data) != "r\n" {
		t.Error(err)
	}
}

func TestSecrets(t *testing.T) {
	b := open(t)
	const value = "s3cr3t-value"
	secret := func(q *runner.Request) {
		q.Secrets = map[string][]byte{"token": []byte(value), "other": []byte("x\n")}
	}
	res, out := b.run(pipeline.Test{User: "bob", Command: []string{"sh", "-c", `
stat -c '%a %U %n' /run/secrets/*; [ "$(cat /run/secrets/token)" = ` + "s3cr3t-''value" + ` ] && echo right
grep -q 's3cr3t[-]value' /proc/self/environ /proc/*/environ /proc/*/cmdline 2>/dev/null && echo LEAK
grep secrets /proc/self/mountinfo | grep -o tmpfs | head -1`}}, secret)
	if res.State != pipeline.Passed || out != "400 bob /run/secrets/other\n400 bob /run/secrets/token\nright\ntmpfs\n" {
		t.Errorf("%+v %s", res, out)
	}
	if out := b.passes(`ls -a /run/secrets 2>&1; true`); !strings.Contains(out, "No such file") {
		t.Errorf("without secrets: %s", out)
	}
	// They never touch the disk.
	b.passes(`sleep 0.1`, secret)
	err := filepath.WalkDir(b.opts.Root, func(path string, d os.DirEntry, _ error) error {
		if d != nil && d.Type().IsRegular() {
			if data, _ := os.ReadFile(path); strings.Contains(string(data), value) {
				t.Errorf("%s holds a secret", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	_, err = b.Test(context.Background(), b.request(pipeline.Test{}, func(q *runner.Request) {
		q.Secrets = map[string][]byte{"../x": nil}
	}), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "plain file name") {
		t.Errorf("a secret's name with a path in it: %v", err)
	}
}

func TestBinds(t *testing.T) {
	b := open(t)
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), []byte("data\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(src, "f"), 1000, 1001); err != nil {
		t.Fatal(err)
	}
	bind := func(binds ...runner.Bind) func(*runner.Request) { return func(q *runner.Request) { q.Binds = binds } }
	out := b.passes(`stat -c '%u %g' /data/deep/f; cat /data/deep/f /one; touch /data/deep/new 2>/dev/null && echo WRITABLE; true`,
		bind(runner.Bind{Source: src, Target: "/data/deep", ReadOnly: true}, runner.Bind{Source: filepath.Join(src, "f"), Target: "/one", ReadOnly: true}))
	if out != "1000 1001\ndata\ndata\n" {
		t.Errorf("read-only: %q", out)
	}
	b.passes(`echo new > /data/g`, bind(runner.Bind{Source: src, Target: "/data"}))
	if data, err := os.ReadFile(filepath.Join(src, "g")); string(data) != "new\n" {
		t.Errorf("writable: %q %v", data, err)
	}
	// A target that leads out of the root, by a symlink of the image, stays inside.
	evil := t.TempDir()
	if err := os.Symlink("/../../../../../../etc", filepath.Join(evil, "escape")); err != nil {
		t.Fatal(err)
	}
	out = b.passes(`cat /escape/conf/f; ls -d /etc/conf`, lowers(evil, b.image), bind(runner.Bind{Source: src, Target: "/escape/conf", ReadOnly: true}))
	if out != "data\n/etc/conf\n" {
		t.Errorf("through a symlink: %q", out)
	}
	if _, err := os.Stat("/etc/conf"); err == nil {
		t.Error("the host has /etc/conf")
	}
	// A mount inside another, whose mount point is not there, whoever owns the outer one.
	outer := t.TempDir()
	if err := errors.Join(os.Chown(outer, 1000, 1001), os.Chmod(outer, 0o700)); err != nil {
		t.Fatal(err)
	}
	out = b.passes(`cat /outer/a/b/f; stat -c '%u:%g %a' /outer /outer/a`,
		bind(runner.Bind{Source: src, Target: "/outer/a/b"}, runner.Bind{Source: outer, Target: "/outer"}))
	if out != "data\n1000:1001 700\n0:0 755\n" {
		t.Errorf("inside another: %q", out)
	}
	_, err := b.Test(context.Background(), b.request(pipeline.Test{}, bind(runner.Bind{Source: src, Target: "/outer/new"}, runner.Bind{Source: outer, Target: "/outer", ReadOnly: true})), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "mount the outer one with :rw") {
		t.Errorf("inside a read-only one: %v", err)
	}
	_, err = b.Test(context.Background(), b.request(pipeline.Test{}, bind(runner.Bind{Source: "/does/not/exist", Target: "/x"})), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("a missing source: %v", err)
	}
}

// Directories in memory have the owner, mode and size that were asked for, count
// for the memory limit, and lie under whatever is mounted inside them.
func TestTmpfs(t *testing.T) {
	b := open(t)
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), []byte("data\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `
stat -c '%n %a %u:%g' /run /new/deep /dev/shm
grep ' /run \| /new/deep \| /dev/shm ' /proc/self/mountinfo | while read _ _ _ _ at options rest; do
	case $options in *noexec*) x=noexec;; *) x=exec;; esac
	case $options in *nosuid*nodev*) s=;; *) s=LOOSE;; esac
	echo $at $x $s; done
cat /run/vol/f /run/secrets/token; ls /run
head -c 3000000 /dev/zero > /new/deep/large || echo full
cp /bin/busybox /dev/shm/busybox && /dev/shm/busybox echo run`
	res, out := b.run(pipeline.Test{
		Command: []string{"sh", "-c", script},
		Tmpfs:   []pipeline.Tmpfs{{Target: "/new/deep", Size: 2 << 20, Mode: 0o750, UID: 1000, GID: 1001}, {Target: "/run"}, {Target: "/dev/shm", Exec: true}},
	}, func(q *runner.Request) {
		q.Binds = []runner.Bind{{Source: src, Target: "/run/vol", ReadOnly: true}}
		q.Secrets = map[string][]byte{"token": []byte("secret\n")}
	})
	want := "/run 1777 0:0\n/new/deep 750 1000:1001\n/dev/shm 1777 0:0\n"
	for _, line := range []string{"/run noexec\n", "/new/deep noexec\n", "/dev/shm exec\n", "data\nsecret\nsecrets\nvol\n", "full\n", "run\n"} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q", line)
		}
	}
	if res.State != pipeline.Passed || !strings.HasPrefix(out, want) || strings.Contains(out, "LOOSE") || t.Failed() {
		t.Errorf("%+v\n%s", res, out)
	}
	res, _ = b.run(pipeline.Test{
		Command: []string{"dd", "if=/dev/zero", "of=/m/x", "bs=1M", "count=200"}, Tmpfs: []pipeline.Tmpfs{{Target: "/m", Size: 1 << 30}},
		Resources: pipeline.Resources{Memory: 64 << 20},
	})
	if !res.OOM {
		t.Errorf("200 MiB in memory with a limit of 64: %+v", res)
	}
	_, err := b.Test(context.Background(), b.request(pipeline.Test{Tmpfs: []pipeline.Tmpfs{{Target: "/x", UID: 70000}}}), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "below 65536") {
		t.Errorf("an owner that no sandbox has: %v", err)
	}
}

type closer func() error

func (c closer) Close() error { return c() }

// Egress is called with the namespace before the command runs, and closed after.
func TestEgress(t *testing.T) {
	b := open(t)
	closed := false
	out := b.passes(`cat /etc/resolv.conf`, func(q *runner.Request) {
		q.Egress = func(_ context.Context, netns string) (io.Closer, []netip.Addr, error) {
			if link, err := os.Readlink(netns); err != nil || !strings.HasPrefix(link, "net:[") {
				t.Errorf("%s: %q %v", netns, link, err)
			}
			return closer(func() error { closed = true; return nil }), []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, nil
		}
	})
	if out != "nameserver 10.0.0.1\nnameserver fd00::1\n" {
		t.Errorf("resolv.conf: %q", out)
	}
	b.Close()
	if !closed {
		t.Error("the way out was not closed")
	}
}

// Nor does a tree that is too deep, or has too many files, keep the copier busy.
func TestOutWithoutEnd(t *testing.T) {
	b := open(t)
	for name, script := range map[string]string{
		"nested more than 32 deep": `cd /out; i=0; while [ $i -lt 40 ]; do mkdir d; cd d; i=$((i+1)); done; touch f`,
		"more than 10000 files":    `cd /out; i=0; while [ $i -lt 10001 ]; do : > $i; i=$((i+1)); done`,
	} {
		if res, _ := b.sh(script, keepOut(t.TempDir())); res.State != pipeline.Failed || !strings.Contains(res.Reason, name) {
			t.Errorf("%s: %+v", name, res)
		}
	}
}
