package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/ledger"
	"slipway/promote"
)

// Wish is a promotion or rollback that somebody asks for.
type Wish struct {
	Environment string           `json:"environment"`
	Images      []promote.Wanted `json:"images,omitempty"`
	From        string           `json:"from,omitempty"`        // the environment that images without a digest are taken from
	Base        string           `json:"base,omitempty"`        // only if the environment is still as this commit left it
	BreakGlass  string           `json:"break_glass,omitempty"` // why gates should be set aside
	Rollback    bool             `json:"rollback,omitempty"`    // bring back what ran before, without Images
	To          string           `json:"to,omitempty"`          // of a rollback: a promotion or commit of the history; empty: the one before
}

// Confirmed is a wish whose plan somebody has seen.
type Confirmed struct {
	Wish
	Fingerprint digest.Digest `json:"fingerprint"` // of what was shown: nothing else is done
}

// Asking is what a person is asked who is to approve a wish.
type Asking struct {
	Questions []promote.Question `json:"questions"`
}

// Approved is a wish with what a person has signed about it. The server signs for nobody.
type Approved struct {
	Wish
	Signed []promote.Signed `json:"signed"`
}

// Attached is what of that hangs on the images.
type Attached struct {
	Approvals []promote.Assented `json:"approvals"`
}

// News is one line of what a promotion says while it goes on. The last has its
// Outcome, or the Error that it ended with.
type News struct {
	Says    string            `json:"says,omitempty"`
	Plan    *promote.Proposal `json:"plan,omitempty"` // as it was carried out
	Outcome *promote.Outcome  `json:"outcome,omitempty"`
	Error   string            `json:"error,omitempty"`
	Code    int               `json:"code,omitempty"` // that it would be answered with, had nothing been said yet
}

// maxApproved bounds approvals of several images: each is a signed statement.
const maxApproved = 4 << 20

// Environments are what runs where.
type Environments struct {
	Environments []promote.EnvironmentStatus `json:"environments"`
}

// Entries are what an environment went through, the newest first.
type Entries struct {
	Entries []promote.Entry `json:"entries"`
}

// changed says that what would be done is not what was shown.
type changed struct{ environment string }

func (c *changed) Error() string {
	return fmt.Sprintf("what would change in %s is not what you were shown: it has changed meanwhile; nothing was done, look again", c.environment)
}

// asked answers with what a promoter says about environments.
func asked[T any](s *Server, ask func(context.Context, *promote.Promoter, *http.Request) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var answer T
		by := identityOf(r.Context())
		err := s.Promoter(r.Context(), personOf(by), io.Discard, func(p *promote.Promoter) (err error) {
			answer, err = ask(r.Context(), p, r)
			return err
		})
		if err != nil {
			s.fail(w, err)
			return
		}
		s.say(w, http.StatusOK, answer)
	}
}

func environments(ctx context.Context, p *promote.Promoter, r *http.Request) (Environments, error) {
	all, err := p.Status(ctx, r.URL.Query()["name"]...)
	return Environments{orEmpty(all)}, err
}

func history(ctx context.Context, p *promote.Promoter, r *http.Request) (Entries, error) {
	state, err := p.Environments.Read(ctx)
	if err != nil {
		return Entries{}, err
	}
	all, err := state.History(r.PathValue("name"))
	return Entries{orEmpty(all)}, err
}

func difference(ctx context.Context, p *promote.Promoter, r *http.Request) (promote.Difference, error) {
	state, err := p.Environments.Read(ctx)
	if err != nil {
		return promote.Difference{}, err
	}
	return state.Diff(r.PathValue("name"), r.URL.Query().Get("from"))
}

// plan says what a wish comes to now.
func (q Wish) plan(ctx context.Context, p *promote.Promoter, actor string) (*promote.Plan, error) {
	if q.Rollback {
		return p.PlanRollback(ctx, promote.RollbackRequest{Environment: q.Environment, To: q.To, Actor: actor})
	}
	if q.BreakGlass != "" && !strings.Contains(actor, "@") { // a second person must be one: that is told by the address
		return nil, promote.Wrong("%s names no address, so nobody can tell who a second person is; `slipway tokens add \"NAME <ADDRESS>\"` makes a token that does", actor)
	}
	return p.Plan(ctx, promote.Request{Environment: q.Environment, Images: q.Images, From: q.From, Base: q.Base, BreakGlass: q.BreakGlass, Actor: actor})
}

// wished answers a wish with what comes of it, changing nothing of an environment.
func wished[Q any, T any](s *Server, do func(context.Context, *promote.Promoter, Q, string) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if !s.take(w, r, &q) {
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(5 * time.Minute)) // registries and repositories are asked; a server without deadlines needs none
		asked(s, func(ctx context.Context, p *promote.Promoter, _ *http.Request) (T, error) {
			return do(ctx, p, q, personOf(identityOf(ctx)))
		})(w, r)
	}
}

// personOf is who asks, as the commits of environments say it.
func personOf(by identity) string { return strings.TrimPrefix(by.actor, tokenActor) }

func proposed(ctx context.Context, p *promote.Promoter, q Wish, person string) (promote.Proposal, error) {
	plan, err := q.plan(ctx, p, person)
	if err != nil {
		return promote.Proposal{}, err
	}
	return plan.Propose(), nil
}

func asking(ctx context.Context, p *promote.Promoter, q Wish, person string) (Asking, error) {
	plan, err := q.plan(ctx, p, person)
	if err != nil {
		return Asking{}, err
	}
	all, err := p.Questions(plan)
	return Asking{orEmpty(all)}, err
}

func (s *Server) attached(ctx context.Context, p *promote.Promoter, q Approved, person string) (Attached, error) {
	plan, err := q.plan(ctx, p, person)
	if err != nil {
		return Attached{}, err
	}
	all, err := p.Attach(ctx, plan, q.Signed)
	detail := fmt.Sprint(len(all), " approvals attached")
	for _, a := range all {
		detail += fmt.Sprintf("; %s@%s by key %s", a.Image, a.Digest, a.Key)
	}
	if err != nil {
		detail = err.Error()
	}
	return Attached{orEmpty(all)}, errors.Join(err, s.Ledger.Note(ctx, ledger.Deed{At: time.Now(), Actor: identityOf(ctx).actor, Action: "approve", Object: q.Environment, Detail: detail}))
}

// carryOut does what was shown, and tells of it line by line. It goes on when
// whoever asked has gone: a promotion is not to be left half way.
func (s *Server) carryOut(w http.ResponseWriter, r *http.Request) {
	var q Confirmed
	if !s.take(w, r, &q) {
		return
	}
	by := identityOf(r.Context())
	ctx := context.WithoutCancel(r.Context())
	told := &newsWriter{w: w, rc: http.NewResponseController(w), enc: json.NewEncoder(w)}
	stop := told.keepAlive()
	var last News
	release := s.use(ctx)
	err := s.Promoter(ctx, personOf(by), told, func(p *promote.Promoter) error {
		plan, err := q.plan(ctx, p, personOf(by))
		if err != nil {
			return err
		}
		if plan.Propose().Fingerprint != q.Fingerprint {
			return &changed{q.Environment}
		}
		var out promote.Outcome
		if q.Rollback {
			out, err = p.Rollback(ctx, plan)
		} else {
			out, plan, err = p.Promote(ctx, plan)
		}
		if err != nil {
			return err
		}
		shown := plan.Propose()
		last.Plan, last.Outcome = &shown, &out
		return nil
	})
	release()
	deed := ledger.Deed{At: time.Now(), Actor: by.actor, Action: "promote", Object: q.Environment}
	if q.Rollback {
		deed.Action = "rollback"
	}
	if err != nil {
		deed.Detail = err.Error()
	} else {
		deed.Detail = strings.TrimSpace(fmt.Sprintf("%s %s %s", last.Outcome.Promotion, last.Outcome.State, last.Outcome.Reason))
	}
	err = errors.Join(err, s.Ledger.Note(ctx, deed))
	stop()
	if err != nil && !told.begun {
		s.fail(w, err)
		return
	}
	if err != nil {
		code, text := s.explain(err)
		last = News{Error: text, Code: code}
	}
	told.tell(last)
}

// newsWriter writes lines of news, each at once. What is written to it is what
// deliveries and checks say.
type newsWriter struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	rc    *http.ResponseController
	enc   *json.Encoder
	begun bool
	half  string
}

func (n *newsWriter) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	lines := strings.Split(n.half+string(p), "\n")
	n.half = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		n.line(News{Says: line})
	}
	return len(p), nil
}

func (n *newsWriter) tell(what any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.half != "" {
		n.line(News{Says: n.half})
	}
	n.line(what)
}

// line writes one; whoever asked may be gone, and the promotion goes on.
func (n *newsWriter) line(what any) {
	if !n.begun {
		n.w.Header().Set("Content-Type", newsType)
		n.w.Header().Set("Cache-Control", "no-store")
		n.w.Header().Set("X-Accel-Buffering", "no")
		n.begun = true
	}
	_ = n.rc.SetWriteDeadline(time.Now().Add(time.Minute)) // a server without deadlines needs none
	if n.enc.Encode(what) == nil {
		_ = n.rc.Flush()
	}
}

// keepAlive lets no connection fall asleep over a long verification.
func (n *newsWriter) keepAlive() (stop func()) {
	_ = n.rc.SetWriteDeadline(time.Now().Add(time.Minute))
	ticker, done, ended := time.NewTicker(quiet), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				n.mu.Lock()
				n.line(News{})
				n.mu.Unlock()
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(done)
		<-ended
	}
}

const (
	newsType = "application/x-ndjson"
	quiet    = 15 * time.Second // how long a stream says nothing at most
)
