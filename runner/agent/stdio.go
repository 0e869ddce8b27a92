package agent

import (
	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// stdio is what a command reads and writes: pipes that the agent empties into
// those of whoever asked, or a terminal of the sandbox's own.
type stdio struct {
	files  []int // of whoever asked: output, then input and errors where they have one
	in     int   // what the command gets
	out    [2]int
	err    [2]int // -1: as out
	master int    // of the terminal, for whoever asked
}

// newStdio takes the files over: drop closes what is left of them.
func newStdio(x *wire.Exec, files []int) (*stdio, *wire.Refused) {
	s := &stdio{files: files, in: -1, out: [2]int{-1, -1}, err: [2]int{-1, -1}, master: -1}
	if x.TTY {
		return s, s.openTerminal(x)
	}
	var err error
	if x.Stdin {
		s.in, s.files = files[1], append(files[:1:1], files[2:]...)
	} else if s.in, err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return s, refuse(126, "open /dev/null: "+err.Error())
	}
	// One pipe for both unless asked otherwise: what was written first is read first.
	err = unix.Pipe2(s.out[:], unix.O_CLOEXEC)
	if err == nil && x.Stderr {
		err = unix.Pipe2(s.err[:], unix.O_CLOEXEC)
	}
	if err != nil {
		return s, refuse(126, "make the output pipe: "+err.Error())
	}
	return s, nil
}

// openTerminal makes a terminal in the sandbox's own devpts; an image that has put
// something else in its place gets none.
func (s *stdio) openTerminal(x *wire.Exec) *wire.Refused {
	var err error
	if s.master, err = unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return refuse(126, "open a terminal: "+err.Error())
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(s.master, &fs) != nil || fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return refuse(126, "open a terminal: /dev/pts is none of the kernel's")
	}
	err = unix.IoctlSetPointerInt(s.master, unix.TIOCSPTLCK, 0)
	if err == nil {
		s.in, err = peer(s.master)
	}
	if err == nil && x.Rows > 0 && x.Cols > 0 {
		err = unix.IoctlSetWinsize(s.in, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(x.Rows), Col: uint16(x.Cols)})
	}
	if err != nil {
		return refuse(126, "open a terminal: "+err.Error())
	}
	return nil
}

// peer opens the other end of a terminal (ioctl_tty(2), TIOCGPTPEER).
func peer(master int) (int, error) {
	fd, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, uintptr(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

// handTo makes a terminal the user's, as login(1) does: programs open it by name.
func (s *stdio) handTo(u *user) *wire.Refused {
	if s.master < 0 {
		return nil
	}
	if err := unix.Fchown(s.in, int(u.uid), -1); err != nil {
		return refuse(126, "hand the terminal to the user: "+err.Error())
	}
	return nil
}

// child are the command's first three files.
func (s *stdio) child() []uintptr {
	out, err := s.out[1], s.err[1]
	if s.master >= 0 {
		out = s.in
	}
	if err < 0 {
		err = out
	}
	return []uintptr{uintptr(s.in), uintptr(out), uintptr(err)}
}

// pump begins to carry the output, once the command has its ends.
func (s *stdio) pump() (pumps []*pump) {
	for _, fd := range []int{s.in, s.out[1], s.err[1]} {
		dropFD(fd)
	}
	for i, from := range []int{s.out[0], s.err[0]} {
		if from >= 0 {
			pumps = append(pumps, newPump(from, s.files[i]))
		}
	}
	return pumps
}

// drop closes everything of a command that was not started.
func (s *stdio) drop() {
	dropFDs(s.files)
	dropFDs([]int{s.in, s.out[0], s.out[1], s.err[0], s.err[1], s.master})
}
