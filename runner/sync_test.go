package runner_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/pipeline"
	"slipway/runner"
)

// What a test or a volatile container writes is gone with it: nothing waits for
// the disk. A container whose data stays does wait. What was written is read
// back in each.
func TestSync(t *testing.T) {
	b := open(t)
	probe := runner.Bind{Source: programs.probe, Target: "/probe", ReadOnly: true}
	const (
		made = "fsync true\nfdatasync true\nsyncfs true\nsync_file_range true\nclose true\nsync errno 0\n"
		none = "fsync false\nfdatasync false\nsyncfs false\nsync_file_range false\nclose true\nsync errno 0\n"
	)
	src := t.TempDir()
	res, out := b.run(pipeline.Test{Command: []string{"sh", "-c", "/probe sync; echo row > /data/row; sync; cat /data/row"}}, func(q *runner.Request) {
		q.Binds = []runner.Bind{probe, {Source: src, Target: "/data"}}
	})
	if res.State != pipeline.Passed || out != none+"row\n" {
		t.Errorf("in a test: %+v\n%s", res, out)
	}
	if data, err := os.ReadFile(filepath.Join(src, "row")); string(data) != "row\n" {
		t.Errorf("a test's sandbox left %q (%v)", data, err)
	}
	for volatile, want := range map[bool]string{true: none, false: made} {
		s := b.service("db", "/probe sync", func(*runner.Service) {})
		var said strings.Builder
		c, err := b.Start(t.Context(), runner.ContainerRequest{ID: "db", Service: s.Service, Rootfs: s.Rootfs, Binds: []runner.Bind{probe}, Volatile: volatile}, &said)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-c.Ended():
		case <-time.After(time.Minute):
			t.Error("it does not end")
		}
		c.Close()
		if said.String() != want {
			t.Errorf("volatile %v: %q, want %q", volatile, said.String(), want)
		}
	}
}
