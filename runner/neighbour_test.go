package runner_test

import (
	"context"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"slipway/pipeline"
	"slipway/runner"
)

// TestNeighbours measures how much a test is slowed down by a bomb beside it. Each
// may use a quarter of the machine's cores: else the kernel's own work, that of
// writing to the disk above all, has no core, and what is measured is that. It is
// a record for people, on a machine that does nothing else; what fails is a
// neighbour that hardly gets on any more.
func TestNeighbours(t *testing.T) {
	if os.Getenv("SLIPWAY_SOAK") == "" {
		t.Skip("a measurement: SLIPWAY_SOAK=1 makes it")
	}
	b := open(t)
	leave := func(q *runner.Request) {
		q.Binds = []runner.Bind{{Source: programs.hostile, Target: "/hostile", ReadOnly: true}}
	}
	works := map[string]string{
		"computes":     "head -c 200000000 /dev/zero | md5sum >/dev/null",
		"writes files": "for i in $(seq 300); do head -c 100000 /dev/zero > /f$i; done; md5sum /f* >/dev/null",
	}
	bombs := map[string]string{
		"forks":     "while true; do /hostile forks 200; done",
		"processor": "while true; do /hostile cpu 60000; done",
		"memory":    "while true; do /hostile memory 400; done",
		"shm":       "while true; do dd if=/dev/zero of=/dev/shm/x bs=1M count=60 2>/dev/null; done",
		"disk":      "while true; do dd if=/dev/zero of=/x bs=1M count=80 2>/dev/null; done",
		"inodes":    "while true; do /hostile files 30000; rm -r /many; done",
		"output":    "yes",
	}
	limits := pipeline.Resources{CPUs: float64(runtime.NumCPU()) / 4, Memory: 128 << 20, Pids: 128, Disk: 200 << 20}
	for work, script := range works {
		for _, name := range slices.Sorted(maps.Keys(bombs)) {
			before := b.times(t, script, limits)
			beside := median(b.beside(t, script, bombs[name], limits, leave))
			alone := median(append(before, b.times(t, script, limits)...)) // disks have moods
			slower := 100 * (float64(beside)/float64(alone) - 1)
			t.Logf("who %s, alone %.0f ms, beside the bomb of %s %.0f ms: %+.0f %%", work, 1e3*alone.Seconds(), name, 1e3*beside.Seconds(), slower)
			if slower > 300 {
				t.Errorf("who %s hardly gets on beside the bomb of %s", work, name)
			}
		}
	}
}

// beside gives the times of a script while a bomb goes off again and again.
func (b *bench) beside(t *testing.T, script, bomb string, limits pipeline.Resources, edit func(*runner.Request)) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		for ctx.Err() == nil { // those that are killed come again
			_, _ = b.Test(ctx, b.request(pipeline.Test{Command: []string{"sh", "-c", bomb}, Resources: limits}, edit), io.Discard)
		}
	}()
	defer func() { cancel(); <-over }()
	time.Sleep(500 * time.Millisecond) // let it go off
	return b.times(t, script, limits)
}

// times runs a script some times.
func (b *bench) times(t *testing.T, script string, limits pipeline.Resources) (took []time.Duration) {
	t.Helper()
	for range 5 {
		res, out := b.run(pipeline.Test{Command: []string{"sh", "-c", script}, Resources: limits})
		if res.State != pipeline.Passed {
			t.Fatalf("%+v\n%s", res, out)
		}
		took = append(took, res.Duration)
	}
	return took
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}
