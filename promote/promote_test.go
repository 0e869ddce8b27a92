package promote_test

import (
	"errors"
	"strings"
	"testing"

	"slipway/internal/attest"
	"slipway/promote"
)

// TestFromRunToProd: what was tested in test and approved runs in prod, and the
// commit says why.
func TestFromRunToProd(t *testing.T) {
	w := newWorld(t)
	web := promote.Wanted{Name: "web", Digest: w.build("web", "one", "unit", "integration")}

	if out := w.promote("prod", web); out.State != promote.Refused || !strings.Contains(out.Reason, "it has not run there") {
		t.Fatalf("before it was in test: %+v", out)
	}
	if out := w.promote("test", web); out.State != promote.Done || out.Commit == "" {
		t.Fatalf("to test: %+v", out)
	}
	if out := w.promote("prod", web); out.State != promote.Refused || !strings.Contains(out.Reason, "approvals") {
		t.Fatalf("before it was approved: %+v", out)
	}
	before := w.envFile("environments/prod.yml")
	w.approve("prod", web)
	out := w.promote("prod", web)
	if out.State != promote.Done {
		t.Fatalf("to prod: %+v", out)
	}
	after := w.envFile("environments/prod.yml")
	if want := strings.Replace(before, "repository: prod/web", "repository: prod/web, digest: \""+web.Digest.String()+"\"", 1); after != want {
		t.Errorf("the file is now\n%s\nwant\n%s", after, want)
	}
	message := w.git(w.env, "log", "-1", "--format=%B", "main")
	for _, line := range []string{
		"Slipway-Promotion: " + out.Promotion, "Slipway-Image: web " + web.Digest.String() + " previous none",
		"Slipway-Actor: Bob <bob@example.com>", "Slipway-From: test", "Slipway-Evidence: sha256:", "Slipway-Source: web " + w.git(w.code, "rev-parse", "HEAD"),
	} {
		if !strings.Contains(message, line) {
			t.Errorf("the message lacks %q:\n%s", line, message)
		}
	}
	// The proofs travelled along.
	list, err := w.repo("prod/web").Referrers(t.Context(), web.Digest, attest.MediaType)
	if err != nil || len(list) != 3 {
		t.Errorf("%d referrers, %v; want two tests and an approval", len(list), err)
	}
	if again := w.promote("prod", web); again.State != promote.Unchanged {
		t.Errorf("again: %+v", again)
	}
}

func TestSeveralImagesAreOneCommit(t *testing.T) {
	w := newWorld(t)
	both := []promote.Wanted{{Name: "web", Digest: w.build("web", "1")}, {Name: "api", Digest: w.build("api", "2")}}
	before := w.git(w.env, "rev-list", "--count", "main")
	if out := w.promote("test", both...); out.State != promote.Done || len(out.Images) != 2 {
		t.Fatalf("%+v", out)
	}
	if after := w.git(w.env, "rev-list", "--count", "main"); before != "1" || after != "2" {
		t.Errorf("%s commits before, %s after", before, after)
	}
}

// TestStaleplan: who was shown another state than there is now has lost.
func TestStalePlan(t *testing.T) {
	w := newWorld(t)
	mine, theirs := promote.Wanted{Name: "web", Digest: w.build("web", "mine")}, promote.Wanted{Name: "web", Digest: w.build("web", "theirs")}
	shown := w.plan("test", mine)
	won := w.promote("test", theirs)
	_, _, err := w.p.Promote(t.Context(), shown)
	var lost *promote.Lost
	if !errors.As(err, &lost) || lost.By.ID != won.Promotion {
		t.Fatalf("got %v, want lost to %s", err, won.Promotion)
	}
	// A change of another environment is no reason to lose.
	shown = w.plan("test", mine)
	w.commitEnv(map[string]string{"environments/other.yml": "version: 1\nname: other\n"})
	if out, _, err := w.p.Promote(t.Context(), shown); err != nil || out.State != promote.Done {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestRollback(t *testing.T) {
	w := newWorld(t)
	var ids []promote.Wanted
	for _, content := range []string{"1", "2", "3"} {
		im := promote.Wanted{Name: "web", Digest: w.build("web", content)}
		ids = append(ids, im)
		w.promote("test", im)
	}
	back := func(to string) promote.Outcome {
		t.Helper()
		plan, err := w.p.PlanRollback(t.Context(), promote.RollbackRequest{Environment: "test", To: to, Actor: "Bob"})
		w.ok(err)
		out, err := w.p.Rollback(t.Context(), plan)
		w.ok(err)
		return out
	}
	runs := func(want promote.Wanted) {
		t.Helper()
		if file := w.envFile("environments/test.yml"); !strings.Contains(file, want.Digest.String()) {
			t.Fatalf("got %s, want %s", file, want.Digest)
		}
	}
	back("")
	runs(ids[1])
	back("") // further back, not forth again
	runs(ids[0])
	if _, err := w.p.PlanRollback(t.Context(), promote.RollbackRequest{Environment: "test"}); err == nil || !strings.Contains(err.Error(), "env history") {
		t.Errorf("before the first: %v", err)
	}
	state, err := w.p.Environments.Read(t.Context())
	w.ok(err)
	history, err := state.History("test")
	w.ok(err)
	back(history[2].ID)
	runs(ids[2])
	w.promote("test", ids[0])
	back("")
	runs(ids[2])
}

func TestFailureIsTakenBack(t *testing.T) {
	w := newWorld(t)
	flag := t.TempDir() + "/broken"
	w.commitEnv(map[string]string{"environments/test.yml": testYML + "deliver: {local: {}}\nverify: {command: [test, '!', -e, " + flag + "], timeout: 2s}\n"})
	good, bad := promote.Wanted{Name: "web", Digest: w.build("web", "good")}, promote.Wanted{Name: "web", Digest: w.build("web", "bad")}
	if out := w.promote("test", good); out.State != promote.Done {
		t.Fatalf("%+v", out)
	}
	before := w.envFile("environments/test.yml")
	w.touch(flag)
	out := w.promote("test", bad)
	if out.State != promote.Back || !strings.Contains(out.Reason, "verification failed") {
		t.Fatalf("%+v", out)
	}
	if after := w.envFile("environments/test.yml"); after != before {
		t.Errorf("the file is\n%s\nand was\n%s", after, before)
	}
	if got := w.deliver.running["web"].Digest; got != good.Digest {
		t.Errorf("%s runs", got)
	}
	w.remove(flag)
	w.commitEnv(map[string]string{"environments/test.yml": strings.Replace(before, "timeout: 2s", "timeout: 5m", 1)})
	// A delivery that fails, and one that runs something else.
	w.deliver.fails = 1
	if out := w.promote("test", bad); out.State != promote.Back || !strings.Contains(out.Reason, "no room") {
		t.Errorf("%+v", out)
	}
	w.deliver.drift = good.Digest
	if out := w.promote("test", bad); out.State != promote.Back || !strings.Contains(out.Reason, "runs "+good.Digest.String()) {
		t.Errorf("%+v", out)
	}
	w.deliver.drift = ""
	// Where it ran and failed it has not soaked, nor come from there.
	state, err := w.p.Environments.Read(t.Context())
	w.ok(err)
	history, err := state.History("test")
	w.ok(err)
	if history[0].Kind != promote.RolledBack || history[0].Of == "" || history[0].Reason == "" || history[0].Runs["web"] != good.Digest {
		t.Errorf("history: %+v", history[0])
	}
	w.deliver.fails = 2
	if out := w.promote("test", bad); out.State != promote.Broken {
		t.Errorf("neither could be delivered: %+v", out)
	}
}

func TestKeepOnFailure(t *testing.T) {
	w := newWorld(t)
	w.commitEnv(map[string]string{"environments/test.yml": testYML + "verify: {command: ['false'], timeout: 10ms, on_failure: keep}\n"})
	im := promote.Wanted{Name: "web", Digest: w.build("web", "x")}
	if out := w.promote("test", im); out.State != promote.Broken {
		t.Fatalf("%+v", out)
	}
	if file := w.envFile("environments/test.yml"); !strings.Contains(file, im.Digest.String()) {
		t.Errorf("it was taken back: %s", file)
	}
}

func TestFirstPromotionIsTakenBackToNothing(t *testing.T) {
	w := newWorld(t)
	w.commitEnv(map[string]string{"environments/test.yml": testYML + "deliver: {local: {}}\nverify: {command: ['false'], timeout: 10ms}\n"})
	before := w.envFile("environments/test.yml")
	if out := w.promote("test", promote.Wanted{Name: "web", Digest: w.build("web", "x")}); out.State != promote.Back {
		t.Fatalf("%+v", out)
	}
	if after := w.envFile("environments/test.yml"); after != before {
		t.Errorf("the file is\n%s\nand was\n%s", after, before)
	}
	if len(w.deliver.running) > 0 {
		t.Errorf("runs: %v", w.deliver.running)
	}
}

func TestAudit(t *testing.T) {
	w := newWorld(t)
	for _, content := range []string{"1", "2"} {
		w.promote("test", promote.Wanted{Name: "web", Digest: w.build("web", content)})
	}
	w.promote("prod", promote.Wanted{Name: "web", Digest: w.build("web", "2")}) // refused
	var log strings.Builder
	w.ok(w.p.Audit().Export(&log))
	state, err := w.p.Environments.Read(t.Context())
	w.ok(err)
	history, err := state.History("test")
	w.ok(err)
	check := func(text string) error {
		a, err := promote.ReadAudit("audit", []byte(text))
		if err != nil {
			return err
		}
		if text == log.String() && (a.Lines != 5 || a.Events[4].What != promote.Refused) {
			t.Errorf("%+v", a.Events)
		}
		return a.Pin(history)
	}
	w.ok(check(log.String()))
	lines := strings.SplitAfter(log.String(), "\n")
	for name, text := range map[string]string{
		"a line changed":        strings.Replace(log.String(), "Bob", "Eve", 1),
		"a line taken out":      strings.Join(append(append([]string{}, lines[:1]...), lines[2:]...), ""),
		"its end cut off":       strings.Join(lines[:2], ""),
		"its beginning cut off": strings.Join(lines[1:], ""),
		"cut within a line":     log.String()[:log.Len()-3],
	} {
		if err := check(text); err == nil {
			t.Errorf("%s, and nobody sees it", name)
		}
	}
}
