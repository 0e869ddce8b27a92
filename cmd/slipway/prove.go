//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"slipway/builder"
	"slipway/internal/attest"
	"slipway/internal/engine"
	"slipway/internal/registry"
	"slipway/internal/registry/local"
	"slipway/internal/store"
	"slipway/pipeline"
)

// prover signs what a run of a commit has shown, and attaches it to the images
// in this root's own registry. It signs what slipway itself saw, with a key that
// no sandbox comes near, and it never signs a tree that differs from its commit.
type prover struct {
	signer  func(time.Time) (attest.Signer, error)
	keys    attest.Keyring // whose earlier attestations count
	images  func() (*local.Store, error)
	builder *builder.Builder
	tree    committed
}

// committed is where the files of a run came from.
type committed interface {
	// source names the commit and gives its pipeline file, or says why it cannot be named.
	source(ctx context.Context, ev pipeline.Event) (attest.Source, []byte, error)
	// foreign says which files went into a run that are no part of the commit.
	foreign(ctx context.Context, s attest.Source, o engine.Observed) error
}

// prove gives the attestations by task, or says in a line why there are none.
func (p prover) prove(ctx context.Context, o engine.Observed) engine.Proof {
	all := engine.Proof{Attestations: map[string]digest.Digest{}}
	s, err := p.signing(ctx, o)
	if err == nil {
		defer s.images.Close()
		for _, b := range o.Builds {
			err = errors.Join(err, s.image(ctx, b, all.Attestations))
		}
	}
	if err != nil {
		all.Unsigned = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return all
}

// signing is all that the claims of one run have in common.
type signing struct {
	prover
	run    string
	by     attest.Signer
	listed []attest.Key
	images *local.Store
	source attest.Source
	file   []byte
	plan   pipeline.Plan // of the commit, for the event, with nothing left out
	now    time.Time
}

func (p prover) signing(ctx context.Context, o engine.Observed) (*signing, error) {
	s := &signing{prover: p, run: o.Run, now: time.Now().UTC().Truncate(time.Second)}
	var err error
	if s.by, err = p.signer(s.now); err != nil {
		return nil, err
	}
	if s.source, s.file, err = p.tree.source(ctx, o.Event); err != nil {
		return nil, err
	}
	if s.plan, err = expandAt(s.source, s.file); err != nil {
		return nil, err
	}
	if err := s.sameAs(o); err != nil {
		return nil, err
	}
	if err := p.tree.foreign(ctx, s.source, o); err != nil {
		return nil, err
	}
	s.listed = []attest.Key{s.by.Key}
	held, err := p.keys.List()
	if err != nil {
		return nil, err
	}
	for _, h := range held {
		s.listed = append(s.listed, h.Key)
	}
	s.images, err = p.images()
	return s, err
}

// expandAt is the plan of a source, as whoever checks the claims will make it.
func expandAt(s attest.Source, file []byte) (pipeline.Plan, error) {
	parsed, err := pipeline.Parse(s.Pipeline, file)
	if err != nil {
		return pipeline.Plan{}, fmt.Errorf("at commit %.12s: %w", s.Commit, err)
	}
	return parsed.Expand(pipeline.Event{Kind: s.Event, Repo: s.Repository, Ref: s.Ref, Base: s.Base, Commit: s.Commit, Trusted: true})
}

// sameAs checks that what ran is what the commit defines.
func (s *signing) sameAs(o engine.Observed) error {
	for _, b := range o.Builds {
		tasks := []pipeline.Task{b.Task}
		for _, t := range b.Tests {
			tasks = append(tasks, t.Task)
		}
		for _, t := range tasks {
			if s.definition(t.ID) != o.Plan.Definition(t) {
				return fmt.Errorf("%s ran otherwise than %s at commit %.12s defines it", t.ID, s.source.Pipeline, s.source.Commit)
			}
		}
	}
	return nil
}

func (s *signing) definition(id string) digest.Digest {
	for _, t := range s.plan.Tasks {
		if t.ID == id {
			return s.plan.Definition(t)
		}
	}
	return ""
}

// image puts an image into the root's registry and signs what is known of it.
func (s *signing) image(ctx context.Context, b engine.ObservedBuild, done map[string]digest.Digest) error {
	repo, err := publish(ctx, s.images, s.builder, b.Task.Image, b.Built.Image.Descriptor)
	if err != nil {
		return fmt.Errorf("%s: %w", b.Task.ID, err)
	}
	subjects, untested, err := subjectsOf(ctx, repo, b.Built)
	if err != nil {
		return fmt.Errorf("%s: %w", b.Task.ID, err)
	}
	for _, subject := range subjects {
		if err := s.subject(ctx, repo, subject, b, done); err != nil {
			return fmt.Errorf("%s: %w", b.Task.ID, err)
		}
	}
	if len(untested) > 0 {
		return fmt.Errorf("%s as a whole: %s was not tested on this machine", b.Task.ID, strings.Join(untested, ", "))
	}
	return nil
}

// publish makes an image of the builder one of the root's registry; its blobs
// are linked there.
func publish(ctx context.Context, images *local.Store, from *builder.Builder, name string, d ocispec.Descriptor) (registry.Repository, error) {
	repo, err := images.Repository(name)
	if err != nil {
		return nil, err
	}
	if err := repo.PutImage(ctx, d, local.Source{Open: from.Blob, Path: from.BlobFile}); err != nil {
		return nil, err
	}
	all := registry.Registries{Local: images}
	return all.Repository(name)
}

// subjectsOf are the digests that the tests of an image speak for: the manifest
// that ran and, where there is an index of several, that only when each of them ran.
func subjectsOf(ctx context.Context, repo registry.Repository, b engine.Built) (subjects []ocispec.Descriptor, untested []string, err error) {
	if len(b.Platforms) == 0 {
		return []ocispec.Descriptor{b.Image.Descriptor}, nil, nil
	}
	for name, p := range b.Platforms {
		if !p.Tested {
			untested = append(untested, name)
			continue
		}
		d, _, err := repo.Manifest(ctx, digest.Digest(p.Digest))
		if err != nil {
			return nil, nil, err
		}
		if d.Digest != b.Image.Descriptor.Digest {
			subjects = append(subjects, d)
		}
	}
	slices.Sort(untested)
	if len(untested) == 0 {
		subjects = append(subjects, b.Image.Descriptor)
	}
	return subjects, untested, nil
}

// subject signs what one digest was built from and what its tests came to.
func (s *signing) subject(ctx context.Context, repo registry.Repository, subject ocispec.Descriptor, b engine.ObservedBuild, done map[string]digest.Digest) error {
	before, err := attestations(ctx, repo, subject, s.listed, s.now)
	if err != nil {
		return err
	}
	claims := map[string]attest.Predicate{}
	if !b.Past {
		claims[b.Task.ID] = s.provenance(b)
	}
	for _, t := range b.Tests {
		claims[t.Task.ID] = s.result(b, t).Superseding(before.Good)
	}
	jobs, ctx := errgroup.WithContext(ctx)
	jobs.SetLimit(claimsAtOnce)
	var mu sync.Mutex
	for id, claim := range claims {
		jobs.Go(func() error {
			signed, ok := attest.Same(before.Good, claim)
			if !ok {
				a, err := s.by.Attest(ctx, subject, claim)
				if err == nil {
					err = attach(ctx, repo, a)
				}
				if err != nil {
					return err
				}
				signed = a.Descriptor.Digest
			}
			mu.Lock()
			defer mu.Unlock()
			done[id] = signed
			return nil
		})
	}
	return jobs.Wait()
}

// claimsAtOnce is how many claims are signed and attached at a time: each waits
// for the disk, and they can do that together.
const claimsAtOnce = 8

func (s *signing) provenance(b engine.ObservedBuild) attest.Provenance {
	p := attest.Provenance{
		Source: s.source, File: digest.FromBytes(s.file), Plan: s.plan.Digest, Build: s.definition(b.Task.ID),
		Task: b.Task.ID, Image: b.Task.Image, Matrix: b.Task.Matrix,
		Args: b.Task.Build.Args, Target: b.Task.Build.Target, Platforms: b.Task.Build.Platforms,
		Builder: builderURI, Version: version, Run: s.run, Cached: b.Built.Cached,
		Started: b.Started, Finished: b.Finished, Signed: s.now,
	}
	for name, d := range b.Built.Bases {
		p.Bases = append(p.Bases, attest.Base{Reference: name, Digest: d})
	}
	slices.SortFunc(p.Bases, func(x, y attest.Base) int { return strings.Compare(x.Reference, y.Reference) })
	return p
}

// builderURI names who builds: BuildKit in a slipway that people run themselves.
const builderURI = "urn:slipway:builder:v1"

func claimedServices(ran []store.Service) []attest.Service {
	var claimed []attest.Service
	for _, s := range ran {
		claimed = append(claimed, attest.Service{Name: s.Name, Reference: s.Image, Digest: digest.Digest(s.Digest)})
	}
	return claimed
}

func (s *signing) result(b engine.ObservedBuild, t engine.ObservedTest) attest.TestResult {
	r := t.Result
	return attest.TestResult{
		Passed: r.State == pipeline.Passed, Source: s.source,
		File: digest.FromBytes(s.file), Plan: s.plan.Digest, Build: s.definition(b.Task.ID), Definition: s.definition(t.Task.ID), Fixtures: t.Fixtures,
		Task: t.Task.ID, Image: t.Task.Image, Matrix: t.Task.Matrix, Test: t.Task.Test.Name,
		Services: claimedServices(r.Services), Run: s.run, ReusedFrom: r.ReusedFrom, Attempts: max(1, r.Attempts), Flaky: r.Flaky,
		Started: t.Finished.Add(-time.Duration(r.DurationMS) * time.Millisecond), Finished: t.Finished, Signed: s.now,
	}
}
