package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/pipeline"
)

// world is a server on a ledger, whose runs are what a test says.
type world struct {
	dir    string
	ledger *ledger.Ledger
	secret []byte
	ids    atomic.Int64
	http   *httptest.Server
	stop   func()
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// newWorld opens a ledger with one repository; serve makes it work.
func newWorld(tb testing.TB) *world {
	tb.Helper()
	return newWorldOn(tb, filepath.Join(tb.TempDir(), "ledger.db"))
}

func newWorldOn(tb testing.TB, database string) *world {
	tb.Helper()
	w := &world{dir: tb.TempDir(), secret: []byte(forge.NewSecret())}
	var err error
	w.ledger, err = ledger.Open(context.Background(), ledger.Options{Database: database, Owner: "here"})
	must(tb, err)
	tb.Cleanup(func() { must(tb, w.ledger.Close()) })
	must(tb, w.ledger.AddRepo(context.Background(), ledger.Repo{ID: "hook", Name: "example/web", URL: "https://git.example.com/example/web.git", Forge: "generic", Secret: w.secret, Created: time.Now()}))
	return w
}

type runFunc func(context.Context, ledger.Run, *server.Log) (ledger.End, error)

func (w *world) serve(tb testing.TB, o server.Options, run runFunc) {
	tb.Helper()
	o.Ledger, o.Log = w.ledger, zerolog.New(zerolog.NewTestWriter(tb)).Level(zerolog.WarnLevel)
	o.NewID = func() string { return fmt.Sprintf("r%08d", w.ids.Add(1)) }
	o.LogFile = func(record string) string { return filepath.Join(w.dir, record) }
	o.Run = func(ctx context.Context, _ ledger.Repo, r ledger.Run, l *server.Log) (ledger.End, error) {
		return run(ctx, r, l)
	}
	if o.Promote == nil {
		o.Promote = func(context.Context, ledger.Repo, ledger.Run) (string, error) { return "", nil }
	}
	if o.Reach == nil {
		o.Reach = func(ledger.Repo) server.Reach { return server.Reach{} }
	}
	o.Runs = max(1, o.Runs)
	s := server.New(o)
	w.http = httptest.NewServer(s.Handler())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Work(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		must(tb, <-ended)
		w.http.Close()
	})
	tb.Cleanup(w.stop)
}

func hash(n int) string { return fmt.Sprintf("%040x", n+1) }

func push(n int) []byte {
	return fmt.Appendf(nil, `{"event":"push","repository":"example/web","ref":"refs/heads/b%d","before":%q,"after":%q}`, n, hash(n-1), hash(n))
}

func (w *world) deliver(tb testing.TB, client *http.Client, id string, body []byte) (int, string) {
	h, err := forge.Sign(w.secret, id, time.Now(), body)
	must(tb, err)
	req, err := http.NewRequest(http.MethodPost, w.http.URL+"/hooks/hook", bytes.NewReader(body))
	must(tb, err)
	req.Header = h
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(said)
}

func (w *world) accepted(t *testing.T, n int) {
	t.Helper()
	if code, said := w.deliver(t, http.DefaultClient, fmt.Sprint("d", n), push(n)); code != http.StatusAccepted {
		t.Fatalf("%d %s", code, said)
	}
}

func (w *world) until(t *testing.T, what string, wanted func(ledger.Run) bool) ledger.Run {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		all, err := w.ledger.Runs(t.Context(), ledger.Filter{})
		must(t, err)
		for _, r := range all {
			if r, err = w.ledger.Run(t.Context(), r.ID); err == nil && wanted(r) {
				return r
			}
		}
	}
	t.Fatalf("no run came to be %s", what)
	return ledger.Run{}
}

func over(r ledger.Run) bool { return r.State.Over() }

func (w *world) token(t *testing.T, role ledger.Role) string {
	t.Helper()
	secret, _, err := w.ledger.AddToken(t.Context(), string(role), role, time.Time{})
	must(t, err)
	return secret
}

func (w *world) request(t *testing.T, method, path, token string, header ...string) (int, string) {
	t.Helper()
	return w.send(t, method, path, token, "{}", header...)
}

// ask sends JSON.
func (w *world) ask(t *testing.T, method, path, token, body string) (int, string) {
	t.Helper()
	return w.send(t, method, path, token, body, "Content-Type", "application/json")
}

func (w *world) send(t *testing.T, method, path, token, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, w.http.URL+path, strings.NewReader(body))
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(said)
}

func TestRunsEndAsTheyEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		run  runFunc
		want ledger.State
		says string
	}{
		{"passed", func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
			return ledger.End{State: ledger.Passed}, nil
		}, ledger.Passed, ""},
		{"failed", func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
			return ledger.End{State: ledger.Failed, Reason: "web/unit: exit code 1"}, nil
		}, ledger.Failed, "web/unit"},
		{"error", func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
			return ledger.End{}, errors.New("the disk is full")
		}, ledger.Broken, "the disk is full"},
		{"panic", func(context.Context, ledger.Run, *server.Log) (ledger.End, error) { panic("no") }, ledger.Broken, "panicked: no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve(t, server.Options{}, c.run)
			w.accepted(t, 1)
			if r := w.until(t, "over", over); r.State != c.want || !strings.Contains(r.Reason, c.says) {
				t.Errorf("%s %s", r.State, r.Reason)
			}
		})
	}
}

func TestCancelReachesTheRun(t *testing.T) {
	w := newWorld(t)
	w.serve(t, server.Options{}, func(ctx context.Context, _ ledger.Run, _ *server.Log) (ledger.End, error) {
		<-ctx.Done()
		return ledger.End{State: ledger.Canceled, Reason: context.Cause(ctx).Error()}, nil
	})
	w.accepted(t, 1)
	r := w.until(t, "running", func(r ledger.Run) bool { return r.State == ledger.Running })
	if code, said := w.request(t, http.MethodPost, "/api/v1/runs/"+r.ID+"/cancel", w.token(t, ledger.Developer), "Content-Type", "application/json"); code != http.StatusOK {
		t.Fatalf("%d %s", code, said)
	}
	if r = w.until(t, "over", over); r.State != ledger.Canceled || r.Reason != "canceled by token developer" {
		t.Errorf("%s %s", r.State, r.Reason)
	}
	if code, _ := w.request(t, http.MethodPost, "/api/v1/runs/"+r.ID+"/rerun", w.token(t, ledger.Admin), "Content-Type", "text/plain"); code != http.StatusUnsupportedMediaType {
		t.Errorf("a form of another site: %d", code)
	}
	deeds, err := w.ledger.Deeds(t.Context(), 10)
	must(t, err)
	if len(deeds) != 1 || deeds[0].Actor != "token developer" || deeds[0].Action != "cancel" || deeds[0].Object != r.ID {
		t.Errorf("deeds: %+v", deeds)
	}
}

func TestDrainGivesBack(t *testing.T) {
	w := newWorld(t)
	w.serve(t, server.Options{Drain: time.Millisecond}, func(ctx context.Context, _ ledger.Run, _ *server.Log) (ledger.End, error) {
		<-ctx.Done()
		return ledger.End{State: ledger.Canceled, Reason: context.Cause(ctx).Error()}, nil
	})
	w.accepted(t, 1)
	w.until(t, "running", func(r ledger.Run) bool { return r.State == ledger.Running })
	w.stop()
	w.until(t, "queued", func(r ledger.Run) bool { return r.State == ledger.Queued })
	w.serve(t, server.Options{}, func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
		return ledger.End{State: ledger.Passed}, nil
	})
	if r := w.until(t, "over", over); r.State != ledger.Passed || r.Attempts != 2 {
		t.Errorf("%s at attempt %d", r.State, r.Attempts)
	}
}

func TestPromotionIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	var tries atomic.Int64
	w.serve(t, server.Options{Promote: func(context.Context, ledger.Repo, ledger.Run) (string, error) {
		if tries.Add(1) == 1 {
			return "", errors.New("the registry is down")
		}
		return "test: done", nil
	}}, func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
		return ledger.End{State: ledger.Passed, Promote: true}, nil
	})
	w.accepted(t, 1)
	r := w.until(t, "promoted", func(r ledger.Run) bool { return r.Promotion != nil && r.Promotion.State == ledger.PromotionDone })
	if r.Promotion.Detail != "test: done" || r.Promotion.Tries != 2 {
		t.Errorf("%+v", r.Promotion)
	}
}

// lines are those of an answer's body, bare or as events.
func lines(t *testing.T, body string) (all []server.Line) {
	t.Helper()
	for text := range strings.SplitSeq(body, "\n") {
		text = strings.TrimPrefix(text, "data: ")
		if !strings.HasPrefix(text, `{"seq"`) {
			continue
		}
		var n server.Line
		must(t, json.Unmarshal([]byte(text), &n))
		all = append(all, n)
	}
	return all
}

func TestLogsAreFollowedWithoutAGap(t *testing.T) {
	w := newWorld(t)
	goOn := make(chan struct{})
	w.serve(t, server.Options{}, func(_ context.Context, _ ledger.Run, l *server.Log) (ledger.End, error) {
		started := time.Now()
		l.Progress(pipeline.Progress{Task: "web/unit", Steps: []pipeline.Step{{ID: "web/unit", Name: "test", Started: &started}}})
		for n := range 1000 {
			l.Progress(pipeline.Progress{Task: "web/unit", Logs: []pipeline.StepLog{{Step: "web/unit", Data: fmt.Appendf(nil, "line\x1b[31m %d\nha", n)}}})
			l.Progress(pipeline.Progress{Task: "web/unit", Logs: []pipeline.StepLog{{Step: "web/unit", Data: []byte("lf\n")}}})
			if n == 500 {
				<-goOn
			}
		}
		l.Progress(pipeline.Progress{Task: "web/unit", Logs: []pipeline.StepLog{{Step: "web/unit", Data: bytes.Repeat([]byte("x"), 100_000)}}})
		return ledger.End{State: ledger.Failed, Reason: "in the end"}, nil
	})
	token := w.token(t, ledger.Viewer)
	w.accepted(t, 1)
	r := w.until(t, "running", func(r ledger.Run) bool { return r.State == ledger.Running })
	path := "/api/v1/runs/" + r.ID + "/logs"
	_, now := w.request(t, http.MethodGet, path, token)
	time.AfterFunc(300*time.Millisecond, func() { close(goOn) })
	_, followed := w.request(t, http.MethodGet, path, token, "Accept", "text/event-stream")
	all := lines(t, followed)
	for i, n := range all {
		if n.Seq != int64(i+1) {
			t.Fatalf("line %d has number %d", i+1, n.Seq)
		}
	}
	long := slices.IndexFunc(all, func(n server.Line) bool { return n.More })
	if len(all) != 1+2000+7+1 || long != 2001 || all[1].Text != "line\x1b[31m 0" || all[2].Text != "half" || all[len(all)-1].Text != "failed: in the end" {
		t.Errorf("%d lines, the long one at %d", len(all), long)
	}
	if n := len(lines(t, now)); n >= len(all) {
		t.Errorf("%d lines before the end", n)
	}
	if !strings.Contains(followed, "event: end\ndata: {\"reason\":\"in the end\",\"state\":\"failed\"}\n\n") {
		t.Error("no end is told")
	}
	_, rest := w.request(t, http.MethodGet, path, token, "Accept", "text/event-stream", "Last-Event-ID", "1-1500")
	if left := lines(t, rest); len(left) != len(all)-1500 || left[0].Seq != 1501 {
		t.Errorf("from 1500 on: %d lines", len(left))
	}
	_, text := w.request(t, http.MethodGet, path, token, "Accept", "text/html,*/*")
	if !strings.HasSuffix(text, "xxxx\nfailed: in the end\n") || !strings.Contains(text, "\nweb/unit | xxxx") {
		t.Errorf("a browser gets %.200q", text)
	}
}

// The page shows what became of a run, and markup of others as text.
func TestRunPage(t *testing.T) {
	w := newWorld(t)
	w.serve(t, server.Options{}, func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
		return ledger.End{
			State: ledger.Passed, Title: "<b>bold</b>",
			Result: json.RawMessage(`{"images": [{"name": "web", "state": "built", "digest": "sha256:12", "build_ms": 7, "tests": [{"name": "unit", "state": "passed", "reused_from": "an older"}]}]}`),
		}, nil
	})
	w.accepted(t, 1)
	r := w.until(t, "over", func(r ledger.Run) bool { return r.State.Over() })
	code, page := w.request(t, http.MethodGet, "/runs/"+r.ID, w.token(t, ledger.Viewer))
	for _, want := range []string{"web<td", "sha256:12", "7 ms", "unit<td", "reused from an older", "&lt;b&gt;bold"} {
		if !strings.Contains(page, want) {
			t.Errorf("%d: no %q in %s", code, want, page)
		}
	}
	if strings.Contains(page, "<b>") {
		t.Error("a title is markup")
	}
}

// A forge that is down is told later; what it refuses is given up.
func TestStatusesReachTheForge(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var states []string
	down := true
	api := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			down = false
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		body, _ := io.ReadAll(r.Body)
		states = append(states, string(body))
	}))
	defer api.Close()
	w.serve(t, server.Options{Public: "https://ci.example.com", Reach: func(ledger.Repo) server.Reach {
		return server.Reach{API: api.URL, Token: forge.NewSecret()}
	}}, func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
		return ledger.End{State: ledger.Passed, Says: "1 image, 2 tests"}, nil
	})
	w.accepted(t, 1)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		mu.Lock()
		told := strings.Join(states, "\n")
		mu.Unlock()
		if strings.Contains(told, "success") && strings.Contains(told, "1 image, 2 tests") && strings.Contains(told, hash(1)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the forge was told %s", told)
		}
	}
}

// What becomes of a fork's pull request is its repository's policy; it is never trusted.
func TestForks(t *testing.T) {
	for policy, want := range map[pipeline.Forks]ledger.State{"": ledger.Held, pipeline.ForksHold: ledger.Held, pipeline.ForksAllow: ledger.Passed, pipeline.ForksDeny: ledger.Skipped} {
		t.Run(string(policy), func(t *testing.T) {
			w := newWorld(t)
			must(t, w.ledger.DropRepo(t.Context(), "hook"))
			must(t, w.ledger.AddRepo(t.Context(), ledger.Repo{
				ID: "hook", Name: "example/web", URL: "https://git.example.com/example/web.git", Forge: "generic", Secret: w.secret, Policy: ledger.Policy{Forks: policy},
			}))
			w.serve(t, server.Options{}, func(_ context.Context, r ledger.Run, _ *server.Log) (ledger.End, error) {
				if r.Trusted {
					t.Error("a fork is trusted")
				}
				return ledger.End{State: ledger.Passed}, nil
			})
			body := fmt.Sprintf(`{"event":"pull_request","repository":"example/web","ref":"refs/pull/7/head","after":%q,"pull_request":{"number":7,"action":"opened","base":"main","source":"fork/web"}}`, hash(9))
			if code, said := w.deliver(t, http.DefaultClient, "fork", []byte(body)); code != http.StatusAccepted {
				t.Fatalf("%d %s", code, said)
			}
			r := w.until(t, string(want), func(r ledger.Run) bool { return r.State == want })
			if r.Trusted || (r.Allowed != "") != (policy == pipeline.ForksAllow) {
				t.Errorf("%+v", r)
			}
		})
	}
}
