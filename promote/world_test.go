package promote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/attest"
	"slipway/internal/git"
	"slipway/internal/registry"
	"slipway/internal/registry/local"
	"slipway/pipeline"
	"slipway/promote"
)

// TestMain lets the test binary be the processes that race and are killed.
func TestMain(m *testing.M) {
	if job := os.Getenv("PROMOTE_CHILD"); job != "" {
		os.Exit(child(job))
	}
	os.Exit(m.Run())
}

// world is a repository with a pipeline, a root with a store and a key, and an
// environments' repository: all real, all in temporary directories.
type world struct {
	t       *testing.T
	code    string // work tree of the source
	env     string // bare repository of the environments
	store   *local.Store
	signer  attest.Signer
	ann     attest.Signer // who may approve
	now     time.Time
	p       *promote.Promoter
	said    *bytes.Buffer
	deliver *place
}

const ciYML = `version: 1
images:
  web:
    build: .
    tests:
      unit: {command: [unit]}
      integration: {command: [integration]}
  api:
    build: .
    tests: {unit: {command: [unit]}}
`

const testYML = `version: 1
name: test
images: {web: {}, api: {}}
`

const prodYML = `version: 1
name: prod   # where it counts
source: {repository: "file://CODE"}
from: [test]
images:
  web: {repository: prod/web}   # shop front
  api: {repository: prod/api}
environment: {LOG_LEVEL: warn}
secrets: {PASSWORD: {file: /run/secrets/prod_db}}
gates: {branch: main, signers: [slipway.pub], tests: [unit, web/integration], evidence: [test-result], approvals: {from: [ann], not: author}}
`

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, code: filepath.Join(dir, "code"), env: filepath.Join(dir, "root/environments.git"), now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), said: &bytes.Buffer{}, deliver: newPlace()}
	w.commit(".ci.yml", ciYML)
	store, err := local.Open(filepath.Join(dir, "root/images"))
	w.ok(err)
	t.Cleanup(func() { w.ok(store.Close()) })
	w.store = store
	start := w.now.Add(-24 * time.Hour)
	w.signer, _, err = attest.NewSigner(start, time.Time{})
	w.ok(err)
	w.ann, _, err = attest.NewSigner(start, time.Time{})
	w.ok(err)
	w.p = w.promoter(filepath.Join(dir, "root/promotions"))
	w.ok(git.Create(w.env, "main"))
	w.commitEnv(map[string]string{
		"environments/test.yml": testYML, "environments/prod.yml": strings.ReplaceAll(prodYML, "CODE", w.code),
		"environments/slipway.pub": string(w.signer.Key.Marshal()), "environments/ann.pub": "# email: ann@example.com\n" + string(w.ann.Key.Marshal()),
	})
	return w
}

// promoter is one root's; all share the store and the repositories.
func (w *world) promoter(dir string) *promote.Promoter {
	open := func(address string) (*git.Repository, error) { return git.At(address, git.Access{}) }
	repo, err := open(w.env)
	w.ok(err)
	person := git.Person{Name: "Bob", Email: "bob@example.com"}
	return &promote.Promoter{
		Dir: dir, Environments: promote.Environments{Repository: repo, Branch: "main"}, Registries: &registry.Registries{Local: w.store},
		Git: open, Now: func() time.Time { return w.now }, Sign: person, Out: w.said,
		Deliverers: map[string]promote.Deliverer{
			"local": w.deliver,
			"git":   &promote.GitDelivery{Home: w.env, Line: "main", Git: open, Now: func() time.Time { return w.now }, Sign: person},
		},
	}
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) git(dir string, args ...string) string {
	w.t.Helper()
	out, err := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=Carl", "-c", "user.email=carl@example.com"}, args...)...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit changes a file of the source on the branch that is checked out.
func (w *world) commit(name, text string) string {
	w.t.Helper()
	if _, err := os.Stat(w.code); err != nil {
		w.ok(os.MkdirAll(w.code, 0o755))
		w.git(w.code, "init", "-q", "-b", "main")
	}
	w.ok(os.WriteFile(filepath.Join(w.code, name), []byte(text), 0o644))
	w.git(w.code, "add", "-A")
	w.git(w.code, "commit", "-qm", "change "+name)
	return w.git(w.code, "rev-parse", "HEAD")
}

// commitEnv changes files of the environments as a person would.
func (w *world) commitEnv(files map[string]string) string {
	w.t.Helper()
	repo, err := git.At(w.env, git.Access{})
	w.ok(err)
	head, _ := repo.Head(w.t.Context(), "main")
	d := git.Draft{Base: head, Files: map[string][]byte{}, Author: git.Person{Name: "Dora", Email: "dora@example.com"}, When: w.now, Message: "by hand\n"}
	for name, text := range files {
		d.Files[name] = []byte(text)
	}
	p, err := repo.Propose(d)
	w.ok(err)
	w.ok(repo.Push(w.t.Context(), "main", p))
	return p.ID
}

// envFile reads a file of the environments' branch.
func (w *world) envFile(name string) string { return w.git(w.env, "show", "main:"+name) }

// build puts an image into the root's store, and has its tests attested as passed.
func (w *world) build(name, content string, tests ...string) digest.Digest {
	w.t.Helper()
	d := w.image(name, content)
	for _, test := range tests {
		w.attest(name, d, test, nil)
	}
	return d.Digest
}

func (w *world) image(name, content string) ocispec.Descriptor {
	w.t.Helper()
	repo := w.repo(name)
	put := func(kind string, data []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: kind, Digest: digest.FromBytes(data), Size: int64(len(data))}
		w.ok(registry.PutBytes(w.t.Context(), repo, d, data))
		return d
	}
	m, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: put(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)),
		Layers: []ocispec.Descriptor{put(ocispec.MediaTypeImageLayer, []byte(content))},
	})
	w.ok(err)
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(m), Size: int64(len(m))}
	w.ok(repo.PutManifest(w.t.Context(), d, m))
	return d
}

func (w *world) repo(name string) registry.Repository {
	w.t.Helper()
	repo, err := (&registry.Registries{Local: w.store}).Repository(name)
	w.ok(err)
	return repo
}

// result is a passed test of the commit that is checked out.
func (w *world) result(name, test string) attest.TestResult {
	w.t.Helper()
	source := attest.Source{Repository: "file://" + w.code, Commit: w.git(w.code, "rev-parse", "HEAD"), Pipeline: ".ci.yml", Event: pipeline.Push, Ref: "refs/heads/main"}
	file, err := os.ReadFile(filepath.Join(w.code, ".ci.yml"))
	w.ok(err)
	parsed, err := pipeline.Parse(".ci.yml", file)
	w.ok(err)
	plan, err := parsed.Expand(pipeline.Event{Kind: source.Event, Repo: source.Repository, Ref: source.Ref, Commit: source.Commit, Trusted: true})
	w.ok(err)
	r := attest.TestResult{
		Passed: true, Source: source, File: digest.FromBytes(file), Plan: plan.Digest, Task: name + "/" + test, Image: name, Test: test,
		Run: "r1", Attempts: 1, Started: w.now, Finished: w.now, Signed: w.now,
	}
	for _, t := range plan.Tasks {
		switch t.ID {
		case name:
			r.Build = plan.Definition(t)
		case r.Task:
			r.Definition = plan.Definition(t)
		}
	}
	return r
}

func (w *world) attest(name string, d ocispec.Descriptor, test string, change func(*attest.TestResult)) {
	w.t.Helper()
	r := w.result(name, test)
	if change != nil {
		change(&r)
	}
	w.sign(w.signer, name, d, r)
}

func (w *world) sign(by attest.Signer, name string, d ocispec.Descriptor, p attest.Predicate) {
	w.t.Helper()
	a, err := by.Attest(w.t.Context(), d, p)
	w.ok(err)
	repo := w.repo(name)
	config, empty := attest.EmptyConfig()
	layer, err := attest.Layer(a.Manifest)
	w.ok(err)
	w.ok(registry.PutBytes(w.t.Context(), repo, config, empty))
	w.ok(registry.PutBytes(w.t.Context(), repo, layer, a.Bundle))
	w.ok(repo.PutManifest(w.t.Context(), a.Descriptor, a.Manifest))
}

func (w *world) plan(env string, images ...promote.Wanted) *promote.Plan {
	w.t.Helper()
	plan, err := w.p.Plan(w.t.Context(), promote.Request{Environment: env, Images: images, Actor: "Bob <bob@example.com>"})
	w.ok(err)
	return plan
}

func (w *world) promote(env string, images ...promote.Wanted) promote.Outcome {
	w.t.Helper()
	out, _, err := w.p.Promote(w.t.Context(), w.plan(env, images...))
	w.ok(err)
	return out
}

// approve lets Ann agree.
func (w *world) approve(env string, images ...promote.Wanted) {
	w.t.Helper()
	_, err := w.p.Approve(w.t.Context(), w.plan(env, images...), promote.Assent{}, w.ann)
	w.ok(err)
}

// place is a place of delivery in memory: what runs there, and how often it was told.
type place struct {
	running map[string]promote.DeliveredImage
	told    []promote.Delivery
	fails   int // deliveries that fail from now on
	drift   digest.Digest
}

func newPlace() *place { return &place{running: map[string]promote.DeliveredImage{}} }

func (p *place) Check(_ context.Context, d promote.Delivery) error {
	if _, wrong := d.Config["wrong"]; wrong {
		return fmt.Errorf("wrong is not known")
	}
	return nil
}

func (p *place) Deliver(_ context.Context, d promote.Delivery, _ io.Writer) error {
	p.told = append(p.told, d)
	if p.fails > 0 {
		p.fails--
		return fmt.Errorf("no room")
	}
	p.running = map[string]promote.DeliveredImage{}
	for _, im := range d.Images {
		if im.Digest != "" {
			p.running[im.Name] = im
		}
	}
	return nil
}

func (p *place) Status(context.Context, promote.Delivery) (promote.Status, error) {
	s := promote.Status{Known: true}
	for name, im := range p.running {
		d := im.Digest
		if p.drift != "" {
			d = p.drift
		}
		s.Images = append(s.Images, promote.ImageStatus{Name: name, Digest: d, State: "running"})
	}
	return s, nil
}

func (w *world) touch(name string) { w.ok(os.WriteFile(name, nil, 0o600)) }

func (w *world) remove(name string) { w.ok(os.Remove(name)) }
