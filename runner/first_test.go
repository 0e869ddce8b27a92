package runner_test

import (
	"testing"

	"slipway/pipeline"
)

func TestFirst(t *testing.T) {
	b := open(t)
	res, out := b.sh("echo hello; echo err >&2; id; cat /proc/self/status; exit 3")
	t.Logf("%+v\n%s", res, out)
	if res.State != pipeline.Failed || res.ExitCode != 3 {
		t.Fatal("no")
	}
}
