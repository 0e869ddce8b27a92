package server

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/promote"
)

// route is one thing that the server answers. The mux and the OpenAPI document are
// made of one list of them, api: what is in the one is in the other.
type route struct {
	pattern string      // of http.ServeMux
	role    ledger.Role // that it takes; empty: anybody may ask
	summary string
	query   []parameter // what may stand behind the path
	takes   content     // of a POST
	limit   int64       // bytes of that; 0: small
	gives   content
	code    int // of success; 0: 200
	do      http.HandlerFunc
}

// parameter of a query.
type parameter struct{ name, says string }

// content is a body: its type for JSON, or how else it is written.
type content struct {
	of    any      // a value of the type; nil: it has no schema
	media []string // none: application/json, where of is something
}

// small is how many bytes of a body are read where a route says nothing else.
const small = 64 << 10

// api is all that is answered on the network.
func (s *Server) api() []route {
	return slices.Concat(s.aboutItself(), s.aboutRuns(), s.aboutEnvironments(), s.aboutRoot())
}

// aboutItself: whether it lives, what it measures, its pages, and the door for webhooks.
func (s *Server) aboutItself() []route {
	page := content{media: []string{"text/html"}}
	return []route{
		{
			pattern: "GET /healthz", summary: "Say that the server lives",
			gives: content{of: health{}}, do: s.alive,
		},
		{
			pattern: "GET /readyz", summary: "Say whether webhooks can be taken",
			gives: content{of: health{}}, do: s.ready,
		},
		{
			pattern: "POST /hooks/{id}", summary: "Take a webhook of a repository, signed as its forge signs",
			takes: content{media: []string{"application/json", "application/x-www-form-urlencoded"}}, limit: forge.MaxBody + 1,
			gives: content{media: []string{"text/plain"}}, code: http.StatusAccepted, do: s.hook,
		},
		{
			pattern: "GET /metrics", role: ledger.Viewer, summary: "Give Prometheus what is measured",
			gives: content{media: []string{"text/plain"}}, do: promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}).ServeHTTP,
		},
		{pattern: "GET /{$}", role: ledger.Viewer, summary: "Show the newest runs as a page", gives: page, do: s.page},
		{pattern: "GET /runs/{id}", role: ledger.Viewer, summary: "Show a run as a page", gives: page, do: s.runPage},
		{
			pattern: "GET /api/v1/openapi.json", role: ledger.Viewer, summary: "Describe all that the server answers, as OpenAPI 3.1",
			gives: content{of: map[string]any{}}, do: s.openapi,
		},
	}
}

// aboutRuns: what ran and runs, and what is to be done with it.
func (s *Server) aboutRuns() []route {
	return []route{
		{
			pattern: "GET /api/v1/runs", role: ledger.Viewer, summary: "List runs, the newest first",
			query: []parameter{{"repo", "only those of this repository"}, {"state", "only those in this state"}, {"ref", "only those of this ref"}, {"limit", "at most so many, up to 1000"}, {"before", "only those older than this run"}},
			gives: content{of: runList{}}, do: s.list,
		},
		{pattern: "GET /api/v1/runs/{id}", role: ledger.Viewer, summary: "Give a run with its attempts", gives: content{of: shown{}}, do: s.show},
		{
			pattern: "GET /api/v1/runs/{id}/logs", role: ledger.Viewer, summary: "Give the lines of a run's log; as events, follow it to its end",
			query: []parameter{{"after", "ATTEMPT-LINE: only what comes behind it, as with Last-Event-ID"}},
			gives: content{of: Line{}, media: []string{"application/x-ndjson", "text/event-stream"}}, do: s.logs,
		},
		{
			pattern: "POST /api/v1/runs/{id}/thaw", role: ledger.Developer, summary: "Remove what is kept of a run's failed tests",
			takes: content{of: thawed{}}, gives: content{of: ledger.Run{}}, do: act(s, "thaw", s.thaw),
		},
		{pattern: "GET /api/v1/kept", role: ledger.Viewer, summary: "List the failed tests whose sandboxes stay", gives: content{of: KeptList{}}, do: s.listKept},
		{
			pattern: "GET /api/v1/runs/{id}/shell", role: ledger.Developer, code: http.StatusSwitchingProtocols,
			summary: "Open a WebSocket to a terminal in a kept test; with secrets in it, it takes a sysadmin",
			query:   []parameter{{"test", "IMAGE/TEST; without it the only one that is kept of the run"}}, do: s.shell,
		},
		{
			pattern: "POST /api/v1/uploads", role: ledger.Developer, summary: "Take the files of a run: a tar archive, compressed by zstd",
			query: []parameter{{"bytes", "how many they are unpacked; too many are refused before they are sent"}},
			takes: content{media: []string{"application/zstd"}}, limit: s.Uploads.Limit + 1,
			gives: content{of: Uploaded{}}, code: http.StatusCreated, do: s.takeUpload,
		},
		{
			pattern: "POST /api/v1/runs", role: ledger.Developer, summary: "Run an upload: unsigned, without the secrets of repositories",
			takes: content{of: Begin{}}, limit: maxBegin, gives: content{of: ledger.Run{}}, code: http.StatusAccepted, do: s.beginRun,
		},
		{
			pattern: "POST /api/v1/forecasts", role: ledger.Developer, summary: "Say what a run of an upload would do; none is made",
			takes: content{of: Begin{}}, limit: maxBegin, gives: content{of: Foretold{}}, do: s.foretell,
		},
		{
			pattern: "POST /api/v1/runs/{id}/cancel", role: ledger.Developer, summary: "End a run",
			takes: content{of: empty{}}, gives: content{of: ledger.Run{}},
			do: act(s, "cancel", func(ctx context.Context, r ledger.Run, by identity, _ empty) error {
				return s.Ledger.Cancel(ctx, r.ID, "canceled by "+by.actor)
			}),
		},
		{
			pattern: "POST /api/v1/runs/{id}/rerun", role: ledger.Developer, summary: "Try a run again",
			takes: content{of: rerun{}}, gives: content{of: ledger.Run{}},
			do: act(s, "rerun", func(ctx context.Context, r ledger.Run, _ identity, q rerun) error {
				return s.Ledger.Rerun(ctx, r.ID, ledger.Again{FromFailed: q.FromFailed, SamePlan: q.SamePlan})
			}),
		},
		{
			pattern: "POST /api/v1/runs/{id}/allow", role: ledger.Sysadmin, summary: "Let a commit of a fork run",
			takes: content{of: looked{}}, gives: content{of: ledger.Run{}},
			do: act(s, "allow", func(ctx context.Context, r ledger.Run, by identity, q looked) error {
				return s.Ledger.Allow(ctx, r.ID, q.Commit, by.actor)
			}),
		},
	}
}

// aboutEnvironments: what runs where, and what brings it there.
func (s *Server) aboutEnvironments() []route {
	return []route{
		{
			pattern: "GET /api/v1/environments", role: ledger.Viewer, summary: "Say what runs where, since when and by whom",
			query: []parameter{{"name", "only this environment; may stand there several times"}},
			gives: content{of: Environments{}}, do: asked(s, environments),
		},
		{
			pattern: "GET /api/v1/environments/{name}/history", role: ledger.Viewer, summary: "List what an environment went through, the newest first",
			gives: content{of: Entries{}}, do: asked(s, history),
		},
		{
			pattern: "GET /api/v1/environments/{name}/diff", role: ledger.Viewer, summary: "Compare an environment with what it was, or with another",
			query: []parameter{{"from", "another environment, or a promotion or commit of its history; without it the state before the last change"}},
			gives: content{of: promote.Difference{}}, do: asked(s, difference),
		},
		{
			pattern: "POST /api/v1/promotions/plan", role: ledger.Developer, summary: "Say what a promotion or rollback would do, and whether it may",
			takes: content{of: Wish{}}, gives: content{of: promote.Proposal{}}, do: wished(s, proposed),
		},
		{
			pattern: "POST /api/v1/promotions", role: ledger.Sysadmin, summary: "Do what a plan says that was shown, and nothing else",
			takes: content{of: Confirmed{}}, gives: content{of: News{}, media: []string{newsType}}, do: s.carryOut,
		},
		{
			pattern: "POST /api/v1/approvals/questions", role: ledger.Developer, summary: "Say what is to be signed by a person who approves",
			takes: content{of: Wish{}}, gives: content{of: Asking{}}, do: wished(s, asking),
		},
		{
			pattern: "POST /api/v1/approvals", role: ledger.Developer, summary: "Attach what a person has signed with his own key",
			takes: content{of: Approved{}}, limit: maxApproved, gives: content{of: Attached{}}, do: wished(s, s.attached),
		},
	}
}

// aboutRoot: what is registered and written down, and the room that it takes.
func (s *Server) aboutRoot() []route {
	return []route{
		{pattern: "GET /api/v1/repos", role: ledger.Viewer, summary: "List the repositories", gives: content{of: repoList{}}, do: s.repos},
		{
			pattern: "POST /api/v1/repos/{name}", role: ledger.Admin, summary: "Change what is registered of a repository; what is not said stays",
			takes: content{of: RepoChange{}}, gives: content{of: RepoChanged{}}, do: s.setRepo,
		},
		{pattern: "GET /api/v1/schedules", role: ledger.Viewer, summary: "List the schedules, with when they are due", gives: content{of: scheduleList{}}, do: s.schedules},
		{pattern: "GET /api/v1/audit", role: ledger.Admin, summary: "List what was done and refused, the newest first", gives: content{of: deedList{}}, do: s.audit},
		{
			pattern: "POST /api/v1/gc", role: ledger.Admin, summary: "Free space, once nothing runs; what is not said is as the server has it",
			takes: content{of: Retention{}}, gives: content{of: Collected{}}, do: s.gc,
		},
	}
}

// forThisMachine is for commands of the same slipway, over the socket, and no part of the API.
func (s *Server) forThisMachine() (all []route) {
	for name, do := range s.Chores {
		all = append(all, route{pattern: "POST /local/" + name, role: ledger.Admin, limit: 4 << 20, do: s.chore(do)})
	}
	return all
}

// Handler answers on the network. Webhooks are let in by their signature, health
// by anyone, and all else by a token.
func (s *Server) Handler() http.Handler { return s.limited(s.mux(s.byToken, s.api())) }

// LocalHandler answers on the root's socket: who may open that has the root.
func (s *Server) LocalHandler(actor func(context.Context) string) http.Handler {
	return s.mux(func(r *http.Request) (identity, error) {
		return identity{actor(r.Context()), ledger.Admin}, nil
	}, slices.Concat(s.api(), s.forThisMachine()))
}

func (s *Server) mux(who authenticator, routes []route) http.Handler {
	mux := http.NewServeMux()
	for _, r := range routes {
		do := r.do
		if r.role != "" {
			do = s.guard(who, r.role, do)
		}
		mux.HandleFunc(r.pattern, func(w http.ResponseWriter, q *http.Request) {
			q.Body = http.MaxBytesReader(w, q.Body, r.bodyLimit())
			do(w, q)
		})
	}
	return mux
}

func (r route) bodyLimit() int64 {
	if r.limit > 0 {
		return r.limit
	}
	return small
}

// operation is the route's method and its path as OpenAPI writes it.
func (r route) operation() (method, path string) {
	method, path, _ = strings.Cut(r.pattern, " ")
	return strings.ToLower(method), strings.TrimSuffix(path, "{$}")
}
