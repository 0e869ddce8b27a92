package promote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/git"
	"slipway/pipeline"
)

// Dir is where environment files and their keys lie in their repository.
const Dir = "environments"

// Environments are the environment files on one branch of a repository.
type Environments struct {
	Repository *git.Repository
	Branch     string
}

// State is the environments as one commit has them.
type State struct {
	Commit string
	repo   *git.Repository
	paths  map[string]string // file by environment
}

// File is one environment.
type File struct {
	Path        string
	Data        []byte
	Environment *pipeline.Environment
}

// Read reads what the branch says now.
func (e Environments) Read(ctx context.Context) (State, error) {
	head, err := e.Repository.Head(ctx, e.Branch)
	if errors.Is(err, git.ErrNoBranch) || errors.Is(err, fs.ErrNotExist) {
		return State{}, mistake("%w; `slipway env init` puts a repository's environments there", err)
	}
	if err != nil {
		return State{}, err
	}
	return e.at(head)
}

// at reads the environments of a commit that Read has made readable.
func (e Environments) at(commit string) (State, error) {
	s := State{Commit: commit, repo: e.Repository, paths: map[string]string{}}
	names, err := e.Repository.List(commit, Dir)
	if err != nil {
		return State{}, err
	}
	for _, name := range names {
		if env, ok := strings.CutSuffix(name, ".yml"); ok {
			s.paths[env] = path.Join(Dir, name)
		}
	}
	return s, nil
}

// Names lists the environments, sorted.
func (s State) Names() []string { return slices.Sorted(maps.Keys(s.paths)) }

// File reads the file of an environment.
func (s State) File(name string) (File, error) {
	where, ok := s.paths[name]
	if !ok {
		return File{}, &NoEnvironment{Name: name, Known: s.Names()}
	}
	data, err := s.repo.File(s.Commit, where)
	if err != nil {
		return File{}, err
	}
	f, err := parseFile(where, data)
	if err == nil && f.Environment.Name != name {
		err = fmt.Errorf("%s names its environment %s; name both alike", where, f.Environment.Name)
	}
	return f, err
}

func parseFile(where string, data []byte) (File, error) {
	env, err := pipeline.ParseEnvironment(where, data)
	if err != nil {
		return File{}, err
	}
	return File{where, data, env}, nil
}

// beside reads a file that an environment file names.
func (s State) beside(f File, name string) ([]byte, error) {
	return s.repo.File(s.Commit, path.Join(path.Dir(f.Path), name))
}

// NoEnvironment says that there is no environment of this name.
type NoEnvironment struct {
	Name  string
	Known []string
}

func (e *NoEnvironment) Error() string {
	known := "there is none yet; `slipway env init` puts a repository's environments there"
	if len(e.Known) > 0 {
		known = "there are " + strings.Join(e.Known, ", ")
	}
	return fmt.Sprintf("no environment %s: %s", e.Name, known)
}

// Entry is one commit of an environment's history.
type Entry struct {
	Record
	Commit string                   `json:"commit"`
	When   time.Time                `json:"when"`
	Runs   map[string]digest.Digest `json:"runs"` // by image, after it
	data   []byte
}

// History gives what an environment went through, the newest first.
func (s State) History(name string) ([]Entry, error) {
	where, ok := s.paths[name]
	if !ok {
		return nil, &NoEnvironment{Name: name, Known: s.Names()}
	}
	var all []Entry
	err := s.repo.Walk(s.Commit, where, func(c git.Commit, data []byte) (bool, error) {
		e := Entry{Record: recordOf(c), Commit: c.ID, When: c.When, Runs: map[string]digest.Digest{}, data: data}
		e.Environment = name
		if e.Images == nil {
			e.Images = []ImageChange{} // JSON has a list there
		}
		if f, err := parseFile(where, data); err == nil { // what is wrong ran nothing
			for image, im := range f.Environment.Images {
				if im.Digest != "" {
					e.Runs[image] = im.Digest
				}
			}
		}
		all = append(all, e)
		return true, nil
	})
	return all, err
}

// stretches gives the times in which an environment ran an image's digest. A
// commit cannot have come before the one it follows, whatever it says.
func stretches(name string, newestFirst []Entry, image string, d digest.Digest) []Stretch {
	var all []Stretch
	var at time.Time
	for _, e := range slices.Backward(newestFirst) {
		if e.When.After(at) {
			at = e.When
		}
		last := len(all) - 1
		running := last >= 0 && all[last].To.IsZero()
		switch has := e.Runs[image] == d; {
		case has && !running:
			all = append(all, Stretch{Environment: name, From: at})
		case !has && running:
			all[last].To = at
			all[last].Failed = e.Kind == RolledBack && e.Reason != ""
		}
	}
	return all
}

// before gives the state that a rollback goes back to: what ran before the
// promotion that counts now. A rollback undoes a promotion, and both are left out.
func before(newestFirst []Entry) (Entry, bool) {
	var stack []Entry
	for _, e := range slices.Backward(newestFirst) {
		if len(stack) > 0 && maps.Equal(stack[len(stack)-1].Runs, e.Runs) {
			continue // only configuration changed
		}
		if e.Kind == RolledBack {
			i := len(stack) - 1
			for i >= 0 && !maps.Equal(stack[i].Runs, e.Runs) {
				i--
			}
			if i >= 0 {
				stack = stack[:i+1]
				continue
			}
		}
		stack = append(stack, e)
	}
	if len(stack) < 2 {
		return Entry{}, false
	}
	return stack[len(stack)-2], true
}
