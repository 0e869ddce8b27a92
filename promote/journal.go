package promote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/flock"
	"slipway/internal/git"
)

// step is how far a promotion has come. Each is on the disk before what comes
// after it is begun.
type step string

const (
	stepBegin     step = "begin"     // nothing is changed yet, but for blobs that were copied
	stepPush      step = "push"      // a commit is made, and may be on the branch
	stepCommitted step = "committed" // it is on the branch
	stepDelivered step = "delivered" // and runs, unchecked
	stepUndo      step = "undo"      // it failed; a commit that takes it back may be on the branch
	stepUndone    step = "undone"    // that is on the branch
)

// line is one step in a journal.
type line struct {
	Step   step       `json:"step"`
	At     time.Time  `json:"at"`
	Record *Record    `json:"record,omitempty"` // of stepBegin
	Draft  *git.Draft `json:"draft,omitempty"`  // of stepPush and stepUndo: the commit can be made again
	Old    []byte     `json:"old,omitempty"`    // of stepPush: the environment file before
	Commit string     `json:"commit,omitempty"`
	Reason string     `json:"reason,omitempty"` // of stepUndo
	Keep   bool       `json:"keep,omitempty"`   // of stepPush: what fails is not taken back
}

// journal is the write-ahead log of the one promotion that is under way in an
// environment, on this root. Its lock is held while it is open.
type journal struct {
	path  string
	lock  *os.File
	lines []line
}

// errBusy says that another process of this root promotes to the environment.
var errBusy = errors.New("another promotion to it is under way on this root")

// openJournal locks an environment. Without wait it gives errBusy where somebody else has it.
func openJournal(ctx context.Context, dir, environment string, wait bool) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, environment+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if got, err := flock.Try(lock, flock.Exclusive); !got && err == nil && !wait {
		return nil, errors.Join(errBusy, lock.Close())
	}
	if err := flock.Wait(ctx, lock, flock.Exclusive, nil); err != nil { // one that we have may be locked again
		return nil, errors.Join(err, lock.Close())
	}
	j := &journal{path: filepath.Join(dir, environment+".journal"), lock: lock}
	if j.lines, err = readJournal(j.path); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return j, nil
}

// readJournal reads the whole lines of a journal; one that was cut off was not relied on.
func readJournal(path string) ([]line, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []line
	for text := range bytes.Lines(data) {
		if !bytes.HasSuffix(text, []byte("\n")) {
			break
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("the journal %s is damaged: %w; look at `slipway env history`, then remove it", path, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// last is the step that was reached; the zero line where there is none.
func (j *journal) last() line {
	if len(j.lines) == 0 {
		return line{}
	}
	return j.lines[len(j.lines)-1]
}

// find gives the newest line of a step.
func (j *journal) find(s step) (line, bool) {
	for i := len(j.lines) - 1; i >= 0; i-- {
		if j.lines[i].Step == s {
			return j.lines[i], true
		}
	}
	return line{}, false
}

// add writes a step durably: the file is new, or grows by a line.
func (j *journal) add(l line) (err error) {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	whole, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("keep the journal: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	at := int64(bytes.LastIndexByte(whole, '\n') + 1)
	if err := f.Truncate(at); err != nil {
		return err
	}
	if _, err := f.WriteAt(append(text, '\n'), at); err != nil {
		return fmt.Errorf("keep the journal: %w", err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if fresh {
		if err := syncDir(filepath.Dir(j.path)); err != nil {
			return err
		}
	}
	j.lines = append(j.lines, l)
	return nil
}

// end forgets what was done; the audit log knows it.
func (j *journal) end() error {
	j.lines = nil
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(j.path))
}

// Close lets others promote.
func (j *journal) Close() error { return j.lock.Close() }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
