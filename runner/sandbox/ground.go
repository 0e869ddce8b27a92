package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// Names below a sandbox's directory on disk.
const (
	upperName = "upper"
	workName  = "work"
	outName   = "out"
)

// prepare makes a range of ids with all that the first sandbox needs of it,
// while other work goes on. Making directories is quick, but on a filesystem that
// is syncing it waits.
func (h *helper) prepare() {
	h.ahead.Go(func() {
		s, err := h.slots.take()
		if err != nil {
			return // met again where it can be told
		}
		s.dir, _ = h.lay(s)
		h.slots.put(s)
	})
}

// lay makes the directories of one sandbox, owned by its root.
func (h *helper) lay(s *slot) (string, error) {
	dir := filepath.Join(h.session.dir, strconv.FormatUint(h.names.Add(1), 10))
	if err := os.Mkdir(dir, 0o711); err != nil {
		return "", fmt.Errorf("make the sandbox's directory: %w", err)
	}
	for _, name := range []string{upperName, workName, outName} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return "", fmt.Errorf("make the sandbox's directory: %w", err)
		}
	}
	for _, name := range []string{upperName, outName} {
		if err := os.Chown(filepath.Join(dir, name), s.first, s.first); err != nil {
			return "", fmt.Errorf("give %s to the sandbox: %w", name, err)
		}
	}
	return dir, nil
}

// makeSkeleton makes a layer that lies below every image and holds the mount
// points that an image may lack. Where it has them, its own are seen. Without
// it they are made in each sandbox's writable layer, which takes longer.
func (h *helper) makeSkeleton() error {
	for _, dir := range []string{"dev", "proc", "sys", "etc", "out"} {
		if err := os.MkdirAll(filepath.Join(h.skeleton(), dir), 0o755); err != nil {
			return fmt.Errorf("make the layer of mount points: %w", err)
		}
	}
	for _, name := range etcFiles {
		if err := os.WriteFile(filepath.Join(h.skeleton(), "etc", name), nil, 0o644); err != nil {
			return fmt.Errorf("make the layer of mount points: %w", err)
		}
	}
	return nil
}

func (h *helper) skeleton() string { return filepath.Join(h.session.dir, "skeleton") }

// etcFiles are supplied by the runner, whatever the image has.
var etcFiles = [...]string{"hosts", "hostname", "resolv.conf"}

// placeEtc puts the three files of /etc there, writable, on a tmpfs of their
// own: what a test writes to them is neither the image's nor another's.
func (h *helper) placeEtc(p *placer, b *box, s *wire.Sandbox) error {
	fs, err := newTmpfs(b.slot.first, wire.Tmpfs{Size: 1 << 20, Mode: 0o755})
	if err != nil {
		return err
	}
	dir := b.target + ".etc"
	if err := os.Mkdir(dir, 0o755); err != nil {
		dropFD(fs)
		return err
	}
	// Attached for a moment: old kernels clone only what is.
	err = unix.MoveMount(fs, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	dropFD(fs)
	if err == nil {
		err = placeFiles(p, b, s, dir)
	}
	if derr := detach(dir); err == nil {
		err = derr
	}
	return err
}

func placeFiles(p *placer, b *box, s *wire.Sandbox, dir string) error {
	for _, name := range etcFiles {
		content := ""
		switch name {
		case "hosts":
			content = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t" + s.Hostname + "\n"
		case "hostname":
			content = s.Hostname + "\n"
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return fmt.Errorf("write /etc/%s: %w", name, err)
		}
		if err := os.Chown(path, b.slot.first, b.slot.first); err != nil {
			return fmt.Errorf("write /etc/%s: %w", name, err)
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("open /etc/%s: %w", name, err)
		}
		if err := p.attach(fd, "/etc/"+name, false); err != nil {
			return err
		}
	}
	return nil
}
