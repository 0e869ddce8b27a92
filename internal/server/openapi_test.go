package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/internal/upload"
	"slipway/promote"
)

// asked are the real questions to each route, "METHOD path" as the document has
// them. {id} is a run that failed, {held} one that is held.
var asked = map[string]question{
	"get /healthz":                            {path: "/healthz"},
	"get /readyz":                             {path: "/readyz"},
	"post /hooks/{id}":                        {}, // every test delivers one
	"get /metrics":                            {path: "/metrics"},
	"get /":                                   {path: "/"},
	"get /runs/{id}":                          {path: "/runs/{id}"},
	"get /api/v1/openapi.json":                {path: "/api/v1/openapi.json"},
	"get /api/v1/runs":                        {path: "/api/v1/runs?state=failed&limit=10"},
	"get /api/v1/runs/{id}":                   {path: "/api/v1/runs/{id}"},
	"get /api/v1/runs/{id}/logs":              {path: "/api/v1/runs/{id}/logs?after=1-1", media: "application/x-ndjson"},
	"get /api/v1/kept":                        {path: "/api/v1/kept"},
	"get /api/v1/runs/{id}/shell":             {}, // TestShell opens one
	"post /api/v1/runs/{id}/thaw":             {path: "/api/v1/runs/{id}/thaw", body: `{"test": "web/unit"}`},
	"get /api/v1/environments":                {path: "/api/v1/environments?name=test"},
	"get /api/v1/environments/{name}/history": {path: "/api/v1/environments/test/history"},
	"get /api/v1/environments/{name}/diff":    {path: "/api/v1/environments/test/diff"},
	"post /api/v1/promotions/plan":            {path: "/api/v1/promotions/plan", body: wishText},
	"post /api/v1/promotions":                 {path: "/api/v1/promotions", body: wishText[:len(wishText)-1] + `, "fingerprint": "{fingerprint}"}`},
	"post /api/v1/approvals/questions":        {path: "/api/v1/approvals/questions", body: wishText},
	"post /api/v1/approvals":                  {path: "/api/v1/approvals", body: wishText[:len(wishText)-1] + `, "signed": {signed}}`},
	"post /api/v1/uploads":                    {path: "/api/v1/uploads?bytes=5", body: "hello", kind: "application/zstd"},
	"post /api/v1/runs":                       {path: "/api/v1/runs", body: `{"upload": "` + digest.FromString("hello").String() + `", "event": {"ref": "refs/heads/main", "changed": ["a"]}, "only": ["web"]}`},
	"post /api/v1/forecasts":                  {path: "/api/v1/forecasts", body: `{"upload": "` + digest.FromString("hello").String() + `", "event": {"ref": "refs/heads/main"}, "keep_seconds": 60}`},
	"get /api/v1/repos":                       {path: "/api/v1/repos"},
	"post /api/v1/repos/{name}":               {path: "/api/v1/repos/example%2Fweb", body: `{"forks": "deny", "deny": [], "new_secret": true}`},
	"get /api/v1/schedules":                   {path: "/api/v1/schedules"},
	"get /api/v1/audit":                       {path: "/api/v1/audit"},
	"post /api/v1/runs/{id}/allow":            {path: "/api/v1/runs/{held}/allow", body: `{"commit": "` + hash(9) + `"}`},
	"post /api/v1/runs/{id}/cancel":           {path: "/api/v1/runs/{held}/cancel", body: "{}"},
	"post /api/v1/runs/{id}/rerun":            {path: "/api/v1/runs/{id}/rerun", body: `{"from_failed": true}`},
	"post /api/v1/gc":                         {path: "/api/v1/gc", body: `{"keep_runs": 3}`},
}

// wishText is a promotion to the environment of an estate.
const wishText = `{"environment": "test", "images": [{"name": "web", "digest": "{web}"}]}`

type question struct {
	path, body string
	kind       string // of the body; empty: JSON
	media      string // to accept
}

// document compiles what the server says of itself, and finds schemas in it.
type document struct {
	t        *testing.T
	compiler *jsonschema.Compiler
	doc      map[string]any
}

const documentURL = "https://ci.example.com/api/v1/openapi.json"

func (d document) at(path ...string) any {
	var v any = d.doc
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok || m[p] == nil {
			d.t.Fatalf("the document has no %s", strings.Join(path, " "))
		}
		v = m[p]
	}
	return v
}

// holds checks a body against the schema that the document has at a path.
func (d document) holds(body string, path ...string) {
	d.t.Helper()
	if err := d.check(body, path...); err != nil {
		d.t.Errorf("%s: %v\n%s", path, err, body)
	}
}

func (d document) check(body string, path ...string) error {
	d.t.Helper()
	d.at(path...)
	path = slices.Clone(path)
	for i, p := range path {
		path[i] = strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(p)
	}
	schema, err := d.compiler.Compile(documentURL + "#/" + strings.Join(path, "/"))
	must(d.t, err)
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	must(d.t, err)
	return schema.Validate(v)
}

// The document is OpenAPI 3.1, has every route, and what the server really answers
// is what it says.
func TestOpenAPI(t *testing.T) {
	w, e := newWorld(t), newEstate(t, gatedYML)
	uploads := upload.Store{Dir: filepath.Join(w.dir, "uploads"), Limit: 1 << 20}
	_, _, err := uploads.Put(strings.NewReader("hello"))
	must(t, err)
	foretell := func(_ context.Context, r ledger.Run) (server.Foretold, error) {
		data, err := json.Marshal(r.Asked)
		return server.Foretold{Forecast: data, Text: "plan"}, err
	}
	w.serve(t, server.Options{Public: "https://ci.example.com", Uploads: uploads, Foretell: foretell, Promoter: e.promoter, Kept: func(context.Context) ([]server.Kept, error) { return nil, nil }, Collect: func(context.Context, server.Retention) (server.Collected, error) {
		return server.Collected{Runs: 1}, nil
	}}, func(ctx context.Context, r ledger.Run, l *server.Log) (ledger.End, error) {
		if !r.Trusted {
			<-ctx.Done() // there is something to cancel
			return ledger.End{State: ledger.Canceled}, nil
		}
		l.Say("web/unit", "one")
		l.Say("web/unit", "two")
		return ledger.End{State: ledger.Failed, Reason: "web/unit: exit code 1", Plan: "sha256:1", Result: json.RawMessage(`{"state": "failed"}`)}, nil
	})
	token := w.token(t, ledger.Admin)
	w.accepted(t, 1)
	failed := w.until(t, "failed", over)
	fork := `{"event":"pull_request","repository":"example/web","ref":"refs/pull/7/head","after":"` + hash(9) + `","pull_request":{"number":7,"action":"opened","base":"main","source":"fork/web"}}`
	if code, said := w.deliver(t, http.DefaultClient, "fork", []byte(fork)); code != http.StatusAccepted {
		t.Fatalf("%d %s", code, said)
	}
	_, err = w.ledger.AddSchedule(t.Context(), ledger.Schedule{Repo: "hook", Name: "yearly", Cron: "@yearly", Zone: "UTC", Branch: "main"})
	must(t, err)
	held := w.until(t, "held", func(r ledger.Run) bool { return r.State == ledger.Held })

	_, text := w.request(t, http.MethodGet, "/api/v1/openapi.json", token)
	d := document{t: t, compiler: jsonschema.NewCompiler()}
	d.compiler.AssertFormat()
	must(t, json.Unmarshal([]byte(text), &d.doc))
	must(t, d.compiler.AddResource(documentURL, map[string]any(d.doc)))
	d.isOpenAPI()

	var have []string
	for path, methods := range d.at("paths").(map[string]any) { //nolint:forcetypeassert // isOpenAPI has looked
		for method := range methods.(map[string]any) { //nolint:forcetypeassert // the same
			have = append(have, method+" "+path)
		}
	}
	slices.Sort(have)
	routes := server.New(server.Options{}).Patterns()
	if len(have) != len(routes) {
		t.Errorf("%d operations of %d routes", len(have), len(routes))
	}
	for _, pattern := range routes {
		method, path, _ := strings.Cut(strings.TrimSuffix(pattern, "{$}"), " ")
		if !slices.Contains(have, strings.ToLower(method)+" "+path) {
			t.Errorf("%s is not in the document", pattern)
		}
	}
	_, shown, _ := send[promote.Proposal](t, w, "/api/v1/promotions/plan", token, json.RawMessage(strings.ReplaceAll(wishText, "{web}", e.web[0].Digest.String())))
	signed, err := json.Marshal(e.glass("any", e.web[0], "test"))
	must(t, err)
	real := strings.NewReplacer("{id}", failed.ID, "{held}", held.ID, "{web}", e.web[0].Digest.String(), "{fingerprint}", shown.Fingerprint.String(), "{signed}", string(signed))
	for _, op := range have { // sorted: gets come before posts, allow before cancel before rerun
		ask, known := asked[op]
		if !known {
			t.Errorf("no question to %s is asked here: add one to asked", op)
		}
		if ask.path == "" {
			continue
		}
		method, path, _ := strings.Cut(op, " ")
		ask.path, ask.body = real.Replace(ask.path), real.Replace(ask.body)
		d.answers(w, token, method, path, ask)
	}
	for _, bad := range []string{`{"runs": null}`, `{"runs": [{"id": "1"}]}`, `{}`} {
		if d.check(bad, "paths", "/api/v1/runs", "get", "responses", "200", "content", "application/json", "schema") == nil {
			t.Errorf("%s is taken for a list of runs", bad)
		}
	}
	code, refused := w.request(t, http.MethodGet, "/api/v1/runs/none", token)
	if code != http.StatusNotFound {
		t.Errorf("%d %s", code, refused)
	}
	d.holds(refused, "paths", "/api/v1/runs/{id}", "get", "responses", "default", "content", "application/json", "schema")
}

// isOpenAPI holds the document to the schema of the OpenAPI Initiative, and its
// schemas to that of JSON Schema.
func (d document) isOpenAPI() {
	d.t.Helper()
	data, err := os.ReadFile("testdata/openapi-3.1.schema.json") // https://spec.openapis.org/oas/3.1/schema/2022-10-07
	must(d.t, err)
	official, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	must(d.t, err)
	must(d.t, d.compiler.AddResource("https://spec.openapis.org/oas/3.1/schema/2022-10-07", official))
	schema, err := d.compiler.Compile("https://spec.openapis.org/oas/3.1/schema/2022-10-07")
	must(d.t, err)
	if err := schema.Validate(map[string]any(d.doc)); err != nil {
		d.t.Fatal(err)
	}
	for name := range d.at("components", "schemas").(map[string]any) { //nolint:forcetypeassert // the schema has looked
		if _, err := d.compiler.Compile(documentURL + "#/components/schemas/" + name); err != nil {
			d.t.Error(err)
		}
	}
	// The check can fail.
	d.doc["paths"].(map[string]any)["no slash"] = map[string]any{} //nolint:forcetypeassert // the same
	if schema.Validate(map[string]any(d.doc)) == nil {
		d.t.Error("a path without a slash is taken for OpenAPI")
	}
	delete(d.doc["paths"].(map[string]any), "no slash") //nolint:forcetypeassert // the same
}

// answers asks a route, and holds the question and the answer to the document.
func (d document) answers(w *world, token, method, path string, q question) {
	d.t.Helper()
	req, err := http.NewRequest(strings.ToUpper(method), w.http.URL+q.path, strings.NewReader(q.body))
	must(d.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", q.media)
	if q.kind != "" {
		req.Header.Set("Content-Type", q.kind)
		d.at("paths", path, method, "requestBody", "content", q.kind)
	} else if q.body != "" {
		req.Header.Set("Content-Type", "application/json")
		d.holds(q.body, "paths", path, method, "requestBody", "content", "application/json", "schema")
	}
	resp, err := http.DefaultClient.Do(req)
	must(d.t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	must(d.t, err)
	if resp.StatusCode/100 != 2 {
		d.t.Errorf("%s %s: %d %s", method, q.path, resp.StatusCode, answer)
		return
	}
	code := fmt.Sprint(resp.StatusCode)
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	content, _ := d.at("paths", path, method, "responses", code, "content", media).(map[string]any)
	if content["schema"] == nil {
		if strings.Contains(media, "json") {
			d.t.Errorf("%s %s: its JSON has no schema", method, path)
		}
		return
	}
	lines := []string{string(answer)}
	if media == "application/x-ndjson" {
		lines = strings.Split(strings.TrimSpace(string(answer)), "\n")
	}
	for _, line := range lines {
		d.holds(line, "paths", path, method, "responses", code, "content", media, "schema")
	}
}
