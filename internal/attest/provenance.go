package attest

import (
	"errors"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// ProvenanceType is SLSA's. https://slsa.dev/spec/v1.0/provenance
const ProvenanceType = "https://slsa.dev/provenance/v1"

// BuildType names how slipway builds, and so what the parameters of its
// provenance mean: docs/proofs.md says it in words.
const BuildType = "urn:slipway:build:v1"

// Provenance says what an image was built from.
type Provenance struct {
	Source Source
	File   digest.Digest // of the pipeline file's bytes
	Plan   digest.Digest // of the pipeline expanded for the event, with nothing left out
	Build  digest.Digest // pipeline.Plan.Definition of the build

	Task      string // in the plan: "api[python=3.12]"
	Image     string
	Matrix    map[string]string
	Args      map[string]string // build arguments; secrets are never among them
	Target    string
	Platforms []string
	Bases     []Base // images it stands on, sorted by reference

	Builder  string // URI of who built it
	Version  string // of slipway
	Run      string
	Cached   bool // no step ran: every layer was there
	Started  time.Time
	Finished time.Time
	Signed   time.Time
}

// Base is an image that a build stands on.
type Base struct {
	Reference string // as the Dockerfile or the pipeline names it
	Digest    digest.Digest
}

type provenance struct {
	Definition buildDefinition `json:"buildDefinition"`
	Details    runDetails      `json:"runDetails"`
}

type buildDefinition struct {
	BuildType string             `json:"buildType"`
	External  externalParameters `json:"externalParameters"`
	Internal  internalParameters `json:"internalParameters"`
	Resolved  []resource         `json:"resolvedDependencies"`
}

type externalParameters struct {
	Repository string            `json:"repository"`
	Commit     string            `json:"commit"`
	Pipeline   string            `json:"pipeline"`
	Event      event             `json:"event"`
	Image      string            `json:"image"`
	Matrix     map[string]string `json:"matrix,omitempty"`
	Args       map[string]string `json:"args,omitempty"`
	Target     string            `json:"target,omitempty"`
	Platforms  []string          `json:"platforms,omitempty"`
}

type internalParameters struct {
	Task  string    `json:"task"`
	File  digestSet `json:"pipeline"`
	Plan  digestSet `json:"plan"`
	Build digestSet `json:"build"`
}

type runDetails struct {
	Builder  buildBuilder  `json:"builder"`
	Metadata buildMetadata `json:"metadata"`
}

type buildBuilder struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version"`
}

// buildMetadata has slipway's own fields under names of the form that SLSA
// leaves to vendors.
type buildMetadata struct {
	Invocation string `json:"invocationId"`
	StartedOn  stamp  `json:"startedOn"`
	FinishedOn stamp  `json:"finishedOn"`
	Cached     bool   `json:"slipway_cached"`
	SignedOn   stamp  `json:"slipway_signedOn"`
}

// component is the key of slipway in a builder's versions.
const component = "slipway"

// gitPrefix begins the URI of a git commit among resolved dependencies, imagePrefix that of a base.
const (
	gitPrefix   = "git+"
	imagePrefix = "docker-image://"
)

// Type is ProvenanceType.
func (Provenance) Type() string { return ProvenanceType }

func (p Provenance) signed() time.Time { return p.Signed }

func (p Provenance) wire() any {
	w := provenance{
		Definition: buildDefinition{
			BuildType: BuildType,
			External: externalParameters{
				Repository: p.Source.Repository, Commit: p.Source.Commit, Pipeline: p.Source.Pipeline,
				Event: event{p.Source.Event, p.Source.Ref, p.Source.Base}, Image: p.Image, Matrix: p.Matrix,
				Args: p.Args, Target: p.Target, Platforms: p.Platforms,
			},
			Internal: internalParameters{p.Task, sha256Set(p.File), sha256Set(p.Plan), sha256Set(p.Build)},
			Resolved: []resource{{URI: gitURI(p.Source), Digest: digestSet{gitCommit: p.Source.Commit}}},
		},
		Details: runDetails{
			Builder:  buildBuilder{p.Builder, map[string]string{component: p.Version}},
			Metadata: buildMetadata{p.Run, stampOf(p.Started), stampOf(p.Finished), p.Cached, stampOf(p.Signed)},
		},
	}
	for _, b := range p.Bases {
		w.Definition.Resolved = append(w.Definition.Resolved, resource{URI: imagePrefix + b.Reference, Digest: sha256Set(b.Digest)})
	}
	return w
}

// gitURI is the commit's repository and ref as SPDX and SLSA write them.
func gitURI(s Source) string {
	uri := gitPrefix + s.Repository
	if s.Ref != "" {
		uri += "@" + s.Ref
	}
	return uri
}

func (w provenance) predicate() (Predicate, error) {
	ext, in, run := w.Definition.External, w.Definition.Internal, w.Details
	p := Provenance{
		Source: Source{ext.Repository, ext.Commit, ext.Pipeline, ext.Event.Kind, ext.Event.Ref, ext.Event.Base},
		File:   in.File.sha256(), Plan: in.Plan.sha256(), Build: in.Build.sha256(),
		Task: in.Task, Image: ext.Image, Matrix: ext.Matrix, Args: ext.Args, Target: ext.Target, Platforms: ext.Platforms,
		Builder: run.Builder.ID, Version: run.Builder.Version[component], Run: run.Metadata.Invocation, Cached: run.Metadata.Cached,
	}
	for _, r := range w.Definition.Resolved {
		reference, ok := strings.CutPrefix(r.URI, imagePrefix)
		if !ok {
			continue // the commit, or what makes the claim encode otherwise
		}
		d := r.Digest.sha256()
		if d == "" {
			return nil, errors.New("a base is named without a digest")
		}
		p.Bases = append(p.Bases, Base{reference, d})
	}
	if p.File == "" || p.Plan == "" || p.Build == "" || p.Task == "" || p.Image == "" {
		return nil, errors.New("it does not name its pipeline, plan or build")
	}
	err := readTimes(
		timed{&p.Started, run.Metadata.StartedOn}, timed{&p.Finished, run.Metadata.FinishedOn}, timed{&p.Signed, run.Metadata.SignedOn},
	)
	return p, errors.Join(err, p.Source.check())
}
