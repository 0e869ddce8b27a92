package runner_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/pipeline"
)

// attempt is one thing that hostile code tries.
type attempt struct {
	name string   // as docs/isolation.md has it
	run  []string // an attempt of testdata/hostile, with its arguments
	// stoppedBy are the defences that stop it, each of them alone. With all of
	// them off it succeeds: so it is seen to be tried, and the check can fail.
	stoppedBy []string
	user      string
	limits    pipeline.Resources
	mayLack   bool // a kernel may have nothing of the kind
}

// TestHostileCode makes every attempt three times: against the helper that is
// shipped; with what stops it off; and with all of that off but one.
func TestHostileCode(t *testing.T) {
	v := newVictim(t)
	tr := newTrial(t, v)
	for _, a := range attempts(v, unified()) {
		t.Run(a.name, func(t *testing.T) {
			if succeeded, how := tr.try(t, a); succeeded {
				t.Fatalf("it succeeded in a sandbox as it is shipped: %s", how)
			}
			succeeded, how := tr.try(t, a, v.off(a.stoppedBy)...)
			if !succeeded && a.mayLack && lacking(how) {
				t.Logf("this kernel has nothing of the kind: %s", how)
				return
			}
			if !succeeded {
				t.Fatalf("it fails even without %v, so what stops it is not that: %s", a.stoppedBy, how)
			}
			for i, one := range a.stoppedBy {
				if len(a.stoppedBy) == 1 {
					break
				}
				others := slices.Delete(slices.Clone(a.stoppedBy), i, i+1)
				if succeeded, how := tr.try(t, a, v.off(others)...); succeeded {
					t.Errorf("%s alone does not stop it: %s", one, how)
				}
			}
		})
	}
}

// lacking reports an error that says the thing itself is not there.
func lacking(how string) bool {
	for _, errno := range []string{"(ENOSYS)", "(EAFNOSUPPORT)", "(ENOENT)", "(ENODEV)", "(EOPNOTSUPP)", "out of memory"} {
		if strings.Contains(how, errno) {
			return true
		}
	}
	return false
}

// TestShippedHelperHasNoSwitches: what takes defences off is in the suite's own
// build, and nowhere else.
func TestShippedHelperHasNoSwitches(t *testing.T) {
	sandboxes(t)
	for dir, want := range map[string]bool{programs.dir: false, programs.weak: true} {
		for name, mark := range map[string]string{"slipway-sandbox": "take off the %s", "slipway-agent": "weakened:"} {
			program, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if has := strings.Contains(string(program), mark); has != want {
				t.Errorf("%s/%s holds %q: %v, want %v", dir, name, mark, has, want)
			}
		}
	}
}

// trial is a pair of runners: with the helper that is shipped, and with one that
// leaves off what it is told to.
type trial struct{ shipped, weak *bench }

func newTrial(t *testing.T, v victim) trial {
	t.Helper()
	tr := trial{open(t), open(t)}
	if err := tr.weak.Close(); err != nil {
		t.Fatal(err)
	}
	tr.weak.opts.Helper, tr.weak.opts.Agent = filepath.Join(programs.weak, "slipway-sandbox"), filepath.Join(programs.weak, "slipway-agent")
	tr.weak.reopen()
	for _, b := range []*bench{tr.shipped, tr.weak} {
		plant(t, b.image, v)
	}
	return tr
}

// plant puts into a layer what a hostile image could bring: a device node of
// the host's disk, and a set-user-id program.
func plant(t *testing.T, layer string, v victim) {
	t.Helper()
	if err := unix.Mknod(filepath.Join(layer, "srv/disk"), unix.S_IFBLK|0o600, int(v.disk)); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(programs.hostile)
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]uint32{"hostile": 0o755, "set-user-id": 0o4755} {
		at := filepath.Join(layer, "srv", name)
		if err := os.WriteFile(at, program, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(at, mode); err != nil { // WriteFile sets no such bit
			t.Fatal(err)
		}
	}
}

// trialLimit is long: machines that test are busy.
const trialLimit = 2 * time.Minute

// try makes an attempt with some defences off, and says how it went.
func (tr trial) try(t *testing.T, a attempt, off ...string) (succeeded bool, how string) {
	t.Helper()
	b := tr.shipped
	if off != nil {
		b = tr.weak
		if err := os.WriteFile(b.opts.Root+".weak", []byte(strings.Join(off, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := "/srv/hostile"
	if a.run[0] == "set-user-id" {
		program = "/srv/set-user-id"
	}
	var out strings.Builder
	res, err := b.Test(context.Background(), b.request(pipeline.Test{
		Command: append([]string{program}, a.run...), User: a.user, Resources: a.limits, Timeout: trialLimit,
	}), &out)
	if err != nil {
		if off == nil {
			t.Fatal(err)
		}
		return false, err.Error() // some defences cannot do without each other
	}
	succeeded = res.State == pipeline.Passed && strings.HasSuffix(out.String(), "SUCCEEDED\n")
	if !succeeded && res.ExitCode != 1 && !res.OOM && !res.DiskFull {
		t.Fatalf("it was not tried: %+v\n%s", res, out.String())
	}
	return succeeded, strings.TrimSpace(res.Reason + " " + out.String())
}
