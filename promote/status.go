package promote

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// EnvironmentStatus says what an environment should run, since when and because
// of whom, and what it really runs.
type EnvironmentStatus struct {
	Name    string        `json:"name"`
	Commit  string        `json:"commit"` // that changed its file last
	Deliver string        `json:"deliver,omitempty"`
	Images  []ImageReport `json:"images"`
	Drift   string        `json:"drift,omitempty"` // why what runs is not what was promoted
	Unknown string        `json:"unknown,omitempty"`
	Error   string        `json:"error,omitempty"` // why its file cannot be read
}

// ImageReport is one image of it.
type ImageReport struct {
	Name       string          `json:"name"`
	Repository string          `json:"repository"`
	Digest     digest.Digest   `json:"digest,omitempty"`
	Since      *time.Time      `json:"since,omitempty"`
	Promotion  string          `json:"promotion,omitempty"`
	By         string          `json:"by,omitempty"`
	Evidence   []digest.Digest `json:"evidence,omitempty"`
	Running    *ImageStatus    `json:"running,omitempty"` // absent where nobody can tell
}

// Status reports on environments: those named, or all.
func (p *Promoter) Status(ctx context.Context, names ...string) ([]EnvironmentStatus, error) {
	state, err := p.Environments.Read(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		names = state.Names()
	}
	all := []EnvironmentStatus{}
	for _, name := range names {
		s, err := p.status(ctx, state, name)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (p *Promoter) status(ctx context.Context, state State, name string) (EnvironmentStatus, error) {
	s := EnvironmentStatus{Name: name, Images: []ImageReport{}}
	history, err := state.History(name)
	if err != nil {
		return s, err
	}
	s.Commit = history[0].Commit
	file, err := state.File(name)
	if err != nil {
		s.Error = err.Error()
		return s, nil
	}
	s.Deliver = file.Environment.Deliver.Kind
	running := map[string]ImageStatus{}
	if d, err := p.deliverer(file); err != nil {
		s.Unknown = err.Error()
	} else if status, err := d.Status(ctx, delivery(file, nil, history[0].ID, state)); err != nil {
		s.Unknown = err.Error()
	} else {
		s.Drift = status.drift(file)
		for _, im := range status.Images {
			running[im.Name] = im
		}
	}
	for _, image := range sorted(file.Environment.Images) {
		im := file.Environment.Images[image]
		r := ImageReport{Name: image, Repository: repositoryOf(image, im), Digest: im.Digest}
		if e, ok := since(history, image, im.Digest); ok {
			r.Since, r.Promotion, r.By, r.Evidence = &e.When, e.ID, e.Actor, e.Evidence
		}
		if got, ok := running[image]; ok {
			r.Running = &got
		}
		s.Images = append(s.Images, r)
	}
	return s, nil
}

// since finds the commit from which on an image has run unchanged.
func since(newestFirst []Entry, image string, d digest.Digest) (Entry, bool) {
	if d == "" {
		return Entry{}, false
	}
	found, ok := Entry{}, false
	for _, e := range newestFirst {
		if e.Runs[image] != d {
			break
		}
		found, ok = e, true
	}
	return found, ok
}

// drift says where what runs is not what a file says; empty where it is, or nobody knows.
func (s Status) drift(f File) string {
	if !s.Known {
		return ""
	}
	running := map[string]ImageStatus{}
	for _, im := range s.Images {
		running[im.Name] = im
	}
	for _, name := range slices.Sorted(maps.Keys(f.Environment.Images)) {
		want := f.Environment.Images[name].Digest
		if got := running[name].Digest; got != want {
			return fmt.Sprintf("%s runs %s, not %s", name, orNothing(got), orNothing(want))
		}
	}
	return ""
}
