package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// bombs take as much of something as they are told, which is more than they may.
func bombs() map[string]attempt {
	counted := func(do func(n int) error) attempt {
		return func(args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return err
			}
			return do(n)
		}
	}
	return map[string]attempt{
		"forks":   counted(forks),
		"memory":  counted(memory),
		"disk":    counted(func(mib int) error { return fill("/big", mib) }),
		"out":     counted(func(mib int) error { return fill("/out/big", mib) }),
		"shm":     counted(func(mib int) error { return fill("/dev/shm/big", mib) }),
		"files":   counted(func(n int) error { return files("/many", n) }),
		"sockets": counted(sockets),
		"cpu":     counted(cpu),
		"ghosts":  counted(ghosts),
		"lines":   counted(lines),
	}
}

func forks(n int) error {
	for range n {
		if err := exec.Command("/bin/sleep", "60").Start(); err != nil {
			return err
		}
	}
	return nil
}

func memory(mib int) error {
	m, err := unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := 0; i < len(m); i += 4096 {
		m[i] = 1
	}
	return nil
}

// fill writes a file, and stays a moment: limits that are measured are not met at once.
func fill(path string, mib int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i)
	}
	for range mib {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	time.Sleep(3 * time.Second)
	return f.Close()
}

// files makes empty ones.
func files(dir string, n int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		fd, err := unix.Open(dir+"/"+strconv.Itoa(i), unix.O_CREAT|unix.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_ = unix.Close(fd)
	}
	time.Sleep(12 * time.Second) // the walk that counts them is made now and then
	return nil
}

// sockets holds n pairs of them: memory of the kernel.
func sockets(n int) error {
	for range n {
		if _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); err != nil {
			return err
		}
	}
	return nil
}

// cpu succeeds when it gets that many milliseconds of processor within six seconds.
func cpu(ms int) error {
	begun := time.Now()
	var over atomic.Bool
	for range 16 {
		go func() {
			for !over.Load() { //nolint:revive // this is the load
			}
		}()
	}
	defer over.Store(true)
	var used time.Duration
	for time.Since(begun) < 6*time.Second {
		time.Sleep(50 * time.Millisecond)
		var use unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
			return err
		}
		if used = time.Duration(use.Utime.Nano() + use.Stime.Nano()); used > time.Duration(ms)*time.Millisecond {
			return nil
		}
	}
	return fmt.Errorf("it got %s in six seconds", used)
}

// ghosts leaves n processes to PID 1 that end at once. It succeeds when their
// remains have used up all processes that there may be.
func ghosts(n int) error {
	for range n {
		if err := exec.Command("/bin/sh", "-c", "sleep 0 & exec true").Run(); err != nil {
			return nil //nolint:nilerr // this is what it was after
		}
	}
	return errors.New("whatever ended was collected")
}

// lines writes n MiB of output.
func lines(mib int) error {
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = 'x'
		if i%64 == 63 {
			block[i] = '\n'
		}
	}
	for range mib {
		if _, err := os.Stdout.Write(block); err != nil {
			return err
		}
	}
	return nil
}
