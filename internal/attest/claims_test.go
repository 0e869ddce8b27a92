package attest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/attest"
	"slipway/pipeline"
)

var now = time.Date(2026, 11, 25, 20, 0, 0, 0, time.UTC)

// world is a repository's pipeline, one image of it and a key that signs.
type world struct {
	file    []byte
	plan    pipeline.Plan
	source  attest.Source
	subject ocispec.Descriptor
	signer  attest.Signer
}

const ciYML = `version: 1
images:
  web:
    build: {context: ., args: {MODE: prod}}
    services: [db]
    tests:
      unit: {command: [pytest, -q]}
      integration: {command: ./it.sh, retry: 1}
services:
  db: {image: "mysql:8.4"}
`

func newWorld(t testing.TB) world {
	t.Helper()
	w := world{file: []byte(ciYML), signer: newSigner(t), subject: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("image"), Size: 5}}
	w.source = attest.Source{
		Repository: "https://forge.example/shop.git", Commit: "0123456789abcdef0123456789abcdef01234567",
		Pipeline: ".ci.yml", Event: pipeline.Push, Ref: "refs/heads/main",
	}
	w.plan = expand(t, w.file, w.source)
	return w
}

func expand(t testing.TB, file []byte, s attest.Source) pipeline.Plan {
	t.Helper()
	p, err := pipeline.Parse(".ci.yml", file)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := p.Expand(pipeline.Event{Kind: s.Event, Repo: s.Repository, Ref: s.Ref, Base: s.Base, Commit: s.Commit, Trusted: true})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func newSigner(t testing.TB) attest.Signer {
	t.Helper()
	s, _, err := attest.NewSigner(now.Add(-time.Hour), now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w world) task(t testing.TB, id string) pipeline.Task {
	t.Helper()
	for _, task := range w.plan.Tasks {
		if task.ID == id {
			return task
		}
	}
	t.Fatalf("no task %s", id)
	return pipeline.Task{}
}

// result is what a run would say of a test that passed.
func (w world) result(t testing.TB, test string) attest.TestResult {
	task := w.task(t, "web/"+test)
	return attest.TestResult{
		Passed: true, Source: w.source, File: digest.FromBytes(w.file), Plan: w.plan.Digest,
		Build: w.plan.Definition(w.task(t, "web")), Definition: w.plan.Definition(task),
		Services: []attest.Service{{Name: "db", Reference: "mysql:8.4", Digest: digest.FromString("mysql")}},
		Task:     task.ID, Image: task.Image, Test: test, Run: "20261125-200000-000-abcd", Attempts: 1,
		Started: now.Add(-2 * time.Minute), Finished: now.Add(-time.Minute), Signed: now,
	}
}

func (w world) provenance(t testing.TB) attest.Provenance {
	task := w.task(t, "web")
	return attest.Provenance{
		Source: w.source, File: digest.FromBytes(w.file), Plan: w.plan.Digest, Build: w.plan.Definition(task),
		Task: task.ID, Image: task.Image, Args: task.Build.Args, Bases: []attest.Base{{Reference: "docker.io/library/python:3.12", Digest: digest.FromString("python")}},
		Builder: "urn:slipway:builder:local", Version: "1.0", Run: "20261125-200000-000-abcd",
		Started: now.Add(-3 * time.Minute), Finished: now.Add(-2 * time.Minute), Signed: now,
	}
}

// expected is what the repository says about the sources of found.
func (w world) expected(found []attest.Verified) map[attest.Source]attest.Expected {
	all := map[attest.Source]attest.Expected{}
	for _, s := range attest.Sources(found) {
		all[s] = attest.Expected{Refused: fmt.Sprintf("commit %.12s is not on main", s.Commit)}
		if s == w.source {
			all[s] = attest.Expect(w.file, w.plan)
		}
	}
	return all
}

func (w world) sign(t testing.TB, s attest.Signer, p attest.Predicate) attest.Attestation {
	t.Helper()
	a, err := s.Attest(context.Background(), w.subject, p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (w world) keys() []attest.Key { return []attest.Key{w.signer.Key} }

func (w world) verify(a attest.Attestation) (attest.Verified, error) {
	return attest.Verify(w.subject, a.Manifest, a.Bundle, w.keys(), now)
}
