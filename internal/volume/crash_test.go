package volume

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"slipway/internal/need"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// roleVariable makes the test binary another process of slipway.
const roleVariable = "SLIPWAY_VOLUME_TEST_ROLE"

// play is that process: it works on the store until it is killed, or opens it,
// says so and waits for the end of its input.
func play(role string) int {
	ctx := context.Background()
	s, err := Open(ctx, Options{Root: os.Args[1], Backend: Backend(os.Args[2]), Size: minSize, Log: zerolog.New(os.Stderr)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, "open")
	if role == "work" {
		err = work(ctx, s, os.Args[3])
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if role == "keep" {
		return keep(ctx, s)
	}
	if _, err := s.Seed(ctx, "theirs", Directory(os.Args[3], ".")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, "seeded")
	_, _ = os.Stdin.Read(make([]byte, 1))
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// keep keeps one copy, has another mounted and does not end.
func keep(ctx context.Context, s *Store) int {
	kept, err := s.Empty(ctx, CopyOptions{})
	if err == nil {
		err = os.WriteFile(filepath.Join(kept.Dir, "row"), []byte("1"), 0o600)
	}
	if err == nil {
		err = kept.Keep("run/test/db")
	}
	if err == nil {
		_, err = s.Empty(ctx, CopyOptions{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, "kept")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

// work changes everything there is, over and over.
func work(ctx context.Context, s *Store, dir string) error {
	for {
		for _, name := range []string{"a", "b"} {
			if _, err := s.Seed(ctx, "seed", Directory(dir, name)); err != nil {
				return err
			}
			c, err := s.Snapshot(ctx, "seed", CopyOptions{})
			if err != nil {
				return err
			}
			if _, err := c.Save(ctx, "saved"); err != nil {
				return err
			}
			if _, err := s.CopyIn(ctx, "saved", "/which", filepath.Join(dir, name, "which")); err != nil {
				return err
			}
			if name == "a" {
				err = c.Release()
			}
			if err != nil {
				return err
			}
		}
		if err := s.Remove(ctx, "saved"); err != nil {
			return err
		}
		if _, err := s.Prune(ctx, 0); err != nil {
			return err
		}
	}
}

func start(t *testing.T, role string, b Backend, root, dir string, flags uintptr) (*exec.Cmd, *os.File, *os.File) {
	t.Helper()
	in, feed, err := os.Pipe()
	must(t, err)
	said, out, err := os.Pipe()
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, root, string(b), dir)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	in.Close()
	out.Close()
	t.Cleanup(func() {
		feed.Close()
		said.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, feed, said
}

func hear(t *testing.T, from *os.File, want string) {
	t.Helper()
	buf := make([]byte, len(want)+1)
	for at := 0; at < len(buf); {
		n, err := from.Read(buf[at:])
		if err != nil {
			t.Fatalf("the other process said %q and ended: %v", buf[:at], err)
		}
		at += n
	}
	if string(buf) != want+"\n" {
		t.Fatalf("the other process said %q, want %q", buf, want)
	}
}

// Killed at any moment, a store holds whole volumes only, each what its ID says,
// and nothing else once it was opened again.
func TestKilled(t *testing.T) {
	for _, b := range []Backend{BtrfsLoop, XFSLoop, PlainCopy} {
		t.Run(string(b), func(t *testing.T) {
			root, dir := hostFor(t, b), t.TempDir()
			for _, name := range []string{"a", "b"} {
				put(t, dir, name+"/which", name)
				for _, file := range []string{"1", "2", "3"} {
					put(t, dir, name+"/data/"+file, string(make([]byte, 200_000))+name+file)
				}
			}
			// The first kills hit the making of the store itself.
			for i, after := range []time.Duration{20, 90, 170, 250, 20, 35, 50, 65, 80, 110} {
				cmd, _, said := start(t, "work", b, root, dir, 0)
				if i >= 4 {
					hear(t, said, "open")
				}
				time.Sleep(after * time.Millisecond)
				must(t, cmd.Process.Kill())
				_ = cmd.Wait()
				if i >= 4 || i == 3 {
					checkWhole(t, root, b)
				}
			}
			nothingMounted(t, root)

			cmd, _, said := start(t, "work", b, root, dir, 0)
			hear(t, said, "open")
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
			for range 2 { // the second has nothing to do
				must(t, Reap(t.Context(), Options{Root: root}))
				nothingMounted(t, root)
			}
			if left, _ := filepath.Glob(filepath.Join(root, "volumes", dataDir, sessionsDir, "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// What was kept stays, with what somebody has mounted of it, when its keeper is
// killed and the next start reaps; everything else goes.
func TestKeptSurvivesACrash(t *testing.T) {
	for _, b := range []Backend{BtrfsLoop, PlainCopy} {
		t.Run(string(b), func(t *testing.T) {
			root := hostFor(t, b)
			cmd, _, said := start(t, "keep", b, root, t.TempDir(), 0)
			hear(t, said, "open")
			hear(t, said, "kept")
			dirs, err := filepath.Glob(filepath.Join(root, "volumes", dataDir, keptDir, "*", treeDir))
			must(t, err)
			if len(dirs) != 1 {
				t.Fatalf("kept: %v", dirs)
			}
			// A sandbox that was frozen has a clone of the mount.
			frozen, err := unix.OpenTree(unix.AT_FDCWD, dirs[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			must(t, err)
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
			must(t, Reap(t.Context(), Options{Root: root}))
			if at, err := mountedAt(filepath.Join(root, "volumes", dataDir)); at != "" || err != nil {
				t.Errorf("mounted after it was reaped: %s (%v)", at, err)
			}
			must(t, os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/more", frozen), []byte("2"), 0o600))

			s := openStore(t, Options{Root: root})
			if all := sessions(t, s); len(all) != 1 {
				t.Errorf("a dead session stays: %v", all)
			}
			kept, err := s.Kept()
			must(t, err)
			if len(kept) != 1 || get(t, kept[0].Dir, "row")+get(t, kept[0].Dir, "more") != "12" {
				t.Errorf("kept: %+v", kept)
			}
			closeFD(frozen)
			must(t, s.Drop("run/test/db"))
			closed(t, s)
			nothingMounted(t, root)
		})
	}
}

// Reap takes away a store that was killed while it was made, and leaves a
// directory without one as it is.
func TestReapHalfMade(t *testing.T) {
	root := hostFor(t, BtrfsLoop)
	must(t, Reap(t.Context(), Options{Root: root}))
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("Reap made %v (%v)", left, err)
	}
	need.Root(t)
	s := &Store{root: filepath.Join(root, "volumes"), data: filepath.Join(root, "volumes", dataDir), log: zerolog.Nop()}
	must(t, os.Mkdir(s.root, 0o700))
	must(t, s.createImage(t.Context(), BtrfsLoop, minSize))
	must(t, Reap(t.Context(), Options{Root: root}))
	nothingMounted(t, root)
	if _, err := os.Stat(imagePath(s.root)); err == nil {
		t.Error("half a store stays")
	}
}

func checkWhole(t *testing.T, root string, b Backend) {
	t.Helper()
	s, err := Open(t.Context(), Options{Root: root, Backend: b, Size: minSize, Log: zerolog.New(zerolog.NewTestWriter(t))})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	if all := sessions(t, s); len(all) != 1 {
		t.Errorf("a dead session stays: %v", all)
	}
	if left, err := os.ReadDir(s.session); err != nil || len(left) != 1 {
		t.Errorf("the session holds %v (%v)", left, err)
	}
	all, err := s.List()
	must(t, err)
	for _, v := range all {
		got := sum(t, filepath.Join(s.volume(v.ID), treeDir))
		if v.Digest != "" && got.digest != v.Digest || got.files != v.Files || got.size != v.Size {
			t.Errorf("volume %s is not whole: %+v, found %+v", v.ID, v, got)
		}
		if v.Digest == "" && len(v.Names) == 0 {
			t.Errorf("saved volume %s has no name", v.ID)
		}
	}
	byName, err := s.names()
	must(t, err)
	for name, id := range byName {
		if !s.has(id) {
			t.Errorf("name %s is of no volume (%s)", name, id)
		}
	}
}

// Two processes use one store, in one mount namespace or in two, whoever is
// first: one loop device, and the mount goes with the last of each namespace.
func TestShared(t *testing.T) {
	for _, b := range []Backend{BtrfsLoop, XFSLoop, PlainCopy} {
		for _, c := range []struct {
			name        string
			flags       uintptr
			theirsFirst bool
		}{{"same namespace", 0, false}, {"own namespace", unix.CLONE_NEWNS, false}, {"own namespace first", unix.CLONE_NEWNS, true}} {
			t.Run(string(b)+"/"+c.name, func(t *testing.T) {
				root, dir := hostFor(t, b), sample(t)
				var ours *Store
				if !c.theirsFirst {
					ours = openStore(t, Options{Root: root, Backend: b})
				}
				cmd, feed, said := start(t, "wait", b, root, dir, c.flags)
				hear(t, said, "open")
				hear(t, said, "seeded")
				if c.theirsFirst {
					ours = openStore(t, Options{Root: root, Backend: b})
				}
				copied := snapshot(t, ours, "theirs")
				same(t, "a volume of another process", describe(t, copied.Dir), describe(t, dir))
				if len(sessions(t, ours)) != 2 {
					t.Error("the other process has no session")
				}
				feed.Close()
				if err := cmd.Wait(); err != nil {
					t.Error(err)
				}
				if _, err := ours.Empty(t.Context(), CopyOptions{}); err != nil {
					t.Errorf("after the other process closed it: %v", err)
				}
				closed(t, ours)
				nothingMounted(t, root)
			})
		}
	}
}
