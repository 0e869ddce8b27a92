package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/need"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newUserNamespace starts a process in user and network namespaces of its own,
// as a sandbox is, and returns the path of its network namespace.
func newUserNamespace(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: 100000, Size: 65536}},
		GidMappings: []syscall.SysProcIDMap{{HostID: 100000, Size: 65536}},
		Pdeathsig:   0, // it would fire when the Go thread ends
	}
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
	})
	return fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
}

func TestAttach(t *testing.T) {
	w := newWorld(t)
	openDoors(t, w)
	g := newGateway(t, Options{})
	path := newUserNamespace(t)
	if _, err := dialFrom(t, path, "tcp", server); !errors.Is(err, syscall.ENETUNREACH) {
		t.Fatalf("before: got %v, want network unreachable", err)
	}
	for range 2 { // what was detached can be attached again
		wire, err := g.Attach(t.Context(), path)
		must(t, err)
		c, err := dialFrom(t, path, "tcp", server)
		must(t, err)
		defer c.Close()
		if _, err := dialFrom(t, path, "tcp", "192.0.2.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the host: got %v, want connection refused", err)
		}
		must(t, wire.Close())
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("a connection over Close: got %v, want connection reset", err)
		}
		if _, err := dialFrom(t, path, "tcp", server); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("after: got %v, want network unreachable", err)
		}
	}
}

// A sandbox may have an eth0 already, towards its services.
func TestAttachBesideAnother(t *testing.T) {
	w := newWorld(t)
	openDoors(t, w)
	path := newUserNamespace(t)
	must(t, inside(path, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "other"})
	}))
	wire, err := newGateway(t, Options{}).Attach(t.Context(), path)
	must(t, err)
	defer wire.Close()
	c, err := dialFrom(t, path, "tcp", server)
	must(t, err)
	c.Close()
}

// A sandbox that dies before Close is no failure.
func TestAttachedSandboxDies(t *testing.T) {
	newWorld(t)
	n, err := Loopback(t.Context())
	must(t, err)
	wire, err := newGateway(t, Options{}).Attach(t.Context(), n.Path())
	must(t, err)
	must(t, n.Close())
	must(t, wire.Close())
}

func TestAttachToNothing(t *testing.T) {
	newWorld(t)
	_, err := newGateway(t, Options{}).Attach(t.Context(), "/proc/self/ns/absent")
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/proc/self/ns/absent") {
		t.Errorf("got %v", err)
	}
}

// A real OCI runtime joins the namespace by its path, from another process, with
// and without a user namespace of its own, as build steps do.
func TestRuncJoins(t *testing.T) {
	w := newWorld(t)
	openDoors(t, w)
	runc, err := findRunc()
	need.Have(t, "runc", err)
	g := newGateway(t, Options{})
	ids := []map[string]any{{"containerID": 0, "hostID": 100000, "size": 65536}}
	for name, user := range map[string]map[string]any{
		"root":           {},
		"user namespace": {"uidMappings": ids, "gidMappings": ids},
	} {
		t.Run(name, func(t *testing.T) {
			n := newSandbox(t, g)
			namespaces := []map[string]any{
				{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network", "path": n.Path()},
			}
			if len(user) > 0 {
				namespaces = append(namespaces, map[string]any{"type": "user"})
			}
			linux := map[string]any{"namespaces": namespaces}
			maps.Copy(linux, user)
			script := `exec 3<>/dev/tcp/198.51.100.10/80 && echo hello >&3 && read -r got <&3 && echo "echo: $got"
perl -MIO::Socket::INET -e 'IO::Socket::INET->new(Listen => 1, LocalPort => 80) and print "listens\n"'
if (exec 4<>/dev/tcp/192.0.2.1/80) 2>/dev/null; then echo "reached the host"; fi`
			bundle := newBundle(t, script, linux)
			id := fmt.Sprintf("slipway-network-test-%d", os.Getpid())
			out, err := exec.Command(runc, "--root", t.TempDir(), "run", "--bundle", bundle, id).CombinedOutput()
			if err != nil || string(out) != "echo: hello\nlistens\n" {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// newBundle is an OCI bundle that runs script with this machine's own programs.
func newBundle(t *testing.T, script string, linux map[string]any) string {
	t.Helper()
	bundle := t.TempDir()
	must(t, os.Mkdir(filepath.Join(bundle, "rootfs"), 0o755))
	for _, dir := range []string{bundle, filepath.Dir(bundle)} {
		must(t, os.Chmod(dir, 0o711)) // for the container's root, who is somebody else out here
	}
	mounts := []map[string]any{
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
	}
	for _, dir := range []string{"/bin", "/lib", "/lib64", "/usr"} {
		if _, err := os.Stat(dir); err == nil {
			must(t, os.Mkdir(filepath.Join(bundle, "rootfs", dir), 0o755))
			mounts = append(mounts, map[string]any{"destination": dir, "type": "bind", "source": dir, "options": []string{"bind", "ro"}})
		}
	}
	for _, dir := range []string{"proc", "dev"} {
		must(t, os.Mkdir(filepath.Join(bundle, "rootfs", dir), 0o755))
	}
	spec, err := json.Marshal(map[string]any{
		"ociVersion": "1.2.0",
		"process":    map[string]any{"args": []string{"bash", "-c", script}, "cwd": "/", "env": []string{"PATH=/usr/bin:/bin"}},
		"root":       map[string]any{"path": "rootfs"},
		"mounts":     mounts,
		"linux":      linux,
	})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bundle, "config.json"), spec, 0o600))
	return bundle
}

func findRunc() (string, error) {
	built, err := filepath.Abs("../../bin/slipway-runc")
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(built); err == nil {
		return built, nil
	}
	return exec.LookPath("runc")
}
