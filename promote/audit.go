package promote

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slipway/internal/flock"

	"github.com/opencontainers/go-digest"
)

// Audit is the log of all that this root was asked to promote, also what was
// refused. Each line has the digest of the line before it, so that none can be
// changed or taken out; where the log stood is also said in every commit that
// promotes, so that nobody can cut its end off unseen.
type Audit struct{ Path string }

// Event is one line of the log.
type Event struct {
	N           int           `json:"n"`    // from 0
	Prev        digest.Digest `json:"prev"` // of the line before; of the first: a random one, which names the log
	At          time.Time     `json:"at"`
	What        string        `json:"what"` // "begin", "done", "rolled back", "refused", "lost", "undone", "failed"
	Promotion   string        `json:"promotion,omitempty"`
	Kind        Kind          `json:"kind,omitempty"`
	Environment string        `json:"environment,omitempty"`
	Images      []ImageChange `json:"images,omitempty"`
	Actor       string        `json:"actor,omitempty"`
	Commit      string        `json:"commit,omitempty"`
	Reason      string        `json:"reason,omitempty"`
	BreakGlass  []string      `json:"break_glass,omitempty"`
}

// position is where a log stands: its name, the number of its last line, and
// that line's digest.
type position struct {
	log  string
	n    int
	last digest.Digest
}

func (p position) String() string { return fmt.Sprintf("%s %d %s", p.log, p.n, p.last) }

// add writes an event, durably, and says where the log stands then.
func (a Audit) add(e Event) (at position, err error) {
	if err := os.MkdirAll(filepath.Dir(a.Path), 0o700); err != nil {
		return at, err
	}
	f, err := os.OpenFile(a.Path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return at, fmt.Errorf("open the audit log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := flock.Wait(context.Background(), f, flock.Exclusive, nil); err != nil { // who has it writes a line
		return at, fmt.Errorf("lock the audit log: %w", err)
	}
	end, err := wholeEnd(f)
	if err != nil {
		return at, err
	}
	at, err = lastLine(f, end)
	if err != nil {
		return at, err
	}
	e.N, e.Prev = at.n+1, at.last
	if e.N == 0 {
		e.Prev = digest.FromString(rand.Text())
		at.log = logName(e.Prev)
	}
	line, err := json.Marshal(e)
	if err != nil {
		return at, err
	}
	if err := f.Truncate(end); err != nil { // what a crash left of a line that nobody was promised
		return at, err
	}
	if _, err := f.WriteAt(append(line, '\n'), end); err != nil {
		return at, fmt.Errorf("write the audit log: %w", err)
	}
	return position{at.log, e.N, digest.FromBytes(line)}, f.Sync()
}

func logName(first digest.Digest) string { return first.Encoded()[:12] }

// wholeEnd is where the last whole line ends.
func wholeEnd(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end := info.Size()
	one := make([]byte, 1)
	for ; end > 0; end-- {
		if _, err := f.ReadAt(one, end-1); err != nil {
			return 0, err
		}
		if one[0] == '\n' {
			break
		}
	}
	return end, nil
}

// lastLine reads where the log stands: before the first line, that is number -1.
func lastLine(f *os.File, end int64) (position, error) {
	at := position{n: -1}
	if end == 0 {
		return at, nil
	}
	first, err := bufio.NewReader(io.NewSectionReader(f, 0, end)).ReadBytes('\n')
	if err != nil {
		return at, err
	}
	var e Event
	if err := json.Unmarshal(first, &e); err != nil {
		return at, fmt.Errorf("the audit log %s is damaged at line 1: %w; put a copy of it back", f.Name(), err)
	}
	at.log = logName(e.Prev)
	from := end - 1
	one := make([]byte, 1)
	for ; from > 0; from-- {
		if _, err := f.ReadAt(one, from-1); err != nil {
			return at, err
		}
		if one[0] == '\n' {
			break
		}
	}
	line := make([]byte, end-1-from)
	if _, err := f.ReadAt(line, from); err != nil {
		return at, err
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return at, fmt.Errorf("the audit log %s is damaged at its end: %w; put a copy of it back", f.Name(), err)
	}
	at.n, at.last = e.N, digest.FromBytes(line)
	return at, nil
}

// Export writes the whole log.
func (a Audit) Export(w io.Writer) error {
	data, err := os.ReadFile(a.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = w.Write(data[:bytes.LastIndexByte(data, '\n')+1])
	return err
}

// Audited is what a check of a log came to.
type Audited struct {
	Log     string  `json:"log"`
	Lines   int     `json:"lines"`
	Pinned  int     `json:"pinned"` // lines that commits speak of, and that are as they say
	Events  []Event `json:"-"`
	digests []digest.Digest
}

// ReadAudit checks the chain of an exported log.
func ReadAudit(name string, data []byte) (Audited, error) {
	var a Audited
	if len(data) > 0 && data[len(data)-1] != '\n' {
		return a, fmt.Errorf("%s ends within a line", name)
	}
	for text := range strings.Lines(string(data)) {
		line := strings.TrimSuffix(text, "\n")
		var e Event
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			return a, fmt.Errorf("%s:%d: %w", name, a.Lines+1, err)
		}
		switch {
		case e.N != a.Lines:
			return a, fmt.Errorf("%s:%d: it says that it is line %d: lines are missing, or were added", name, a.Lines+1, e.N+1)
		case a.Lines > 0 && e.Prev != a.digests[a.Lines-1]:
			return a, fmt.Errorf("%s:%d: the line before it is not the one that was there when it was written", name, a.Lines+1)
		case a.Lines == 0 && e.Prev.Validate() != nil:
			return a, fmt.Errorf("%s:1: %q does not name a log", name, e.Prev)
		case a.Lines == 0:
			a.Log = logName(e.Prev)
		}
		a.Events = append(a.Events, e)
		a.digests = append(a.digests, digest.FromString(line))
		a.Lines++
	}
	return a, nil
}

// Pin holds a log against what commits say about it.
func (a *Audited) Pin(all []Entry) error {
	for _, e := range all {
		var log string
		var n int
		var d digest.Digest
		if _, err := fmt.Sscanf(e.Audit, "%s %d %s", &log, &n, &d); err != nil || log != a.Log {
			continue // no promotion, or one of another root
		}
		if n < 0 || n >= a.Lines {
			return fmt.Errorf("commit %.12s (promotion %s) speaks of line %d, and the log ends at %d: its end was cut off", e.Commit, e.ID, n+1, a.Lines)
		}
		if a.digests[n] != d {
			return fmt.Errorf("commit %.12s (promotion %s) speaks of another line %d than the log has: the log was written anew", e.Commit, e.ID, n+1)
		}
		a.Pinned++
	}
	return nil
}

// VerifyAudit checks an exported log, or without a file this root's own, also
// against the history of all environments.
func (p *Promoter) VerifyAudit(ctx context.Context, file string) (Audited, error) {
	var data bytes.Buffer
	name := file
	if file == "" {
		name = p.Audit().Path
		if err := p.Audit().Export(&data); err != nil {
			return Audited{}, err
		}
	} else {
		text, err := os.ReadFile(file)
		if err != nil {
			return Audited{}, err
		}
		data.Write(text)
	}
	a, err := ReadAudit(name, data.Bytes())
	if err != nil {
		return a, err
	}
	state, err := p.Environments.Read(ctx)
	if err != nil {
		return a, err
	}
	for _, env := range state.Names() {
		history, err := state.History(env)
		if err != nil {
			return a, err
		}
		if err := a.Pin(history); err != nil {
			return a, err
		}
	}
	return a, nil
}
