package promote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/git"
	"slipway/internal/registry"
	"slipway/internal/registry/local"
	"slipway/promote"
)

// count is how often a trial is made: a few times in `make test`, often in `make soak`.
func count(few, often int) int {
	if os.Getenv("SLIPWAY_SOAK") != "" {
		return often
	}
	return few
}

// job is what a process of a trial does.
type job struct {
	Dir, Env, Store, Running string
	Base                     string
	Digest                   digest.Digest // empty: it only finishes what was cut off
}

// child is that process. It prints how it ended.
func child(text string) int {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		panic(err)
	}
	said, err := j.run(context.Background())
	if err != nil {
		said = "error: " + err.Error()
	}
	fmt.Println(said)
	return 0
}

func (j job) promoter() (*promote.Promoter, func() error, error) {
	store, err := local.Open(j.Store)
	if err != nil {
		return nil, nil, err
	}
	open := func(address string) (*git.Repository, error) { return git.At(address, git.Access{}) }
	repo, err := open(j.Env)
	return &promote.Promoter{
		Dir: j.Dir, Environments: promote.Environments{Repository: repo, Branch: "main"}, Registries: &registry.Registries{Local: store},
		Git: open, Now: time.Now, Sign: git.Person{Name: "racer", Email: "racer@example.com"},
		Deliverers: map[string]promote.Deliverer{"local": filePlace{j.Running}},
	}, store.Close, err
}

func (j job) run(ctx context.Context) (string, error) {
	p, done, err := j.promoter()
	if err != nil {
		return "", err
	}
	defer func() { _ = done() }()
	if j.Digest == "" {
		ended, err := p.Recover(ctx)
		return fmt.Sprint("recovered ", len(ended)), err
	}
	var lost *promote.Lost
	plan, err := p.Plan(ctx, promote.Request{Environment: "test", Images: []promote.Wanted{{Name: "web", Digest: j.Digest}}, Actor: j.Dir, Base: j.Base})
	if errors.As(err, &lost) {
		return "lost", nil
	}
	if err != nil {
		return "", err
	}
	out, _, err := p.Promote(ctx, plan)
	if errors.As(err, &lost) {
		return "lost", nil
	}
	return out.State, err
}

func (j job) command(t *testing.T) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "PROMOTE_CHILD="+string(text))
	return cmd
}

// filePlace runs what a file says: a delivery that outlives the process that made it.
type filePlace struct{ path string }

func (filePlace) Check(context.Context, promote.Delivery) error { return nil }

func (f filePlace) Deliver(_ context.Context, d promote.Delivery, _ io.Writer) error {
	for _, im := range d.Images {
		if im.Name == "web" {
			if err := os.WriteFile(f.path+".new", []byte(im.Digest), 0o600); err != nil {
				return err
			}
			return os.Rename(f.path+".new", f.path)
		}
	}
	return nil
}

func (f filePlace) Status(context.Context, promote.Delivery) (promote.Status, error) {
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return promote.Status{Known: true, Images: []promote.ImageStatus{{Name: "web", Digest: digest.Digest(text), State: "running"}}}, err
}

// arena is a world for processes.
func arena(t *testing.T) (*world, job, []digest.Digest) {
	w := newWorld(t)
	w.commitEnv(map[string]string{"environments/test.yml": "version: 1\nname: test\nimages: {web: {repository: live/web}}   # one line\ndeliver: {local: {}}\nverify: {command: ['true'], timeout: 1m}\n"})
	j := job{Env: w.env, Store: filepath.Join(filepath.Dir(w.env), "images"), Running: filepath.Join(t.TempDir(), "running")}
	return w, j, []digest.Digest{w.build("web", "a"), w.build("web", "b"), w.build("web", "c")}
}

// TestRaces: of two processes on two roots that start from the same state one
// wins, the other is told, and the history is a line.
func TestRaces(t *testing.T) {
	w, j, digests := arena(t)
	rounds := count(4, 200)
	before := w.git(w.env, "rev-list", "--count", "main")
	roots := []string{t.TempDir(), t.TempDir()}
	for round := range rounds {
		base := w.git(w.env, "log", "-1", "--format=%H", "main", "--", "environments/test.yml")
		var running []*exec.Cmd
		said := make([]bytes.Buffer, 2)
		var others []digest.Digest
		for _, d := range digests {
			if !strings.Contains(w.envFile("environments/test.yml"), d.String()) {
				others = append(others, d)
			}
		}
		for i, root := range roots {
			j.Dir, j.Base, j.Digest = root, base, others[i]
			cmd := j.command(t)
			cmd.Stdout, cmd.Stderr = &said[i], &said[i]
			w.ok(cmd.Start())
			running = append(running, cmd)
		}
		for _, cmd := range running {
			w.ok(cmd.Wait())
		}
		results := strings.TrimSpace(said[0].String()) + " " + strings.TrimSpace(said[1].String())
		if results != "done lost" && results != "lost done" {
			t.Fatalf("round %d: %s", round, results)
		}
	}
	if merges := w.git(w.env, "rev-list", "--merges", "--count", "main"); merges != "0" {
		t.Errorf("%s merges", merges)
	}
	var first, last int
	_, _ = fmt.Sscan(before, &first)
	_, _ = fmt.Sscan(w.git(w.env, "rev-list", "--count", "main"), &last)
	if last != first+rounds {
		t.Errorf("%d commits, want %d", last, first+rounds)
	}
	w.git(w.env, "fsck", "--strict")
	t.Logf("%d races: one winner each, %d commits in a line", rounds, rounds)
}

// TestKills: whenever a promotion is killed, the configuration is the old or the
// new one, and the next start brings everything to an end.
func TestKills(t *testing.T) {
	w, j, digests := arena(t)
	j.Dir, j.Digest = t.TempDir(), digests[0]
	start := time.Now()
	if out, err := j.command(t).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "done" {
		t.Fatalf("%s, %v", out, err)
	}
	took := time.Since(start)
	shape := strings.NewReplacer(digests[0].String(), "", digests[1].String(), "", digests[2].String(), "").Replace
	want := shape(w.envFile("environments/test.yml"))
	phases := map[string]int{}
	for trial := range count(8, 200) {
		old := w.running()
		j.Digest = digests[trial%3]
		if j.Digest == old {
			j.Digest = digests[(trial+1)%3]
		}
		cmd := j.command(t)
		w.ok(cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		if trial%4 > 0 { // most of its life is over before it changes anything
			await(filepath.Join(j.Dir, "test.journal"), ended)
			time.Sleep(rand.N(took / 2))
		} else {
			time.Sleep(rand.N(took))
		}
		_ = cmd.Process.Kill() // it may have ended
		<-ended                //nolint:errcheck // killed, or ended before it
		phases[phase(j.Dir)]++
		if now := w.running(); now != old && now != j.Digest || shape(w.envFile("environments/test.yml")) != want {
			t.Fatalf("trial %d: neither old nor new:\n%s", trial, w.envFile("environments/test.yml"))
		}
		next := j
		next.Digest = ""
		if out, err := next.command(t).CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "recovered") {
			t.Fatalf("trial %d: the next start: %s, %v", trial, out, err)
		}
		now := w.running()
		delivered, err := os.ReadFile(j.Running)
		w.ok(err)
		if string(delivered) != now.String() || now != old && now != j.Digest {
			t.Fatalf("trial %d: %s is promoted, %s runs; it was %s and became %s", trial, now, delivered, old, j.Digest)
		}
		if left, _ := filepath.Glob(filepath.Join(j.Dir, "*.journal")); len(left) > 0 {
			t.Fatalf("trial %d: left %v", trial, left)
		}
	}
	if locks, _ := filepath.Glob(filepath.Join(w.env, "refs/heads/*.lock")); len(locks) > 0 {
		t.Errorf("left %v", locks)
	}
	w.git(w.env, "fsck", "--strict")
	p, done, err := j.promoter()
	w.ok(err)
	defer func() { w.ok(done()) }()
	a, err := p.VerifyAudit(t.Context(), "")
	w.ok(err)
	t.Logf("killed in these phases: %v; the log has %d lines, %d of them in commits", phases, a.Lines, a.Pinned)
}

// await waits until a file is there or a process has ended.
func await(path string, ended <-chan error) {
	for len(ended) == 0 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// running is what the environment's file says.
func (w *world) running() digest.Digest {
	w.t.Helper()
	text := w.envFile("environments/test.yml")
	_, after, found := strings.Cut(text, `digest: "`)
	d, _, _ := strings.Cut(after, `"`)
	if !found || digest.Digest(d).Validate() != nil {
		w.t.Fatalf("no digest in %s", text)
	}
	return digest.Digest(d)
}

// phase is how far the journal had come.
func phase(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "test.journal"))
	if err != nil {
		return "before or after"
	}
	last := "nothing"
	for line := range strings.Lines(string(text)) {
		var l struct{ Step string }
		if json.Unmarshal([]byte(line), &l) == nil {
			last = l.Step
		}
	}
	return last
}
