package progress

import (
	"bytes"
	"fmt"
	"time"
)

// A live display keeps every line of a step to show them if it fails, and
// draws them at a few MB/s. inFull is how much of a step it gets in full; after
// that it gets the newest screenful at most every pause, and the end.
const (
	inFull   = 1 << 20
	screen   = 8 << 10
	pause    = 150 * time.Millisecond
	tooShort = 512 // not worth a remark
)

// thinner is one step's output on its way to a live display. A display that
// writes lines gets all of them and needs none of this.
type thinner struct {
	shown   int
	held    []byte // the newest output not shown
	skipped int    // bytes thrown away before held
	last    time.Time
}

// thin takes a piece of output and gives what is to be shown now.
func (t *thinner) thin(data []byte, at time.Time) []byte {
	if t.shown+len(data) <= inFull {
		t.shown += len(data)
		return data
	}
	t.held = append(t.held, data...)
	if over := len(t.held) - screen; over > 0 {
		t.skipped += over
		t.held = append(t.held[:0], t.held[over:]...)
	}
	if at.Sub(t.last) < pause {
		return nil
	}
	t.last = at
	return t.take()
}

// take gives what is held, with a remark about what is not.
func (t *thinner) take() []byte {
	out := t.held
	if t.skipped > 0 {
		// From a line's begin on, where there is one.
		if i := bytes.IndexByte(out, '\n'); i >= 0 && i < len(out)-1 {
			t.skipped += i + 1
			out = out[i+1:]
		}
		if t.skipped > tooShort {
			out = append(fmt.Appendf(nil, "\n… %d bytes not shown here …\n", t.skipped), out...)
		}
	}
	t.held, t.skipped = nil, 0
	return out
}
