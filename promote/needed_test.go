package promote_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/git"
	"slipway/promote"
)

func TestNeeded(t *testing.T) {
	w := newWorld(t)
	const day = 24 * time.Hour
	began := w.now
	var v []digest.Digest
	for i, content := range []string{"1", "2", "3"} {
		v = append(v, w.build("web", content))
		w.now = began.Add(time.Duration(i) * 10 * day)
		if out := w.promote("test", promote.Wanted{Name: "web", Digest: v[i]}); out.State != promote.Done {
			t.Fatalf("%+v", out)
		}
	}
	w.now = began.Add(25 * day)
	want := func(what string, p *promote.Promoter, since time.Time, digests ...digest.Digest) {
		t.Helper()
		got, err := p.Needed(t.Context(), since)
		w.ok(err)
		slices.Sort(digests)
		if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, digests) {
			t.Errorf("%s: %v are needed, want %v", what, names, digests)
		}
	}
	other := w.promoter(t.TempDir()) // another root, which has promoted nothing
	want("the one that runs and the one before", other, w.now, v[1], v[2])
	want("what was in effect then", other, began.Add(15*day), v[1], v[2])
	want("all", other, began.Add(5*day), v[0], v[1], v[2])
	want("its own log adds nothing", w.p, w.now, v[1], v[2])

	// After going back twice, only the first is left; what was left is in the log of this root.
	for range 2 {
		plan, err := w.p.PlanRollback(t.Context(), promote.RollbackRequest{Environment: "test"})
		w.ok(err)
		_, err = w.p.Rollback(t.Context(), plan)
		w.ok(err)
	}
	w.now = w.now.Add(day)
	want("after rollbacks", other, w.now, v[0])
	want("after rollbacks, by who did them", w.p, w.now, v[0], v[1])

	// A file that somebody broke by hand still runs what it ran.
	w.commitEnv(map[string]string{"environments/test.yml": "nonsense: true\n"})
	want("a broken file", other, w.now.Add(day), v[0])

	// Environments that are not seen, by a wrong setting or none.
	nowhere := strings.TrimSuffix(t.TempDir(), "/") + "/none.git"
	repo, err := git.At(nowhere, git.Access{})
	w.ok(err)
	w.p.Environments.Repository = repo
	want("environments that are not seen", w.p, w.now, v[0], v[1])
}
