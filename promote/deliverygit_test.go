package promote_test

import (
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/git"
	"slipway/promote"
	"slipway/promote/deliverytest"
)

// elsewhere is a repository that somebody follows, with manifests in it.
func elsewhere(t *testing.T) string {
	t.Helper()
	dir := t.TempDir() + "/deploy.git"
	if err := git.Create(dir, "live"); err != nil {
		t.Fatal(err)
	}
	repo, err := git.At(dir, git.Access{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = repo.Head(t.Context(), "live")
	p, err := repo.Propose(git.Draft{Files: map[string][]byte{
		"k8s/web.yaml": []byte("kind: Deployment\nspec: {containers: [{name: web, image: r.example/web}]} # mine\n"),
		"prod.env":     []byte("API_IMAGE=r.example/api\n"),
	}, When: time.Now(), Message: "first\n"})
	if err == nil {
		err = repo.Push(t.Context(), "live", p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestGitDelivery(t *testing.T) {
	deliverytest.Run(t, func(t *testing.T) deliverytest.Subject {
		dir := elsewhere(t)
		open := func() promote.Deliverer {
			return &promote.GitDelivery{
				Home: "/nowhere.git", Line: "main", Now: time.Now, Sign: git.Person{Name: "Bob"},
				Git: func(address string) (*git.Repository, error) { return git.At(address, git.Access{}) },
			}
		}
		digests := func(version string) map[string]digest.Digest {
			return map[string]digest.Digest{"web": digest.FromString("web" + version), "api": digest.FromString("api" + version)}
		}
		return deliverytest.Subject{
			Deliverer: open(), Again: open, Old: digests("1"), New: digests("2"),
			Delivery: promote.Delivery{
				Environment: "prod", Promotion: "p1", Config: map[string]any{"repository": dir, "branch": "live", "path": []any{"k8s/web.yaml", "prod.env"}},
				Images: []promote.DeliveredImage{{Name: "web", Repository: "r.example/web"}, {Name: "api", Repository: "r.example/api"}},
			},
			Wrong: map[string]any{"repository": dir, "branch": "live", "path": "k8s/web.yaml"}, // api stands nowhere
		}
	})
}

// TestGitDeliveryBesideTheEnvironments: the manifest changes in the commit that
// promotes, and goes back in the one that takes it back.
func TestGitDeliveryBesideTheEnvironments(t *testing.T) {
	w := newWorld(t)
	w.commitEnv(map[string]string{
		"environments/test.yml": testYML + "deliver: {git: {path: deploy/compose.yml}}\nverify: {command: [sh, -c, '[ ! -e " + w.code + "/broken ]'], timeout: 2s}\n",
		"deploy/compose.yml":    "services:\n  web: {image: web} # front\n  api: {image: \"api:1\"}\n",
	})
	one := []promote.Wanted{{Name: "web", Digest: w.build("web", "1")}, {Name: "api", Digest: w.build("api", "api 1")}}
	if out := w.promote("test", one...); out.State != promote.Done {
		t.Fatalf("%+v", out)
	}
	want := "services:\n  web: {image: web@" + one[0].Digest.String() + "} # front\n  api: {image: \"api@" + one[1].Digest.String() + "\"}"
	if got := w.envFile("deploy/compose.yml"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if files := w.git(w.env, "show", "--name-only", "--format=", "main"); files != "deploy/compose.yml\nenvironments/test.yml" {
		t.Errorf("the commit changed %s", files)
	}
	w.touch(w.code + "/broken")
	if out := w.promote("test", promote.Wanted{Name: "web", Digest: w.build("web", "2")}); out.State != promote.Back {
		t.Fatalf("%+v", out)
	}
	if got := w.envFile("deploy/compose.yml"); got != want {
		t.Errorf("it went back to\n%s", got)
	}
	status, err := w.p.Status(t.Context(), "test")
	w.ok(err)
	if status[0].Drift != "" || status[0].Images[1].Running == nil || status[0].Images[1].Running.Digest != one[0].Digest {
		t.Errorf("status: %+v", status[0])
	}
	// Somebody changes the manifest by hand: that is drift.
	w.commitEnv(map[string]string{"deploy/compose.yml": strings.Replace(want, one[0].Digest.String(), one[1].Digest.String(), 1)})
	status, err = w.p.Status(t.Context(), "test")
	w.ok(err)
	if !strings.Contains(status[0].Drift, "web runs "+one[1].Digest.String()) {
		t.Errorf("no drift is seen: %+v", status[0])
	}
}
