package runner_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/pipeline"
)

func TestOutOfMemory(t *testing.T) {
	b := open(t)
	res, out := b.run(pipeline.Test{
		Command:   []string{"sh", "-c", `dd if=/dev/zero of=/dev/null bs=200M count=1`},
		Resources: pipeline.Resources{Memory: 64 << 20},
	})
	if res.State != pipeline.Failed || !res.OOM || res.ExitCode != 137 || !strings.Contains(res.Reason, "64 MiB") {
		t.Errorf("%+v\n%s", res, out)
	}
	// A child of the test that is killed for memory: the test decides.
	res, out = b.run(pipeline.Test{
		Command:   []string{"sh", "-c", `dd if=/dev/zero of=/dev/null bs=200M count=1; echo went on; exit 0`},
		Resources: pipeline.Resources{Memory: 64 << 20},
	})
	if res.State != pipeline.Passed || !res.OOM || !strings.Contains(out, "went on") {
		t.Errorf("%+v\n%s", res, out)
	}
}

// Time is up: what the test wrote until then arrives, and nothing lives on.
func TestTimeout(t *testing.T) {
	b := open(t)
	res, out := b.run(pipeline.Test{
		Command: []string{"sh", "-c", `echo begun; setsid sh -c 'setsid sleep 500 & sleep 500' & (trap '' TERM INT; sleep 500) & sleep 500`},
		Timeout: 300 * time.Millisecond,
	})
	if res.State != pipeline.Failed || !res.TimedOut || res.OOM || res.ExitCode != 137 || out != "begun\n" || !strings.Contains(res.Reason, "300ms") {
		t.Errorf("%+v %q", res, out)
	}
}

func TestCancel(t *testing.T) {
	b := open(t)
	why := errors.New("stopped by hand")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(200*time.Millisecond, func() { cancel(why) })
	var out strings.Builder
	res, err := b.Test(ctx, b.request(pipeline.Test{Command: []string{"sh", "-c", "echo begun; sleep 500"}}), &out)
	if err != nil || res.State != pipeline.Canceled || !strings.Contains(res.Reason, why.Error()) {
		t.Errorf("%+v %v %q", res, err, out.String())
	}
	// A context that has ended already makes nothing.
	res, err = b.Test(ctx, b.request(pipeline.Test{Command: []string{"true"}}), &out)
	if err != nil || res.State != pipeline.Canceled {
		t.Errorf("%+v %v", res, err)
	}
}

// A fork bomb meets its limit; its neighbours do not notice.
func TestForkBomb(t *testing.T) {
	b := open(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		res, _ := b.run(pipeline.Test{
			Command:   []string{"sh", "-c", `b() { b | b & b; }; b; sleep 500`},
			Resources: pipeline.Resources{Pids: 64}, Timeout: 3 * time.Second,
		})
		if res.State != pipeline.Failed {
			t.Errorf("the bomb: %+v", res)
		}
	})
	for range 3 {
		wg.Go(func() {
			res, out := b.sh(`for i in 1 2 3 4 5 6 7 8; do sleep 0.1; (echo alive); done`)
			if res.State != pipeline.Passed || strings.Count(out, "alive") != 8 {
				t.Errorf("a neighbour: %+v %q", res, out)
			}
		})
	}
	wg.Wait()
}

// The agent lives on where a bomb has left no room for one more process.
func TestAgentAmongBombs(t *testing.T) {
	b := open(t)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 8 {
				res, _ := b.run(pipeline.Test{
					Command:   []string{"sh", "-c", `b() { b | b & b; }; b 2>/dev/null; sleep 500`},
					Resources: pipeline.Resources{Pids: 8}, Timeout: 300 * time.Millisecond,
				})
				if res.State != pipeline.Failed {
					t.Errorf("%+v", res)
				}
			}
		})
	}
	wg.Wait()
}

func TestPidsLimit(t *testing.T) {
	b := open(t)
	res, out := b.run(pipeline.Test{
		Command:   []string{"sh", "-c", `for i in $(seq 100); do sleep 60 & done; exit 9`},
		Resources: pipeline.Resources{Pids: 20},
	})
	if res.State != pipeline.Failed || !strings.Contains(res.Reason+out, "20 processes") && !strings.Contains(out, "fork") {
		t.Errorf("%+v %q", res, out)
	}
}

// Writing for ever ends at the disk limit, whatever it is written to.
func TestDiskLimit(t *testing.T) {
	b := open(t)
	for name, script := range map[string]string{
		"one file":      `dd if=/dev/zero of=/big bs=1M`,
		"report dir":    `dd if=/dev/zero of=/out/big bs=1M`,
		"no name":       `exec 3>/big; rm /big; cat /dev/zero >&3`,
		"many files":    `mkdir /m; i=0; while true; do dd if=/dev/zero of=/m/$i bs=1M count=4 2>/dev/null; i=$((i+1)); done`,
		"held by child": `(exec 3>/big; rm /big; cat /dev/zero >&3) & wait`,
	} {
		t.Run(name, func(t *testing.T) {
			res, out := b.run(pipeline.Test{Command: []string{"sh", "-c", script}, Resources: pipeline.Resources{Disk: 100 << 20}})
			if res.State != pipeline.Failed || !res.DiskFull || !strings.Contains(res.Reason, "100 MiB") {
				t.Errorf("%+v %s", res, out)
			}
		})
	}
}

func TestCPUQuota(t *testing.T) {
	b := open(t)
	base, _ := b.sh(`true`) // making the sandbox counts too
	res, _ := b.run(pipeline.Test{
		Command:   []string{"sh", "-c", `for i in 1 2 3 4; do (while true; do :; done) & done; sleep 2`},
		Resources: pipeline.Resources{CPUs: 0.1},
	})
	if used := res.CPU - base.CPU; res.State != pipeline.Passed || used > res.Duration/2 {
		t.Errorf("%v of processor in %v", used, res.Duration)
	}
}

// A filesystem that runs full: the sandbox that holds most of it is stopped, and
// none is made on one that is full already. Then all is well again.
func TestFullDisk(t *testing.T) {
	b := open(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(b.opts.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", b.opts.Root, "tmpfs", 0, "size=400m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = b.Close()
		if err := unix.Unmount(b.opts.Root, 0); err != nil {
			t.Error(err)
		}
	})
	b.reopen()
	res, out := b.sh(`cat /dev/zero > /big; sleep 60`)
	if res.State != pipeline.Failed || !res.DiskFull || !strings.Contains(res.Reason, "left") {
		t.Errorf("%+v %s", res, out)
	}
	if err := b.Close(); err != nil { // waits until its files are gone
		t.Fatal(err)
	}
	b.reopen()
	ballast := filepath.Join(b.opts.Root, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 390<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Prepare(context.Background(), b.request(pipeline.Test{})); err == nil || !strings.Contains(err.Error(), "slipway gc") {
		t.Errorf("on a full disk: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	b.passes(`true`)
}
