package engine

import (
	"strings"
	"testing"
	"time"

	"slipway/internal/mask"
	"slipway/pipeline"
)

// A secret is hidden although the other stream says something in the middle of it.
func TestStreamsAreHiddenByThemselves(t *testing.T) {
	m, _ := mask.New([]byte("a-long-secret"), []byte("another-secret"))
	h := &hider{mask: m, streams: map[stream]*hiddenStream{}}
	var shown strings.Builder
	show := func(p pipeline.Progress) {
		for _, l := range h.hide(p).Logs {
			shown.Write(l.Data)
		}
	}
	for i, text := range []string{"out a-long", "err another-", "-secret\n", "secret\n"} {
		show(pipeline.Progress{Logs: []pipeline.StepLog{{Step: "s", Stream: 1 + i%2, Data: []byte(text)}}})
	}
	now := time.Now()
	show(pipeline.Progress{Steps: []pipeline.Step{{ID: "s", Completed: &now}}})
	if got := shown.String(); strings.Contains(got, "a-long") || strings.Contains(got, "another-") || strings.Count(got, mask.Mark) != 2 {
		t.Errorf("shown: %q", got)
	}
}
