package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slipway/internal/need"
)

func realInput(t *testing.T, root string) Input {
	return Input{Root: root, UID: os.Geteuid(), Proc: "/proc", Sys: "/sys"}
}

func find(t *testing.T, all []Finding, name string) Finding {
	t.Helper()
	i := slices.IndexFunc(all, func(f Finding) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("no finding %q in %+v", name, all)
	}
	return all[i]
}

// want checks a finding's state, and that its words hold detail and fix.
func want(t *testing.T, f Finding, s State, detail, fix string) {
	t.Helper()
	if f.State != s || !strings.Contains(f.Detail, detail) || !strings.Contains(f.Fix, fix) {
		t.Errorf("got %+v, want %s with %q and the fix %q", f, s, detail, fix)
	}
}

// A machine that runs slipway's other tests must pass its own doctor.
func TestThisMachine(t *testing.T) {
	need.Root(t)
	root := need.OpenDir(t)
	before := traces(t, root)
	all := Check(t.Context(), realInput(t, root))
	for _, name := range []string{
		"root", "kernel", "capabilities", "user namespaces", "network namespaces", "network device",
		"seccomp", "cgroups", "root directory", "way to the root", "overlayfs", "id-mapped layers",
	} {
		want(t, find(t, all, name), OK, "", "")
	}
	for _, f := range all {
		if f.Name == "" || f.Detail == "" || (f.State == OK) != (f.Fix == "") {
			t.Errorf("incomplete finding %+v", f)
		}
	}
	if after := traces(t, root); after != before {
		t.Errorf("Check left something behind; before:\n%s\nafter:\n%s", before, after)
	}
}

// traces lists what a probe could leave: files, mounts, cgroups, processes.
func traces(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	for _, pattern := range []string{root + "/*", root + "/.*", "/sys/fs/cgroup/slipway-doctor*", "/sys/fs/cgroup/*/slipway-doctor*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(strings.Join(found, "\n"))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, root) {
			b.WriteString(line)
		}
	}
	children, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range children {
		if line, err := os.ReadFile(c); err == nil && strings.HasPrefix(string(line), "slipway-doctor") {
			b.WriteString(c)
		}
	}
	return b.String()
}

func TestNotRoot(t *testing.T) {
	in := realInput(t, need.OpenDir(t))
	in.UID = 1000
	all := Check(t.Context(), in)
	want(t, find(t, all, "root"), Fail, "user 1000", "sudo slipway doctor")
	if slices.ContainsFunc(all, func(f Finding) bool { return f.Name == "capabilities" || f.Name == "overlayfs" }) {
		t.Error("what needs root was tried, or its lack told twice")
	}
	if Worst(all) != Fail {
		t.Errorf("worst is %s", Worst(all))
	}
}

func TestWorst(t *testing.T) {
	for _, tt := range []struct {
		states []State
		want   State
	}{{nil, OK}, {[]State{OK, OK}, OK}, {[]State{OK, Warn, OK}, Warn}, {[]State{Fail, Warn}, Fail}, {[]State{Warn, Fail}, Fail}} {
		var all []Finding
		for _, s := range tt.states {
			all = append(all, Finding{State: s})
		}
		if got := Worst(all); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.states, got, tt.want)
		}
	}
}

func TestDeviceFilter(t *testing.T) {
	need.Root(t)
	want(t, checkDevicesV2(), OK, "", "")
}
