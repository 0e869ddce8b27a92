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

	"gopkg.in/yaml.v3"

	"slipway/internal/git"
	"slipway/pipeline"
)

// Template is what a repository has to begin environments with.
type Template struct {
	Files  fs.FS           // the repository's directory
	Paths  []string        // of environment files in it
	Source pipeline.Source // of the images, for files that name none
	// Delivered names the files beside an environment file that its delivery
	// reads; nil: none does.
	Delivered func(pipeline.Deliver) ([]string, error)
}

// Begun says what Init did.
type Begun struct {
	Commit string   `json:"commit"`
	Added  []string `json:"added"`
	Kept   []string `json:"kept"` // were there before, and were left as they are
}

// Init puts the environment files of a template into the environments'
// repository, with the public keys that their gates name. What is there already
// stays as it is: from then on the repository is authoritative, and a template
// changes nothing.
func (p *Promoter) Init(ctx context.Context, t Template, actor string) (Begun, error) {
	files, err := t.collect()
	if err != nil {
		return Begun{}, err
	}
	e := p.Environments
	for range attempts {
		head, err := e.Repository.Head(ctx, e.Branch)
		if err != nil && !errors.Is(err, git.ErrNoBranch) {
			return Begun{}, err
		}
		done := Begun{Commit: head, Added: []string{}, Kept: []string{}}
		fresh := map[string][]byte{}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if head != "" {
				_, err := e.Repository.File(head, name)
				if err == nil {
					done.Kept = append(done.Kept, name)
					continue
				}
				if !errors.Is(err, fs.ErrNotExist) {
					return Begun{}, err
				}
			}
			done.Added = append(done.Added, name)
			fresh[name] = files[name]
		}
		if len(fresh) == 0 {
			return done, nil
		}
		proposal, err := e.Repository.Propose(git.Draft{
			Base: head, Files: fresh, Author: p.Sign, When: p.Now().UTC().Truncate(time.Second),
			Message: fmt.Sprintf("Begin with %s\n\nSlipway-Actor: %s\n", strings.Join(done.Added, ", "), oneLine(actor)),
		})
		if err != nil {
			return Begun{}, err
		}
		err = e.Repository.Push(ctx, e.Branch, proposal)
		var moved *git.Moved
		if errors.As(err, &moved) {
			continue
		}
		done.Commit = proposal.ID
		return done, err
	}
	return Begun{}, fmt.Errorf("%s of %s moves on faster than slipway can follow; try again", e.Branch, e.Repository)
}

// collect reads the files, by the path they get.
func (t Template) collect() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, from := range t.Paths {
		data, err := fs.ReadFile(t.Files, path.Clean(from))
		if err != nil {
			return nil, mistake("read the template %s: %w", from, err)
		}
		f, err := parseFile(from, data)
		if err != nil {
			return nil, err
		}
		if f.Environment.Source.Repository == "" && t.Source.Repository != "" {
			if data, err = setSource(from, data, t.Source); err != nil {
				return nil, err
			}
		}
		to := environmentPath(f.Environment.Name)
		if _, twice := files[to]; twice {
			return nil, mistake("two templates are for %s; give the environments different names", f.Environment.Name)
		}
		files[to] = data
		beside, err := t.beside(f)
		if err != nil {
			return nil, err
		}
		maps.Copy(files, beside)
	}
	return files, nil
}

// beside reads what an environment file names: keys, encrypted secrets, and what
// its delivery reads.
func (t Template) beside(f File) (map[string][]byte, error) {
	files := map[string][]byte{}
	take := func(name, why string) error {
		data, err := fs.ReadFile(t.Files, path.Join(path.Dir(f.Path), name))
		if err != nil {
			return mistake("%s: %s: %w; put the file beside it (`slipway keys export` prints the key that signs on this root)", f.Path, why, err)
		}
		files[path.Join(Dir, name)] = data
		return nil
	}
	for _, name := range f.Environment.Gates.Signers {
		if err := take(name, "it lists the signer "+name); err != nil {
			return nil, err
		}
	}
	for name, s := range f.Environment.Secrets {
		if s.Age == "" {
			continue
		}
		if err := take(s.Age, "the secret "+name); err != nil {
			return nil, err
		}
	}
	if t.Delivered != nil {
		names, err := t.Delivered(f.Environment.Deliver)
		if err != nil {
			return nil, mistake("%s: %w", f.Path, err)
		}
		for _, name := range names {
			if err := take(name, "deliver names "+name); err != nil {
				return nil, err
			}
		}
	}
	a := f.Environment.Gates.Approvals
	if a == nil {
		return files, nil
	}
	for _, name := range a.From {
		list, err := fs.Glob(t.Files, path.Join(path.Dir(f.Path), name, "*.pub"))
		if err != nil {
			return nil, mistake("%s: approvals from %q: %w", f.Path, name, err)
		}
		for i := range list {
			list[i] = path.Join(name, path.Base(list[i]))
		}
		if len(list) == 0 {
			list = []string{strings.TrimSuffix(name, ".pub") + ".pub"}
		}
		for _, key := range list {
			if err := take(key, "it lets "+name+" approve"); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// setSource writes under the name which pipeline an environment's images come from.
func setSource(file string, data []byte, s pipeline.Source) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	top := doc.Content[0]
	name := value(top, "name")
	want := fmt.Sprintf("source: {repository: %q, pipeline: %q}", s.Repository, s.Pipeline)
	tell := mistake("%s: write under name: %s", file, want)
	if top.Style&yaml.FlowStyle != 0 || name == nil {
		return nil, tell
	}
	t := text{data}
	at := t.offset(name)
	if at < 0 {
		return nil, tell
	}
	edited := append(slices.Clone(data), []byte(t.lineEnd()+want+t.lineEnd())...)
	if end := strings.IndexByte(string(data[at:]), '\n'); end >= 0 {
		edited = splice{at + end + 1, 0, want + t.lineEnd()}.apply(data)
	}
	after, err := parseFile(file, edited)
	if err != nil || after.Environment.Source != s {
		return nil, tell
	}
	return edited, nil
}
