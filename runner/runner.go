// Package runner runs one command in one sandbox made from one exact image, and
// says what came of it. The image's layers are mounted where they lie: nothing
// is pulled, unpacked or copied.
//
// It refuses to guess: a test has passed only when the agent inside the sandbox
// says so in its completion record, for this very request, and the bytes of
// output it counted are the bytes that arrived. It refuses to read a tag, to
// keep a sandbox for a second test, and to reach the network unless its caller
// passes the way out. A failing command is a Result; an error means that the
// sandbox itself broke, and the same test may be tried again.
//
// Everything it makes (processes, mounts, cgroups, namespaces, files) is gone
// after Close, and after a crash at the latest when the next Open has settled.
package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"slipway/pipeline"
	"slipway/runner/wire"
)

// Options of a Runner.
type Options struct {
	Helper   string             // path of the program slipway-sandbox
	Agent    string             // path of the program slipway-agent
	Root     string             // directory for writable layers, on a filesystem overlayfs can write to; made when missing
	Cgroup   string             // absolute parent of the sandboxes' cgroups, such as "/slipway-1a2b3c4d/test"; made and removed
	Defaults pipeline.Resources // for limits a test leaves open; zero fields take the built-in ones
	Log      zerolog.Logger
}

// Runner makes sandboxes. Its methods may be called at the same time.
type Runner struct {
	opts   Options
	helper *helper
	ids    atomic.Uint64

	mu     sync.Mutex
	closed bool
	open   map[*Sandbox]struct{} // prepared, not closed
	live   sync.WaitGroup        // sandboxes that are not removed yet

	end    sync.Once
	endErr error
}

// Open starts the helper and returns at once: the first sandbox waits for it,
// and so meets whatever went wrong with it. ctx covers nothing beyond the call.
// What a crash left below Root and Cgroup is reaped meanwhile; see Settle.
func Open(ctx context.Context, o Options) (*Runner, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Helper == "" || o.Agent == "" || !filepath.IsAbs(o.Root) || !filepath.IsAbs(o.Cgroup) || filepath.Clean(o.Cgroup) == "/" {
		return nil, errors.New("open the runner: it needs the helper's and the agent's path, an absolute root and an absolute cgroup other than /")
	}
	o.Defaults = complete(o.Defaults, builtIn())
	h, err := startHelper(o)
	if err != nil {
		return nil, fmt.Errorf("open the runner: %w", err)
	}
	return &Runner{opts: o, helper: h, open: map[*Sandbox]struct{}{}}, nil
}

// Settle waits until everything a crash left behind is removed.
func (r *Runner) Settle(ctx context.Context) error {
	_, err := r.helper.call(ctx, wire.Call{Op: wire.Settle})
	return err
}

// Clear removes all sandboxes, those that still run included, and makes no more.
// What they were lent is given back when it returns.
func (r *Runner) Clear() {
	r.mu.Lock()
	r.closed = true
	open := slices.Collect(maps.Keys(r.open))
	r.mu.Unlock()
	for _, s := range open {
		s.Close()
	}
	r.live.Wait()
}

// Close clears, and ends the helper. Closing again does nothing.
func (r *Runner) Close() error {
	r.Clear()
	r.end.Do(func() { r.endErr = r.helper.close() })
	return r.endErr
}

var errClosed = errors.New("the runner is closed")

// enter counts a sandbox in, unless the runner is closed.
func (r *Runner) enter() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	r.live.Add(1)
	return nil
}

// keep makes a prepared sandbox one that Close closes.
func (r *Runner) keep(s *Sandbox) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	r.open[s] = struct{}{}
	return nil
}

func (r *Runner) forget(s *Sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, s)
}

// Test runs req's command in a sandbox of its own and streams its output to
// out, standard output and error in the order they were written. ctx covers the
// run: when it ends, everything in the sandbox is killed and the Result is
// Canceled. Removing the sandbox goes on after Test returns; Close waits for it.
func (r *Runner) Test(ctx context.Context, req Request, out io.Writer) (pipeline.Result, error) {
	since := time.Now()
	s, err := r.Prepare(ctx, req)
	if err != nil {
		if ctx.Err() != nil {
			return canceled(ctx), nil
		}
		return pipeline.Result{}, err
	}
	defer s.Close()
	return s.Exec(ctx, since, out)
}

// newID is unique within the life of a runner.
func (r *Runner) newID() string { return strconv.FormatUint(r.ids.Add(1), 10) }

// monotonic is CLOCK_MONOTONIC in nanoseconds, which the agent reads too:
// namespaces share it.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // fails for no clock that exists
	return t.Nano()
}

// builtIn are the limits where nobody sets any: all cores, memory for a compiler
// but never most of a small machine, and no more disk than a large build needs.
func builtIn() pipeline.Resources {
	memory := int64(4 << 30)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		memory = min(memory, int64(info.Totalram)*int64(info.Unit)/4*3)
	}
	return pipeline.Resources{CPUs: float64(runtime.NumCPU()), Memory: memory, Pids: 1024, Disk: 10 << 30}
}

// complete fills the zero fields of a limit.
func complete(r, from pipeline.Resources) pipeline.Resources {
	if r.CPUs <= 0 {
		r.CPUs = from.CPUs
	}
	if r.Memory <= 0 {
		r.Memory = from.Memory
	}
	if r.Pids <= 0 {
		r.Pids = from.Pids
	}
	if r.Disk <= 0 {
		r.Disk = from.Disk
	}
	return r
}

// defaultTimeout of a test that sets none.
const defaultTimeout = time.Hour
