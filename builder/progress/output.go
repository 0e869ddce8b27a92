package progress

import (
	"io"
	"os"
	"sync"

	"github.com/containerd/console"
)

// output passes writes on and keeps the first error, after which it writes
// nothing more: BuildKit's display would go on for ever into a closed pipe.
type output struct {
	w       io.Writer
	noColor bool
	sgr     filter

	mu     sync.Mutex
	failed error
}

func newOutput(w io.Writer, noColor bool) *output { return &output{w: w, noColor: noColor} }

func (o *output) Write(p []byte) (int, error) {
	if err := o.err(); err != nil {
		return 0, err
	}
	dt := p
	if o.noColor {
		dt = o.sgr.strip(p)
	}
	if _, err := o.w.Write(dt); err != nil {
		o.mu.Lock()
		o.failed = err
		o.mu.Unlock()
		return 0, err
	}
	return len(p), nil
}

func (o *output) err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// terminal is nil when the output is none.
func (o *output) terminal() *terminal {
	f, ok := o.w.(*os.File)
	if !ok {
		return nil
	}
	if _, err := console.ConsoleFromFile(f); err != nil {
		return nil
	}
	return &terminal{File: f, out: o}
}

// terminal is an output that BuildKit's display can ask for its size.
type terminal struct {
	*os.File
	out *output
}

func (t *terminal) Write(p []byte) (int, error) { return t.out.Write(p) }

// filter takes colours and weights (CSI … m, ECMA-48 §8.3.117) out of a stream
// and leaves cursor movements alone. Sequences may be split between writes.
type filter struct{ held []byte }

func (f *filter) strip(p []byte) []byte {
	out := make([]byte, 0, len(p)+len(f.held))
	for _, b := range p {
		switch {
		case len(f.held) == 0 && b == 0x1b, len(f.held) == 1 && b == '[':
			f.held = append(f.held, b)
		case len(f.held) >= 2 && (b >= '0' && b <= '9' || b == ';' || b == ':'):
			f.held = append(f.held, b)
		case len(f.held) >= 2 && b == 'm':
			f.held = f.held[:0]
		default:
			out = append(out, f.held...)
			f.held = f.held[:0]
			if b == 0x1b {
				f.held = append(f.held, b)
			} else {
				out = append(out, b)
			}
		}
	}
	return out
}
