package mask

import "io"

// Writer hides secrets in what is written to it, wherever the writes are cut. It
// keeps back the end of a write while that may be the beginning of a secret, and
// nothing else: fewer bytes than the longest secret takes in its longest form.
// Time alone never sends it on, or a secret printed slowly would get through. It is
// for one goroutine.
type Writer struct {
	mask   *Mask
	out    io.Writer
	held   []byte
	hidden int // so many of the held bytes belong to a secret whose mark is written
}

// chunk bounds what is copied at once.
const chunk = 32 << 10

// Writer hides the secrets in what is written through it to out.
func (m *Mask) Writer(out io.Writer) *Writer { return &Writer{mask: m, out: out} }

// Write takes all of p, or gives the error of the writer below.
func (w *Writer) Write(p []byte) (int, error) {
	if w.mask == nil || len(w.mask.patterns) == 0 {
		return w.out.Write(p)
	}
	for done := 0; done < len(p); {
		n := min(chunk, len(p)-done)
		w.held = append(w.held, p[done:done+n]...)
		if err := w.send(w.mask.undecided(w.held)); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// Close sends on what is held back. It does not close the writer below.
func (w *Writer) Close() error { return w.send(len(w.held)) }

// send writes the held bytes before upTo, and hides the secrets that begin there.
// Secrets that overlap get one mark.
func (w *Writer) send(upTo int) error {
	text, end := w.held, w.hidden
	for at := 0; at < upTo; {
		start, stop := w.mask.next(text, at)
		if stop == 0 || start >= upTo {
			break
		}
		if start >= end {
			if err := w.write(text[end:start]); err != nil {
				return err
			}
			if err := w.write([]byte(Mark)); err != nil {
				return err
			}
		}
		end, at = max(end, stop), start+1
	}
	if end < upTo {
		if err := w.write(text[end:upTo]); err != nil {
			return err
		}
	}
	w.hidden = max(0, end-upTo)
	w.held = append(w.held[:0], text[upTo:]...)
	return nil
}

func (w *Writer) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := w.out.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}
