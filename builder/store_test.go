package builder

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/pipeline"
)

// A store that was closed is opened again in the same process, with all it held.
func TestReopen(t *testing.T) {
	o := testOptions(t)
	r := Request{Dir: project(t, map[string]string{"Dockerfile": "FROM busybox:1\nCOPY f /f\nRUN cat /f > /g\n", "f": "x"})}
	b := open(t, o)
	importBusybox(t, b, "busybox:1")
	first := build(t, b, r)
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = open(t, o)
		again := build(t, b, r)
		if !again.Cached || again.Image.Descriptor.Digest != first.Image.Descriptor.Digest {
			t.Errorf("after reopening: cached %v, %s", again.Cached, again.Image.Descriptor.Digest)
		}
		if got := fileIn(t, b, first.Image, "g"); got != "x" {
			t.Errorf("/g holds %q", got)
		}
	}
}

func TestTwoOnOneRoot(t *testing.T) {
	o := testOptions(t)
	open(t, o)
	// A second process, because locks are per process.
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), childRoot+"="+o.Root, childRunc+"="+o.Runc, childCgroup+"="+o.Cgroup)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another slipway") {
		t.Errorf("a second builder on the root: %v\n%s", err, out)
	}
}

const (
	childRoot   = "SLIPWAY_TEST_CHILD_ROOT"
	childRunc   = "SLIPWAY_TEST_CHILD_RUNC"
	childCgroup = "SLIPWAY_TEST_CHILD_CGROUP"
	childDir    = "SLIPWAY_TEST_CHILD_DIR"
)

// TestCrashChild is the process the crash tests kill; by itself it does nothing.
func TestCrashChild(t *testing.T) {
	root := os.Getenv(childRoot)
	if root == "" {
		return
	}
	b, err := Open(context.Background(), Options{Root: root, Runc: os.Getenv(childRunc), Cgroup: os.Getenv(childCgroup)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Build(context.Background(), Request{
		Name: "app", Dir: os.Getenv(childDir),
		Build: pipeline.Build{Secrets: []string{"s"}}, Secrets: map[string][]byte{"s": []byte("secret")},
	})
	t.Log(err)
	t.Log(b.Close())
}

// kill -9 in the middle of a step: the next Open leaves nothing of it.
func TestCrash(t *testing.T) {
	o := testOptions(t)
	b := open(t, o)
	importBusybox(t, b, "busybox:1")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	dir := project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN echo 1 > /1\nRUN --mount=type=secret,id=s --mount=type=cache,target=/c touch /c/x; sleep 1234.5\n"})
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), childRoot+"="+o.Root, childRunc+"="+o.Runc, childCgroup+"="+o.Cgroup, childDir+"="+dir, "TMPDIR="+TempDir(o.Root))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the step runs", func() bool { return len(sleepers(t)) > 0 })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed

	if left := mountsBelow(t, TempDir(o.Root)); len(left) == 0 {
		t.Error("the secret was not below TempDir: this test misses what it is for")
	}
	b = open(t, o)
	if pids := sleepers(t); len(pids) > 0 {
		t.Errorf("processes left: %v", pids)
	}
	if left := mountsBelow(t, o.Root); len(left) > 0 {
		t.Errorf("mounts left: %v", left)
	}
	for _, h := range hierarchies() {
		if _, err := os.Stat(filepath.Join(h, o.Cgroup)); err == nil {
			t.Errorf("cgroup left: %s", filepath.Join(h, o.Cgroup))
		}
	}
	for _, pattern := range []string{"worker/executor/*/rootfs", "tmp/*", "step/*", "runc/state/*", "userns/*"} {
		if left, err := filepath.Glob(filepath.Join(o.Root, pattern)); err != nil || len(left) > 0 {
			t.Errorf("files left: %v %v", left, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM busybox:1\nRUN echo 1 > /1\nRUN echo 2 > /2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := build(t, b, Request{Dir: dir})
	if got := fileIn(t, b, out.Image, "2"); got != "2\n" {
		t.Errorf("/2 holds %q", got)
	}
}

// sleepers finds the step of TestCrash by its odd argument.
func sleepers(tb testing.TB) (pids []string) {
	tb.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range all {
		if data, err := os.ReadFile(p); err == nil && strings.Contains(string(data), "sleep\x001234.5") {
			pids = append(pids, p)
		}
	}
	return pids
}

func waitFor(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for range 3000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	tb.Fatalf("never: %s", what)
}

func TestLookup(t *testing.T) {
	b := fresh(t)
	ctx := context.Background()
	dir := project(t, map[string]string{"Dockerfile": "FROM busybox:1\nCOPY f /f\n", "f": "1"})
	const name = "api[python=3.12,os=a@b]"
	old := build(t, b, Request{Name: name, Dir: dir}).Image
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	now := build(t, b, Request{Name: name, Dir: dir}).Image
	hex := old.Descriptor.Digest.Encoded()
	for ref, want := range map[string]digest.Digest{
		name:                          now.Descriptor.Digest,
		name + "@sha256:" + hex:       old.Descriptor.Digest,
		"sha256:" + hex:               old.Descriptor.Digest,
		hex[:12]:                      old.Descriptor.Digest,
		"busybox:1":                   importBusybox(t, b, "busybox:1").Descriptor.Digest,
		"docker.io/library/busybox:1": importBusybox(t, b, "busybox:1").Descriptor.Digest,
	} {
		got, err := b.Lookup(ctx, ref)
		if err != nil || got.Descriptor.Digest != want {
			t.Errorf("Lookup(%q) = %v, %v", ref, got, err)
		}
	}
	for _, ref := range []string{"nothing", "sha256:00000000", "api", hex[:5]} {
		if got, err := b.Lookup(ctx, ref); err == nil {
			t.Errorf("Lookup(%q) found %v", ref, got)
		}
	}
	if err := b.Remove(ctx, name+"@sha256:"+hex); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Lookup(ctx, hex); err == nil {
		t.Error("a removed image is still found")
	}
}

// Prune takes what is superseded or only cache, and leaves what has a name or is lent.
func TestPrune(t *testing.T) {
	b := fresh(t)
	ctx := context.Background()
	dir := project(t, map[string]string{"Dockerfile": "FROM busybox:1\nCOPY f /f\nRUN dd if=/dev/urandom of=/big bs=1M count=8 2>/dev/null\n", "f": "1"})
	old := build(t, b, Request{Dir: dir}).Image
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	now := build(t, b, Request{Dir: dir}).Image
	lent, err := b.Rootfs(ctx, now, "")
	if err != nil {
		t.Fatal(err)
	}
	if freed, err := b.Prune(ctx, 1<<40); err != nil || freed != 0 {
		t.Errorf("below the limit: freed %d, %v", freed, err)
	}
	before, err := b.DiskUsage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	freed, err := b.Prune(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("freed %d of %d bytes", freed, before.Total())
	if freed < 8<<20 {
		t.Errorf("freed %d bytes only", freed)
	}
	if _, err := os.Stat(filepath.Join(lent.Lowers[0], "big")); err != nil {
		t.Errorf("a lent file system lost a file: %v", err)
	}
	if err := lent.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Prune(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if got := fileIn(t, b, now, "f"); got != "2" { // unpacked again from its blobs
		t.Errorf("/f holds %q", got)
	}
	if _, err := b.Rootfs(ctx, old, ""); err == nil {
		t.Error("a superseded image outlived Prune")
	}
	build(t, b, Request{Dir: dir})
}

// What does not match its digest is not imported.
func TestIngestDamaged(t *testing.T) {
	b := open(t, testOptions(t))
	ctx := context.Background()
	target, blobs := busybox(t)
	for d, data := range blobs {
		bad := memory{}
		for k, v := range blobs {
			bad[k] = v
		}
		bad[d] = append([]byte("x"), data[1:]...)
		// What came in whole with an earlier attempt would be taken from the store.
		if _, err := b.engine.db.GarbageCollect(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Ingest(ctx, "bad:1", target, bad.open); err == nil {
			t.Errorf("blob %s was damaged and came in", d)
		}
		if _, err := b.engine.db.GarbageCollect(ctx); err != nil {
			t.Fatal(err)
		}
		delete(bad, d)
		if _, err := b.Ingest(ctx, "bad:1", target, bad.open); err == nil {
			t.Errorf("blob %s was missing and the image came in", d)
		}
	}
	if _, err := b.Lookup(ctx, "bad:1"); err == nil {
		t.Error("a damaged image has a name")
	}
	if _, err := b.Ingest(ctx, "Not A Name", target, blobs.open); err == nil {
		t.Error("a bad name was taken")
	}
	if _, err := b.Ingest(ctx, "good:1", target, blobs.open); err != nil {
		t.Error(err)
	}
}

func TestForeignRootfs(t *testing.T) {
	b := fresh(t)
	img, err := b.Lookup(context.Background(), "busybox:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Rootfs(context.Background(), img, "linux/s390x"); err == nil || !strings.Contains(err.Error(), "has no linux/s390x") {
		t.Errorf("a platform the image lacks: %v", err)
	}
	empty := build(t, b, Request{Name: "empty", Dir: project(t, map[string]string{"Dockerfile": "FROM scratch\nLABEL a=b\n"})})
	if _, err := b.Rootfs(context.Background(), empty.Image, ""); err == nil {
		t.Error("an image without files has a file system")
	}
	gone := pipeline.Image{Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}}
	if _, err := b.Rootfs(context.Background(), gone, ""); err == nil {
		t.Error("an image that is not here has a file system")
	}
}

func TestOpenRefuses(t *testing.T) {
	o := testOptions(t)
	closed := filepath.Join(filepath.Dir(o.Root), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Options)
		says   string
	}{
		"a relative root":    {func(o *Options) { o.Root = "x" }, "must be absolute"},
		"no runc":            {func(o *Options) { o.Runc = "/nowhere/runc" }, "/nowhere/runc"},
		"a closed directory": {func(o *Options) { o.Root = filepath.Join(closed, "b") }, "chmod o+x"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := o
			c.change(&bad)
			b, err := Open(context.Background(), bad)
			if err == nil {
				t.Fatal(errors.Join(errors.New("it opened"), b.Close()))
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q does not say %q", err, c.says)
			}
		})
	}
}
