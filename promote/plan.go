package promote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/internal/git"
)

// Request asks for a promotion.
type Request struct {
	Environment string
	Images      []Wanted
	From        string // the environment that images without a digest are taken from
	Actor       string
	Base        string // the commit the environment must still be at; empty: any
	BreakGlass  string // why gates should be set aside; empty: they should not
}

// Plan is what a promotion would do. Nothing of it is done.
type Plan struct {
	Promotion   string        `json:"promotion"` // its ID
	Environment string        `json:"environment"`
	Base        string        `json:"base"` // commit that changed the environment last
	Images      []ImageChange `json:"images"`
	Table       Table         `json:"gates"`
	Diff        string        `json:"diff"`

	request Request
	state   State
	file    File
	images  []found // beside request.Images
	files   map[string][]byte
	record  Record

	rollback RollbackRequest // of a rollback
}

// Nothing says whether the environment runs all of it already.
func (p *Plan) Nothing() bool { return len(p.Images) == 0 }

// Plan says what a promotion would do, and whether it may.
func (p *Promoter) Plan(ctx context.Context, r Request) (*Plan, error) {
	state, err := p.Environments.Read(ctx)
	if err != nil {
		return nil, err
	}
	return p.planAt(ctx, state, r)
}

func (p *Promoter) planAt(ctx context.Context, state State, r Request) (*Plan, error) {
	file, err := state.File(r.Environment)
	if err != nil {
		return nil, err
	}
	if r.Images, err = complete(state, file, r); err != nil {
		return nil, err
	}
	history, err := state.History(r.Environment)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Environment: r.Environment, request: r, state: state, file: file, Base: history[0].Commit}
	if r.Base != "" && r.Base != plan.Base {
		return nil, &Lost{r.Environment, history[0]}
	}
	plan.Promotion = identify(r.Environment, plan.Base, r.Images)
	if plan.Images = changed(history[0].Runs, r.Images); len(plan.Images) == 0 {
		return plan, nil
	}
	if err := p.change(ctx, plan); err != nil {
		return nil, err
	}
	if err := p.ask(ctx, plan); err != nil {
		return nil, err
	}
	plan.record = plan.describe()
	return plan, nil
}

// identify names a promotion by what it does and where it starts from: the same
// request has the same name until the environment changes.
func identify(environment, base string, images []Wanted) string {
	h := sha256.New()
	fmt.Fprintln(h, environment, base)
	for _, w := range slices.SortedFunc(slices.Values(images), func(a, b Wanted) int { return strings.Compare(a.Name, b.Name) }) {
		fmt.Fprintln(h, w.Name, w.Digest)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// Mistake is what whoever asked has to correct.
type Mistake struct{ error }

func (m *Mistake) Unwrap() error { return m.error }

// Wrong says that whoever asked has to correct something.
func Wrong(format string, args ...any) error { return mistake(format, args...) }

func mistake(format string, args ...any) error { return &Mistake{fmt.Errorf(format, args...)} }

// complete gives every image its name in the file and its digest.
func complete(state State, file File, r Request) ([]Wanted, error) {
	if len(r.Images) == 0 {
		return nil, mistake("no image is named")
	}
	images := slices.Clone(r.Images)
	seen := map[string]bool{}
	for i, w := range images {
		for _, name := range sorted(file.Environment.Images) {
			if w.Repository != "" && file.Environment.Images[name].Repository == w.Repository {
				w.Name, images[i].Name = name, name
			}
		}
		if _, known := file.Environment.Images[w.Name]; !known {
			return nil, mistake("%s names no image %s; it has %s", file.Path, w.Name, strings.Join(slices.Sorted(maps.Keys(file.Environment.Images)), ", "))
		}
		if seen[w.Name] {
			return nil, mistake("image %s is named twice", w.Name)
		}
		seen[w.Name] = true
		if w.Digest != "" {
			if err := w.Digest.Validate(); err != nil || w.Digest.Algorithm() != digest.SHA256 {
				return nil, mistake("promote %s to %s: %q is not a sha256 digest", w.Name, r.Environment, w.Digest)
			}
			continue
		}
		if r.From == "" {
			return nil, mistake("which %s? write %s@sha256:…, or name an environment that runs it with --from", w.Name, w.Name)
		}
		from, err := state.File(r.From)
		if err != nil {
			return nil, err
		}
		im, ok := from.Environment.Images[w.Name]
		if !ok || im.Digest == "" {
			return nil, mistake("%s runs no %s; `slipway env status %s` says what it runs", r.From, w.Name, r.From)
		}
		images[i].Digest, images[i].Repository = im.Digest, repositoryOf(w.Name, im)
	}
	return images, nil
}

// change makes the files as they would be, and their difference.
func (p *Promoter) change(ctx context.Context, plan *Plan) error {
	edited := plan.file.Data
	for _, im := range plan.Images {
		var err error
		if edited, err = setDigest(plan.file.Path, edited, im.Name, im.Digest.String()); err != nil {
			return err
		}
	}
	after, err := parseFile(plan.file.Path, edited)
	if err != nil {
		return err
	}
	plan.files, err = p.filesFor(ctx, plan.state, after, runs(plan.file), plan.Promotion)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(plan.files)) {
		before, err := plan.state.repo.File(plan.state.Commit, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		plan.Diff += unified(name, before, plan.files[name])
	}
	return nil
}

// filesFor are the files that change in the environments' repository for f to
// hold: f itself, and what its delivery keeps there.
func (p *Promoter) filesFor(ctx context.Context, s State, f File, before map[string]digest.Digest, promotion string) (map[string][]byte, error) {
	files := map[string][]byte{f.Path: f.Data}
	d, err := p.deliverer(f)
	if err != nil {
		return nil, err
	}
	what := delivery(f, before, promotion, s)
	if err := d.Check(ctx, what); err != nil {
		return nil, fmt.Errorf("%s: deliver: %w", f.Path, err)
	}
	g, ok := d.(*GitDelivery)
	if !ok {
		return files, nil
	}
	more, err := g.sameCommit(what, func(name string) ([]byte, error) { return s.repo.File(s.Commit, name) })
	if err != nil {
		return nil, fmt.Errorf("%s: deliver: %w", f.Path, err)
	}
	maps.Copy(files, more)
	return files, nil
}

// runs is what a file says is running.
func runs(f File) map[string]digest.Digest {
	all := map[string]digest.Digest{}
	for name, im := range f.Environment.Images {
		if im.Digest != "" {
			all[name] = im.Digest
		}
	}
	return all
}

// ask gathers the facts and decides.
func (p *Promoter) ask(ctx context.Context, plan *Plan) error {
	g, err := p.gathering(plan.state, plan.file)
	if err != nil {
		return err
	}
	facts := Facts{
		Now: p.Now(), Promotion: plan.Promotion, Environment: plan.file.Environment,
		Actor: plan.request.Actor, BreakGlass: plan.request.BreakGlass,
	}
	for _, w := range plan.request.Images {
		at, err := g.locate(ctx, w)
		if err != nil {
			return err
		}
		f, err := g.image(ctx, w, at)
		if err != nil {
			return err
		}
		plan.images = append(plan.images, at)
		facts.Images = append(facts.Images, f)
	}
	plan.Table = Check(facts)
	if plan.request.From == "" && len(facts.Images) > 0 {
		for _, s := range facts.Images[0].Ran {
			plan.request.From = s.Environment
		}
	}
	return nil
}

// describe is what the commit will say.
func (p *Plan) describe() Record {
	r := Record{
		ID: p.Promotion, Kind: Promoted, Environment: p.Environment, Images: p.Images, From: p.request.From,
		Evidence: p.Table.Evidence(), Actor: p.request.Actor, Config: p.state.Commit,
	}
	for _, name := range slices.Sorted(maps.Keys(p.Table.Sources)) {
		s := p.Table.Sources[name]
		r.Sources = append(r.Sources, fmt.Sprintf("%s %s %s", name, s.Commit, s.Repository))
	}
	for _, row := range p.Table.Rows {
		if row.SetAside != "" {
			r.BreakGlass = append(r.BreakGlass, fmt.Sprintf("%s set aside by %s (asked for: %s)", row.Gate, row.SetAside, p.request.BreakGlass))
		}
	}
	slices.Sort(r.BreakGlass)
	r.BreakGlass = slices.Compact(r.BreakGlass)
	return r
}

// draft is the commit of a plan.
func (p *Promoter) draft(plan *Plan) git.Draft {
	return git.Draft{
		Base: plan.state.Commit, Files: plan.files, Author: p.Sign,
		When: p.Now().UTC().Truncate(1e9), Message: plan.record.message(),
	}
}

// environmentPath is where env init puts an environment.
func environmentPath(name string) string { return path.Join(Dir, name+".yml") }
