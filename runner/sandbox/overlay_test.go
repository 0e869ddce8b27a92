package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"slipway/internal/need"

	"golang.org/x/sys/unix"
)

const insideEnv = "SLIPWAY_TEST_INSIDE"

// TestOverlay mounts layers both ways, the way of old kernels included, in a
// mount namespace of its own.
func TestOverlay(t *testing.T) {
	need.Root(t)
	if os.Getenv(insideEnv) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestOverlay$", "-test.v")
		cmd.Env = append(os.Environ(), insideEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	s := testSlot(t)
	for name, mount := range map[string]func(overlay, []int) error{"by descriptor": overlay.mountByFD, "by path": overlay.mountByPath} {
		t.Run(name, func(t *testing.T) {
			o := overlay{state: t.TempDir(), target: filepath.Join(t.TempDir(), "m"), slot: s}
			for _, dir := range []string{filepath.Join(o.state, upperName), filepath.Join(o.state, workName), o.target} {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			var fds []int
			for _, layer := range []string{"top", "middle", "bottom"} {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "all"), []byte(layer), 0o640); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, layer), nil, 0o640); err != nil {
					t.Fatal(err)
				}
				if err := os.Chown(filepath.Join(dir, layer), 1000, 1001); err != nil {
					t.Fatal(err)
				}
				fd, err := idmapped(dir, s, unix.MOUNT_ATTR_RDONLY)
				if err != nil {
					t.Fatal(err)
				}
				fds = append(fds, fd)
			}
			if err := mount(o, fds); err != nil {
				t.Fatal(err)
			}
			for _, fd := range fds {
				dropFD(fd)
			}
			defer func() { _ = detach(o.target) }()
			if got, err := os.ReadFile(filepath.Join(o.target, "all")); string(got) != "top" {
				t.Errorf("the topmost layer is %q, %v", got, err)
			}
			for _, layer := range []string{"top", "middle", "bottom"} {
				var st unix.Stat_t
				if err := unix.Stat(filepath.Join(o.target, layer), &st); err != nil || int(st.Uid) != s.first+1000 || int(st.Gid) != s.first+1001 {
					t.Errorf("%s: owner %d:%d, %v; want %d:%d", layer, st.Uid, st.Gid, err, s.first+1000, s.first+1001)
				}
			}
			if err := os.WriteFile(filepath.Join(o.target, "new"), nil, 0o600); err != nil {
				t.Errorf("the writable layer: %v", err)
			}
			if left, _ := os.ReadDir(o.target + ".layers"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// testSlot makes a user namespace as the helper does.
func testSlot(t *testing.T) *slot {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command("go", "build", "-o", path, "slipway/cmd/slipway-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	agent, err := sealAgent(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { drop(agent) })
	all := newSlots("/slipway-test", agent, nil)
	s, err := all.take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { all.put(s); all.close() })
	return s
}

// A user namespace belongs to its range's first id: what it uses up is its own.
func TestUserNamespaceOwner(t *testing.T) {
	need.Root(t)
	s := testSlot(t)
	var owner uint32
	if err := ioctlOwner(int(s.ns.Fd()), &owner); err != nil {
		t.Fatal(err)
	}
	if int(owner) != s.first || s.first < firstID {
		t.Errorf("owner %d, first id %d", owner, s.first)
	}
	if uid := os.Geteuid(); uid != 0 {
		t.Errorf("this process became %d", uid)
	}
}
