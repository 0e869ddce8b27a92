package server

import (
	"encoding/json"
	"html/template"
	"net/http"
	"time"

	"slipway/internal/ledger"
)

// The page is plain: what runs, and what became of what ran.
var (
	pageTemplate = template.Must(template.New("page").Funcs(pageFuncs).Parse(pageHead + `<h1>slipway</h1>
<table><tr><th>run<th>repository<th>ref<th>commit<th>state<th>accepted<th>
{{range .}}<tr><td><a href="/runs/{{.ID}}">{{.ID}}</a><td>{{.Name}}<td>{{.Ref}}<td>{{slice .Commit 0 (short .Commit)}} {{.Title}}<td class="{{.State}}">{{.State}}<td>{{time .Created}}<td>{{.Reason}}
{{else}}<tr><td colspan="7">No run yet. "slipway repos add URL" registers a repository.
{{end}}</table>`))
	runTemplate = template.Must(template.New("run").Funcs(pageFuncs).Parse(pageHead + `<h1><a href="/">slipway</a> {{.Run.ID}}</h1>
<p>{{.Run.Name}} {{.Run.Ref}} {{.Run.Commit}} {{.Run.Title}}
<p class="{{.Run.State}}">{{.Run.State}} {{.Run.Reason}}
{{with .Run.Promotion}}<p>promotion {{.State}}: {{.Detail}}{{end}}
{{with .Images}}<table><tr><th>image<th>state<th>took<th>
{{range .}}<tr><td>{{.Name}}{{range $k, $v := .Matrix}} {{$k}}={{$v}}{{end}}<td class="{{.State}}">{{.State}}<td>{{.BuildMS}} ms<td>{{with .Digest}}<code>{{.}}</code>{{end}} {{.Reason}}
{{range .Tests}}<tr><td>&nbsp;&nbsp;{{.Name}}<td class="{{.State}}">{{.State}}<td>{{.DurationMS}} ms<td>{{with .ReusedFrom}}reused from {{.}}{{end}} {{.Reason}}
{{end}}{{end}}</table>{{end}}
<table><tr><th>attempt<th>state<th>began<th>
{{range .Tries}}<tr><td>{{.N}}<td class="{{.State}}">{{.State}}<td>{{time .Started}}<td>{{.Reason}}
{{end}}</table>
<p><a href="/api/v1/runs/{{.Run.ID}}/logs">log</a>, <a href="/api/v1/runs/{{.Run.ID}}">all of it as JSON</a>`))
)

// outcome is what the page shows of a run's record, which is cmd's.
type outcome struct {
	Images []struct {
		Name    string
		Matrix  map[string]string
		State   string
		Reason  string
		Digest  string
		BuildMS int64 `json:"build_ms"`
		Tests   []struct {
			Name       string
			State      string
			Reason     string
			DurationMS int64  `json:"duration_ms"`
			ReusedFrom string `json:"reused_from"`
		}
	}
}

const pageHead = `<!doctype html><meta charset="utf-8"><title>slipway</title>
<style>body{font-family:sans-serif;margin:2em}td,th{text-align:left;padding:.2em 1em .2em 0}.passed,.built,.cached{color:#070}.failed,.error{color:#b00}.running{color:#05a}</style>
`

var pageFuncs = template.FuncMap{
	"time":  func(t time.Time) string { return t.Local().Format(time.DateTime) },
	"short": func(commit string) int { return min(12, len(commit)) },
}

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	runs, err := s.Ledger.Runs(r.Context(), ledger.Filter{Limit: 100})
	s.render(w, pageTemplate, runs, err)
}

func (s *Server) runPage(w http.ResponseWriter, r *http.Request) {
	run, err := s.Ledger.Run(r.Context(), r.PathValue("id"))
	var attempts []ledger.Attempt
	if err == nil {
		attempts, err = s.Ledger.Attempts(r.Context(), run.ID)
	}
	var o outcome
	if err == nil && len(run.Result) > 0 {
		err = json.Unmarshal(run.Result, &o)
	}
	s.render(w, runTemplate, struct {
		shown
		outcome
	}{shown{run, attempts}, o}, err)
}

func (s *Server) render(w http.ResponseWriter, t *template.Template, what any, err error) {
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := t.Execute(w, what); err != nil {
		s.Log.Debug().Err(err).Msg("a page was not sent to its end")
	}
}
