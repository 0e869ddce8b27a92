package promote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/attest"
	"slipway/internal/git"
	"slipway/internal/registry"
	"slipway/pipeline"
)

// found is where an image is now.
type found struct {
	repo registry.Repository
	desc ocispec.Descriptor
}

// gathering collects the facts for one environment as one commit has it.
type gathering struct {
	*Promoter
	state     State
	file      File
	signers   []attest.Key
	approvers []approver
	code      *git.Repository // of the environment's source; opened when it is needed
	head      string          // of the gates' branch there
	headErr   error
}

// approver is a key that may approve.
type approver struct {
	name  string
	email string
	key   attest.Key
}

func (p *Promoter) gathering(state State, file File) (*gathering, error) {
	g := &gathering{Promoter: p, state: state, file: file}
	for _, name := range file.Environment.Gates.Signers {
		data, err := state.beside(file, name)
		if err != nil {
			return nil, fmt.Errorf("%s lists the signer %s: %w; commit the key beside it", file.Path, name, err)
		}
		key, err := attest.ParseKey(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path.Join(path.Dir(file.Path), name), err)
		}
		g.signers = append(g.signers, key)
	}
	if a := file.Environment.Gates.Approvals; a != nil {
		for _, from := range a.From {
			if err := g.addApprovers(from); err != nil {
				return nil, err
			}
		}
	}
	return g, nil
}

// addApprovers adds the key NAME.pub, or those in the directory NAME.
func (g *gathering) addApprovers(name string) error {
	if strings.Contains(name, "..") || path.IsAbs(name) {
		return fmt.Errorf("%s: approvals from %q: write the name of a key beside the environment file", g.file.Path, name)
	}
	files, err := g.state.repo.List(g.state.Commit, path.Join(path.Dir(g.file.Path), name))
	if err != nil {
		return err
	}
	for i, f := range files {
		files[i] = path.Join(name, f)
	}
	if len(files) == 0 {
		files = []string{strings.TrimSuffix(name, ".pub") + ".pub"}
	}
	for _, f := range files {
		if !strings.HasSuffix(f, ".pub") {
			continue
		}
		data, err := g.state.beside(g.file, f)
		if err != nil {
			return fmt.Errorf("%s lets %s approve: %w; commit the public key beside it", g.file.Path, name, err)
		}
		key, err := attest.ParseKey(data)
		if err != nil {
			return fmt.Errorf("%s: %w", path.Join(path.Dir(g.file.Path), f), err)
		}
		short := strings.TrimSuffix(path.Base(f), ".pub")
		g.approvers = append(g.approvers, approver{short, emailOf(short, data), key})
	}
	return nil
}

// emailOf finds whose key it is: its file bears the address, or a comment above it does.
func emailOf(name string, file []byte) string {
	for line := range strings.Lines(string(file)) {
		if address, ok := strings.CutPrefix(strings.TrimSpace(line), "# email:"); ok {
			return strings.TrimSpace(address)
		}
	}
	if strings.Contains(name, "@") {
		return name
	}
	return ""
}

// image collects what is known about one image.
func (g *gathering) image(ctx context.Context, w Wanted, at found) (ImageFacts, error) {
	chosen := g.file.Environment.Images[w.Name]
	f := ImageFacts{Name: w.Name, Matrix: chosen.Matrix, Digest: w.Digest, Expected: map[attest.Source]Expected{}}
	for _, from := range g.file.Environment.From {
		history, err := g.state.History(from)
		if err != nil {
			return f, fmt.Errorf("%s: from: %w", g.file.Path, err)
		}
		f.Ran = append(f.Ran, stretches(from, history, w.Name, w.Digest)...)
	}
	if at.repo == nil {
		return f, nil
	}
	f.Where = at.repo.Name()
	if err := g.claims(ctx, &f, at); err != nil {
		return f, fmt.Errorf("read the proofs of %s@%s: %w", f.Where, w.Digest, err)
	}
	for _, s := range attest.Sources(f.Found) {
		e, err := g.expect(ctx, s, w.Name)
		if err != nil {
			return f, err
		}
		f.Expected[s] = e
	}
	return f, nil
}

// claims reads and checks what hangs on an image.
func (g *gathering) claims(ctx context.Context, f *ImageFacts, at found) error {
	var keys []attest.Key
	for _, a := range g.approvers {
		keys = append(keys, a.key)
	}
	if len(g.signers)+len(keys) == 0 {
		return nil
	}
	list, err := at.repo.Referrers(ctx, at.desc.Digest, attest.MediaType)
	if err != nil {
		return err
	}
	for _, d := range list {
		manifest, bundle, err := readClaim(ctx, at.repo, d)
		var refused *attest.Refusal
		if errors.As(err, &refused) {
			f.Ignored = append(f.Ignored, fmt.Sprintf("%.19s: %v", d.Digest, err))
			continue
		}
		if err != nil {
			return err
		}
		v, err := attest.Verify(at.desc, manifest, bundle, g.signers, g.Now())
		if err == nil && !agreement(v) {
			f.Found = append(f.Found, v)
			continue
		}
		a, byApprover := attest.Verify(at.desc, manifest, bundle, keys, g.Now())
		switch {
		case byApprover == nil && agreement(a):
			f.Agreed = append(f.Agreed, g.agreed(a))
		case err != nil:
			f.Ignored = append(f.Ignored, fmt.Sprintf("%.19s: %v", d.Digest, err))
		}
	}
	slices.Sort(f.Ignored)
	return nil
}

// agreement says whether a claim is a person's: what a signer of results says
// about approval does not count, nor what an approver says about tests.
func agreement(v attest.Verified) bool {
	switch v.Predicate.(type) {
	case attest.Approval, attest.BreakGlass:
		return true
	}
	return false
}

func (g *gathering) agreed(v attest.Verified) Agreement {
	a := Agreement{Key: v.Key.ID(), Signed: v.Signed, Statement: v.Predicate, Digest: v.Digest}
	for _, p := range g.approvers {
		if p.key.Equal(v.Key) {
			a.By, a.Email = p.name, p.email
		}
	}
	return a
}

func readClaim(ctx context.Context, repo registry.Repository, d ocispec.Descriptor) (manifest, bundle []byte, err error) {
	if _, manifest, err = repo.Manifest(ctx, d.Digest); err != nil {
		return nil, nil, err
	}
	layer, err := attest.Layer(manifest)
	if err != nil {
		return nil, nil, err
	}
	bundle, err = registry.Read(ctx, repo, layer)
	return manifest, bundle, err
}

// expect asks the source's repository about an attested commit.
func (g *gathering) expect(ctx context.Context, s attest.Source, image string) (Expected, error) {
	refuse := func(format string, args ...any) (Expected, error) {
		return Expected{Expected: attest.Expected{Refused: fmt.Sprintf(format, args...)}}, nil
	}
	source, gates := g.file.Environment.Source, g.file.Environment.Gates
	switch {
	case source.Repository == "":
		return refuse("%s does not say under source which repository its images come from", g.file.Path)
	case s.Repository != source.Repository:
		return refuse("it is of %s, not of %s", s.Repository, source.Repository)
	case s.Pipeline != source.Pipeline:
		return refuse("its pipeline is %s, not %s", s.Pipeline, source.Pipeline)
	}
	if err := g.openCode(ctx); err != nil {
		return Expected{}, err
	}
	if g.headErr != nil {
		return refuse("%v", g.headErr)
	}
	on, err := g.code.Contains(g.head, s.Commit)
	if err != nil {
		return Expected{}, err
	}
	if !on {
		return refuse("it is not on %s of %s", g.branch(gates), g.code)
	}
	file, err := g.code.File(s.Commit, s.Pipeline)
	if errors.Is(err, fs.ErrNotExist) {
		return refuse("it has no %s", s.Pipeline)
	}
	if err != nil {
		return Expected{}, err
	}
	plan, err := expandAt(s, file)
	if err != nil {
		return refuse("%v", err)
	}
	e := Expected{Expected: attest.Expect(file, plan)}
	for _, t := range plan.Tasks {
		if t.Kind == pipeline.TestTask && t.Skip == "" && t.Image == image && fits(t.Matrix, g.file.Environment.Images[image].Matrix) && !slices.Contains(e.Tests, t.Test.Name) {
			e.Tests = append(e.Tests, t.Test.Name)
		}
	}
	c, err := g.code.Commit(s.Commit)
	e.Authors = authors(c)
	return e, err
}

// branch is the branch of the source that counts. Without a gate it is main: what
// is on no branch was reviewed by nobody.
func (g *gathering) branch(gates pipeline.Gates) string {
	if gates.Branch == "" {
		return "main"
	}
	return gates.Branch
}

func (g *gathering) openCode(ctx context.Context) error {
	if g.code != nil {
		return nil
	}
	repo, err := g.Git(g.file.Environment.Source.Repository)
	if err != nil {
		return fmt.Errorf("%s: source: %w", g.file.Path, err)
	}
	g.head, err = repo.Head(ctx, g.branch(g.file.Environment.Gates))
	if errors.Is(err, git.ErrNoBranch) {
		g.headErr = err
	} else if err != nil {
		return fmt.Errorf("read the source of %s: %w", g.file.Path, err)
	}
	g.code = repo
	return nil
}

// expandAt is the plan of a source, made as the signer of its claims made it.
func expandAt(s attest.Source, file []byte) (pipeline.Plan, error) {
	parsed, err := pipeline.Parse(s.Pipeline, file)
	if err != nil {
		return pipeline.Plan{}, err
	}
	return parsed.Expand(pipeline.Event{Kind: s.Event, Repo: s.Repository, Ref: s.Ref, Base: s.Base, Commit: s.Commit, Trusted: true})
}

// authors are the addresses of all who wrote a commit.
func authors(c git.Commit) []string {
	all := []string{c.Author.Email}
	for _, t := range git.Trailers(c.Message) {
		if _, address, ok := strings.Cut(t.Value, "<"); ok && strings.EqualFold(t.Key, "Co-authored-by") {
			all = append(all, strings.TrimSuffix(strings.TrimSpace(address), ">"))
		}
	}
	return all
}

// locate finds a repository that has the image: the one the user named, else
// those of the environments it comes from, the environment's own, and the root's.
func (g *gathering) locate(ctx context.Context, w Wanted) (found, error) {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if add(w.Repository); w.Repository == "" {
		for _, from := range g.file.Environment.From {
			if f, err := g.state.File(from); err == nil {
				if im, ok := f.Environment.Images[w.Name]; ok {
					add(repositoryOf(w.Name, im))
				}
			}
		}
		add(repositoryOf(w.Name, g.file.Environment.Images[w.Name]))
		add(w.Name)
	}
	for _, name := range names {
		repo, err := g.Registries.Repository(name)
		if err != nil {
			return found{}, err
		}
		desc, _, err := repo.Manifest(ctx, w.Digest)
		if err == nil {
			return found{repo, desc}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return found{}, err
		}
	}
	return found{}, nil
}

// Wanted is an image that is to be promoted.
type Wanted struct {
	Name       string        `json:"name"`                 // in the environment file
	Digest     digest.Digest `json:"digest,omitempty"`     // of exactly what was tested
	Repository string        `json:"repository,omitempty"` // where it is; empty: slipway looks where it may be
}
