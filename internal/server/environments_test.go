package server_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/attest"
	"slipway/internal/git"
	"slipway/internal/ledger"
	"slipway/internal/registry"
	"slipway/internal/registry/local"
	"slipway/internal/server"
	"slipway/promote"
)

// estate is an environment with an approver, and two images that may go there:
// all real, in temporary directories.
type estate struct {
	t      *testing.T
	dir    string
	repo   *git.Repository
	images *registry.Registries
	ann    attest.Signer
	web    [2]ocispec.Descriptor
}

func newEstate(t *testing.T, file string) *estate {
	t.Helper()
	e := &estate{t: t, dir: t.TempDir()}
	var err error
	e.ann, _, err = attest.NewSigner(time.Now().Add(-time.Hour), time.Time{})
	must(t, err)
	home := filepath.Join(e.dir, "environments.git")
	must(t, git.Create(home, "main"))
	e.repo, err = git.At(home, git.Access{})
	must(t, err)
	e.commit(map[string]string{"environments/test.yml": file, "environments/ann.pub": "# email: ann@example.com\n" + string(e.ann.Key.Marshal())})
	store, err := local.Open(filepath.Join(e.dir, "images"))
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	e.images = &registry.Registries{Local: store}
	repo, err := e.images.Repository("web")
	must(t, err)
	for i := range e.web {
		e.web[i] = e.image(repo, []byte{byte(i)})
	}
	return e
}

func (e *estate) commit(files map[string]string) {
	e.t.Helper()
	head, _ := e.repo.Head(e.t.Context(), "main") // none yet: the first
	d := git.Draft{Base: head, Files: map[string][]byte{}, Author: git.Person{Name: "Dora", Email: "dora@example.com"}, When: time.Now(), Message: "by hand\n"}
	for name, text := range files {
		d.Files[name] = []byte(text)
	}
	p, err := e.repo.Propose(d)
	must(e.t, err)
	must(e.t, e.repo.Push(e.t.Context(), "main", p))
}

func (e *estate) image(repo registry.Repository, layer []byte) ocispec.Descriptor {
	e.t.Helper()
	put := func(kind string, data []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: kind, Digest: digest.FromBytes(data), Size: int64(len(data))}
		must(e.t, registry.PutBytes(e.t.Context(), repo, d, data))
		return d
	}
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{put(ocispec.MediaTypeImageLayer, layer)},
		Config: put(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)),
	}
	m.SchemaVersion = 2
	data, err := json.Marshal(m)
	must(e.t, err)
	d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	must(e.t, repo.PutManifest(e.t.Context(), d, data))
	return d
}

func (e *estate) promoter(_ context.Context, person string, out io.Writer, do func(*promote.Promoter) error) error {
	return do(&promote.Promoter{
		Dir: filepath.Join(e.dir, "promotions"), Environments: promote.Environments{Repository: e.repo, Branch: "main"}, Registries: e.images,
		Git: func(address string) (*git.Repository, error) { return git.At(address, git.Access{}) }, Now: time.Now, Sign: git.Person{Name: person}, Out: out,
	})
}

// glass is what Ann signs to set a gate aside.
func (e *estate) glass(promotion string, about ocispec.Descriptor, environment string) []promote.Signed {
	e.t.Helper()
	a := promote.Assent{Promotion: promotion, Comment: "it burns", BreakGlass: []string{"approvals"}}
	signed, err := a.Sign(e.t.Context(), []promote.Question{{Environment: environment, Image: "web", Subject: about}}, time.Now(), e.ann)
	must(e.t, err)
	return signed
}

const gatedYML = "version: 1\nname: test\nimages: {web: {}}\ngates: {approvals: {from: [ann]}}\n"

// send posts JSON, and reads the last line of the answer as JSON.
func send[T any](t *testing.T, w *world, path, token string, body any) (code int, answer T, said string) {
	t.Helper()
	data, err := json.Marshal(body)
	must(t, err)
	code, said = w.post(t, path, token, "application/json", strings.NewReader(string(data)))
	lines := strings.Split(strings.TrimSpace(said), "\n")
	if code == http.StatusOK {
		must(t, json.Unmarshal([]byte(lines[len(lines)-1]), &answer))
	}
	return code, answer, said
}

// What is done is what was shown, by whom the token says, and it is written down.
func TestPromotions(t *testing.T) {
	w, e := newWorld(t), newEstate(t, "version: 1\nname: test\nimages: {web: {}}\n")
	w.serve(t, server.Options{Promoter: e.promoter}, nil)
	sysadmin, developer := w.token(t, ledger.Sysadmin), w.token(t, ledger.Developer)
	wish := server.Wish{Environment: "test", Images: []promote.Wanted{{Name: "web", Digest: e.web[0].Digest}}}
	propose := func(wish server.Wish) promote.Proposal {
		t.Helper()
		code, p, said := send[promote.Proposal](t, w, "/api/v1/promotions/plan", sysadmin, wish)
		if code != http.StatusOK {
			t.Fatalf("%d %s", code, said)
		}
		return p
	}
	carry := func(token string, wish server.Wish, shown promote.Proposal) (int, server.News, string) {
		t.Helper()
		return send[server.News](t, w, "/api/v1/promotions", token, server.Confirmed{Wish: wish, Fingerprint: shown.Fingerprint})
	}
	shown := propose(wish)
	if !shown.Open || shown.Plan.Images[0].Digest != e.web[0].Digest || shown.Record.Actor != "sysadmin" || propose(wish).Fingerprint != shown.Fingerprint {
		t.Errorf("%+v", shown)
	}
	if code, _, said := carry(developer, wish, shown); code != http.StatusForbidden {
		t.Errorf("a developer promotes: %d %s", code, said)
	}
	other := wish
	other.Images = []promote.Wanted{{Name: "web", Digest: e.web[1].Digest}}
	if code, _, said := carry(sysadmin, other, shown); code != http.StatusConflict || !strings.Contains(said, "look again") {
		t.Errorf("another image than was shown: %d %s", code, said)
	}
	e.commit(map[string]string{"environments/test.yml": "version: 1\nname: test\nimages: {web: {}}\nenvironment: {A: other}\n"})
	if code, _, said := carry(sysadmin, wish, shown); code != http.StatusConflict || !strings.Contains(said, "look again") {
		t.Errorf("another environment than was shown: %d %s", code, said)
	}
	code, news, said := carry(sysadmin, wish, propose(wish))
	if code != http.StatusOK || news.Outcome == nil || news.Outcome.State != promote.Done {
		t.Fatalf("%d %s", code, said)
	}
	if code, news, said = carry(sysadmin, other, propose(other)); code != http.StatusOK || news.Outcome.State != promote.Done {
		t.Fatalf("%d %s", code, said)
	}
	back := server.Wish{Environment: "test", Rollback: true}
	if code, news, said = carry(sysadmin, back, propose(back)); code != http.StatusOK || news.Outcome.State != promote.Done || news.Outcome.Kind != promote.RolledBack {
		t.Fatalf("%d %s", code, said)
	}
	_, said = w.request(t, http.MethodGet, "/api/v1/environments?name=test", developer)
	if !strings.Contains(said, e.web[0].Digest.String()) || !strings.Contains(said, `"by":"sysadmin"`) {
		t.Errorf("status: %s", said)
	}
	for path, want := range map[string]int{"/api/v1/environments/none/history": 404, "/api/v1/environments/none/diff": 404, "/api/v1/environments?name=none": 404} {
		if code, said := w.request(t, http.MethodGet, path, developer); code != want || !strings.Contains(said, "no environment none") {
			t.Errorf("%s: %d %s", path, code, said)
		}
	}
	if code, _, said := send[promote.Proposal](t, w, "/api/v1/promotions/plan", developer, server.Wish{Environment: "test"}); code != http.StatusUnprocessableEntity || !strings.Contains(said, "no image is named") {
		t.Errorf("%d %s", code, said)
	}
	deeds, err := w.ledger.Deeds(t.Context(), 100)
	must(t, err)
	var done []string
	for _, d := range deeds {
		done = append(done, d.Action)
	}
	if got := strings.Join(done, " "); got != "rollback promote promote promote promote refused" {
		t.Errorf("deeds: %s", got)
	}
}

// An approval is what a person has signed on his own machine about exactly this image and environment.
func TestApprovals(t *testing.T) {
	w, e := newWorld(t), newEstate(t, gatedYML)
	w.serve(t, server.Options{Promoter: e.promoter}, nil)
	developer := w.token(t, ledger.Developer)
	secret, _, err := w.ledger.AddToken(t.Context(), "Bob <bob@example.com>", ledger.Sysadmin, time.Time{})
	must(t, err)
	wish := server.Wish{Environment: "test", Images: []promote.Wanted{{Name: "web", Digest: e.web[0].Digest}}, BreakGlass: "it burns"}
	if code, _, said := send[promote.Proposal](t, w, "/api/v1/promotions/plan", developer, wish); code != http.StatusUnprocessableEntity || !strings.Contains(said, "names no address") {
		t.Errorf("glass is broken by nobody: %d %s", code, said)
	}
	code, shown, said := send[promote.Proposal](t, w, "/api/v1/promotions/plan", secret, wish)
	if code != http.StatusOK || shown.Open {
		t.Fatalf("%d %s", code, said)
	}
	plain := wish
	plain.BreakGlass = ""
	code, asking, said := send[server.Asking](t, w, "/api/v1/approvals/questions", developer, plain)
	if code != http.StatusOK || len(asking.Questions) != 1 || asking.Questions[0].Subject.Digest != e.web[0].Digest {
		t.Fatalf("%d %s", code, said)
	}
	mallory, _, err := attest.NewSigner(time.Now().Add(-time.Hour), time.Time{})
	must(t, err)
	ann := e.ann
	e.ann = mallory
	forged := e.glass(shown.Plan.Promotion, e.web[0], "test")
	e.ann = ann
	swapped := e.glass(shown.Plan.Promotion, e.web[0], "test")
	swapped[0].Bundle = forged[0].Bundle
	for name, signed := range map[string][]promote.Signed{
		"unlisted":            forged,
		"swapped":             swapped,
		"another image":       e.glass(shown.Plan.Promotion, e.web[1], "test"),
		"another environment": e.glass(shown.Plan.Promotion, e.web[0], "prod"),
		"none":                nil,
	} {
		if code, _, said := send[server.Attached](t, w, "/api/v1/approvals", developer, server.Approved{Wish: plain, Signed: signed}); code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, code, said)
		}
	}
	if _, still, said := send[promote.Proposal](t, w, "/api/v1/promotions/plan", secret, wish); still.Open {
		t.Errorf("open: %s", said)
	}
	good := server.Approved{Wish: plain, Signed: e.glass(shown.Plan.Promotion, e.web[0], "test")}
	if code, done, said := send[server.Attached](t, w, "/api/v1/approvals", developer, good); code != http.StatusOK || done.Approvals[0].Key != ann.Key.ID() {
		t.Errorf("%d %s", code, said)
	}
	_, open, _ := send[promote.Proposal](t, w, "/api/v1/promotions/plan", secret, wish)
	if !open.Open || open.Fingerprint == shown.Fingerprint {
		t.Errorf("%+v", open)
	}
	confirmed := server.Confirmed{Wish: wish, Fingerprint: open.Fingerprint}
	code, news, said := send[server.News](t, w, "/api/v1/promotions", secret, confirmed)
	if code != http.StatusOK || news.Outcome.State != promote.Done || news.Plan.Record.Actor != "Bob <bob@example.com>" {
		t.Errorf("%d %s", code, said)
	}
	if code, _, said := send[server.News](t, w, "/api/v1/promotions", secret, confirmed); code != http.StatusConflict { // the environment has changed
		t.Errorf("a second time: %d %s", code, said)
	}
}
