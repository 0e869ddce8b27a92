package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/pipeline"
)

// schedule gives the only schedule as it is, or with a time makes it due since then.
func (v *served) schedule(t *testing.T, ago time.Duration) ledger.Schedule {
	t.Helper()
	l, err := (&globals{root: v.root}).openLedger(t.Context(), ledgerFlags{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := l.Schedules(t.Context())
	if err == nil && ago > 0 {
		if _, err = l.Keep(t.Context(), all[0], "none", "", time.Now().Add(-ago)); err == nil {
			all, err = l.Schedules(t.Context())
		}
	}
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// A server that is killed around the time a schedule is due makes its run once.
func TestServeScheduleKilled(t *testing.T) {
	v := newServed(t)
	v.must(t, "schedules", "add", "example/web", "hourly", "--cron", "0 * * * *")
	times, kills := 3, 0
	if os.Getenv("SLIPWAY_SOAK") != "" {
		times = 30
	}
	for n := range times {
		due := v.schedule(t, time.Duration(100+n)*time.Hour).Due
		for v.schedule(t, 0).Due.Equal(due) {
			v.begin(t)
			time.Sleep(rand.N(400 * time.Millisecond)) // it is up in half of that
			v.stop(t, syscall.SIGKILL)
			kills++
		}
		v.start(t)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			var of []ledger.Run
			for _, r := range v.runs(t) {
				if r.Before == due.Format(time.RFC3339) {
					of = append(of, r)
				}
			}
			if len(of) != 1 {
				t.Fatalf("%d runs of %v after %d kills\n%s", len(of), due, kills, v.said())
			}
			if of[0].State.Over() {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%+v\n%s", of[0], v.said())
			}
		}
		v.stop(t, syscall.SIGKILL)
	}
	if all := v.schedule(t, 0); !all.Due.After(time.Now()) {
		t.Errorf("due at %v", all.Due)
	}
	t.Logf("%d due times, %d kills", times, kills)
	v.start(t) // what is left of the last one
	v.stop(t, syscall.SIGTERM)
	v.nothingLeft(t, "after the server")
}

// Tests for nights alone are left out by a push and run by a schedule, which
// reuses what the push has tested and promotes nothing.
func TestServeSchedule(t *testing.T) {
	v := newServed(t)
	v.write(t, ".ci.yml", `version: 1
images:
  web:
    build: .
    tests:
      unit: {command: "cat /a.txt"}
      long: {command: "cat /a.txt", when: {schedule: {names: [nightly]}}}
environments: [environments/test.yml]
`)
	commit := v.commit(t, "nights")
	for args, want := range map[string]string{"--cron 1": "says no times", "--cron @daily --timezone Mars": "no time zone"} {
		if out, err := v.slipway(append([]string{"schedules", "add", "example/web", "bad"}, strings.Fields(args)...)...).CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("schedules add %s: %v %s", args, err, out)
		}
	}
	v.must(t, "schedules", "add", "example/web", "nightly", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin")
	v.must(t, "schedules", "add", "example/web", "other", "--cron", "@yearly", "--branch", "other")
	v.must(t, "schedules", "rm", "example/web", "other")
	if out := string(v.must(t, "schedules", "ls")); !strings.Contains(out, "Europe/Berlin") || strings.Contains(out, "other") {
		t.Errorf("schedules ls: %s", out)
	}

	v.start(t)
	v.push(t, "d1", zeros, commit)
	pushed := v.until(t, commit, "promoted", promoted)
	if tests := recordOf(t, pushed).Images[0].Tests; pushed.State != ledger.Passed || tests[0].State != pipeline.Passed || tests[1].State != pipeline.Skipped || tests[1].Reason != "when: pushes are not named" {
		t.Fatalf("%s: %+v", pushed.State, tests)
	}

	v.schedule(t, 48*time.Hour)
	night := v.until(t, commit, "run by the schedule", func(r ledger.Run) bool { return r.Kind == pipeline.Schedule && r.State.Over() })
	record := recordOf(t, night)
	if tests := record.Images[0].Tests; night.State != ledger.Passed || record.Unsigned != "" || tests[0].ReusedFrom == "" || tests[1].State != pipeline.Passed || tests[1].ReusedFrom != "" || tests[1].Attestation == "" {
		t.Errorf("%s %s: %s", night.State, night.Reason, night.Result)
	}
	if record.Images[0].Digest != recordOf(t, pushed).Images[0].Digest {
		t.Error("at night another image is tested")
	}
	if night.Promotion != nil {
		t.Errorf("a schedule promotes: %+v", night.Promotion)
	}
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d\n%s", code, v.said())
	}
	v.nothingLeft(t, "after the server")
}
