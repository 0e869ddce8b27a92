package main

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	otlp "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"slipway/internal/ledger"
)

// collector takes traces as an OpenTelemetry collector does.
type collector struct {
	mu  sync.Mutex
	all []*spans.Span
	of  []string // services
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var got otlp.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &got) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range got.ResourceSpans {
		for _, a := range resource.Resource.Attributes {
			if a.Key == "service.name" {
				c.of = append(c.of, a.Value.GetStringValue())
			}
		}
		for _, scope := range resource.ScopeSpans {
			c.all = append(c.all, scope.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// A run is one trace, from its webhook over build steps and tests to its promotion, also
// where the server ended between. The server's log names it.
func TestServeTraces(t *testing.T) {
	var c collector
	receiver := httptest.NewServer(&c)
	defer receiver.Close()
	v := newServed(t)
	v.env = append(v.env, "OTEL_EXPORTER_OTLP_ENDPOINT="+receiver.URL)
	v.write(t, ".ci.yml", "version: 1\nimages: {web: {build: ., tests: {unit: {command: \"cat /a.txt\"}, bad: {command: \"exit 3\"}}}}\n")
	failing := v.commit(t, "fails")
	v.write(t, ".ci.yml", "version: 1\nimages: {web: {build: ., tests: {unit: {command: \"cat /a.txt\"}}}}\nenvironments: [environments/test.yml]\n")
	commit := v.commit(t, "passes")
	v.start(t)
	v.push(t, "d1", zeros, failing)
	bad := v.until(t, failing, "over", func(r ledger.Run) bool { return r.State.Over() })
	v.stop(t, syscall.SIGTERM)
	v.start(t) // what comes later is in the same trace all the same
	v.must(t, "rerun", bad.ID)
	v.until(t, failing, "over again", func(r ledger.Run) bool { return r.State.Over() && r.Attempts == 2 })
	v.push(t, "d2", failing, commit)
	good := v.until(t, commit, "promoted", promoted)
	v.stop(t, syscall.SIGTERM)

	byRun := map[string]map[string][]*spans.Span{} // by run, then by the names of a span and those above it
	c.mu.Lock()
	defer c.mu.Unlock()
	byID := map[string]*spans.Span{}
	runs := map[string]string{} // by trace
	for _, s := range c.all {
		byID[string(s.SpanId)] = s
		for _, a := range s.Attributes {
			if a.Key == "slipway.run" {
				runs[string(s.TraceId)] = a.Value.GetStringValue()
			}
		}
	}
	for _, s := range c.all {
		path, at := s.Name, s
		for at.ParentSpanId != nil && byID[string(at.ParentSpanId)] != nil {
			at = byID[string(at.ParentSpanId)]
			path = at.Name + " > " + path
		}
		run := runs[string(s.TraceId)]
		if byRun[run] == nil {
			byRun[run] = map[string][]*spans.Span{}
		}
		byRun[run][path] = append(byRun[run][path], s)
		if s.EndTimeUnixNano < s.StartTimeUnixNano {
			t.Errorf("%s ends before it begins", path)
		}
	}
	if len(byRun) != 2 || len(c.of) == 0 || c.of[0] != "slipway" {
		t.Fatalf("traces of %d runs, by %v", len(byRun), c.of)
	}
	count := func(run, path string, want int) []*spans.Span {
		t.Helper()
		if n := len(byRun[run][path]); n != want {
			t.Errorf("%d spans %q, want %d", n, path, want)
		}
		return byRun[run][path]
	}
	count(good.ID, "webhook", 1)
	count(good.ID, "webhook > wait", 1)
	count(good.ID, "webhook > run", 1)
	count(good.ID, "webhook > run > web", 1)
	count(good.ID, "webhook > run > web/unit > test cat /a.txt", 1)
	count(good.ID, "webhook > promotion", 1)
	copied := false
	for path := range byRun[good.ID] {
		copied = copied || strings.HasPrefix(path, "webhook > run > web > ") && strings.Contains(path, "COPY a.txt")
	}
	if !copied {
		t.Errorf("no build step is traced: %v", byRun[good.ID])
	}
	count(bad.ID, "webhook", 1)
	count(bad.ID, "webhook > run", 2)
	count(bad.ID, "webhook > promotion", 0)
	for _, s := range count(bad.ID, "webhook > run > web/bad", 2) {
		if s.Status.GetCode() != spans.Status_STATUS_CODE_ERROR {
			t.Errorf("the test that failed: %v", s.Status)
		}
	}
	for run, paths := range byRun {
		if id := hex.EncodeToString(paths["webhook"][0].TraceId); !strings.Contains(v.said(), `"trace_id":"`+id+`"`) {
			t.Errorf("run %s: no line of the server's log names the trace %s", run, id)
		}
	}
}
