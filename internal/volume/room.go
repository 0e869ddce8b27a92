package volume

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The store keeps this much free: in its file system, so that what runs in it
// has room, and on the host's, which a sparse image must never fill: a write
// into a hole that the host cannot back is an I/O error inside.
const (
	innerReserve = 256 << 20
	hostReserve  = 1 << 30
)

// makeRoom sees to it that need bytes can be written. A loop image grows, to
// twice its size at a time.
func (s *Store) makeRoom(ctx context.Context, need int64) error {
	host, err := space(s.root)
	if err != nil {
		return err
	}
	if host.free < need+min(hostReserve, host.size/20) {
		return fmt.Errorf("the volume store needs %s more, but the disk of %s has %s free; free some there (`slipway volumes rm`, `slipway gc`)", human(need), s.root, human(host.free))
	}
	if !s.backend.loop() {
		return nil
	}
	inner, err := space(s.data)
	if err != nil {
		return err
	}
	// Metadata and checksums take some percent of what is written.
	want := need + need/16 + innerReserve
	if inner.free >= want {
		return nil
	}
	return s.grow(ctx, max(inner.size, want-inner.free))
}

// keepRoom lets a loop image grow before what runs in the copies fills it. It is
// called for every copy and costs a system call; what it cannot do is no reason
// not to start.
func (s *Store) keepRoom(ctx context.Context) {
	if !s.backend.loop() {
		return
	}
	inner, err := space(s.data)
	if err == nil && inner.free < inner.size/4 {
		err = s.makeRoom(ctx, inner.size/4)
	}
	if err != nil {
		s.log.Warn().Err(err).Msg("the volume store runs out of space")
	}
}

// grow makes the image, its device and its file system larger by bytes. Cut off
// in between, the next one finishes it.
func (s *Store) grow(ctx context.Context, bytes int64) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	image := imagePath(s.root)
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	size := (info.Size() + bytes + 1<<20 - 1) &^ (1<<20 - 1)
	if err := os.Truncate(image, size); err != nil {
		return fmt.Errorf("grow the volume store: %w", err)
	}
	if err := growLoop(image); err != nil {
		return err
	}
	if s.backend == BtrfsLoop {
		err = growBtrfs(s.data)
	} else {
		err = growXFS(s.data, size)
	}
	if err != nil {
		return err
	}
	s.log.Debug().Int64("bytes", size).Msg("the image of the volume store grew")
	return nil
}

// room is what statfs(2) says, in bytes.
type room struct{ size, used, free int64 }

func space(dir string) (room, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return room{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return room{int64(st.Blocks) * st.Bsize, int64(st.Blocks-st.Bfree) * st.Bsize, int64(st.Bavail) * st.Bsize}, nil
}

func human(bytes int64) string {
	if bytes >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}
