package doctor

import (
	"os"
	"path/filepath"
	"testing"
)

func script(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(p, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRunc(t *testing.T) {
	says := func(v string) string {
		return script(t, "#!/bin/sh\n[ \"$1\" = --version ] && printf 'runc version "+v+"\\ncommit: x\\nspec: 1.2.0\\n'\n", 0o700)
	}
	for name, tt := range map[string]struct {
		path        string
		state       State
		detail, fix string
	}{
		"good":           {says("1.5.2"), OK, "version 1.5.2", ""},
		"Debian's":       {says("1.1.5+ds1"), Fail, "is runc 1.1.5+ds1, from which containers can escape", "make build"},
		"none":           {"", Fail, "not found", "make build"},
		"gone":           {"/nowhere/runc", Fail, "no such file", "make build"},
		"not executable": {script(t, "", 0o600), Fail, "cannot be executed", "chmod +x"},
		"a directory":    {t.TempDir(), Fail, "cannot be executed", "chmod +x"},
		"breaks":         {script(t, "#!/bin/sh\nexit 3\n", 0o700), Fail, "exit status 3", "make build"},
		"says nothing":   {script(t, "#!/bin/sh\necho hello\n", 0o700), Fail, "does not say its version", "make build"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, checkRunc(t.Context(), tt.path), tt.state, tt.detail, tt.fix)
		})
	}
}

func TestVulnerable(t *testing.T) {
	for version, bad := range map[string]bool{
		"1.0.0": true, "1.1.15": true, "1.2.0": true, "1.2.7": true, "1.2.8": false, "1.2.9": false,
		"1.3.0": true, "1.3.3": true, "1.3.5": true, "1.3.6": false, "1.4.0": true, "1.4.2": true, "1.4.3": false,
		"1.4.3-rc.1": true, "1.5.0-rc.1": true, "1.5.0": false, "1.5.2": false, "1.5.3+dev": false, "1.6.0-rc.1": false,
		"2.0.0": false, "0.9.9": true, "v1.3.5": true, "1.2.8-0ubuntu1": false,
	} {
		v, ok := parseVersion(version)
		if !ok || v.vulnerable() != bad {
			t.Errorf("%s: %+v, %v, vulnerable %v; want %v", version, v, ok, v.vulnerable(), bad)
		}
	}
	for _, s := range []string{"", "1.2", "x.y.z"} {
		if _, ok := parseVersion(s); ok {
			t.Errorf("%q was read as a version", s)
		}
	}
}

func TestHelpersAndGit(t *testing.T) {
	want(t, checkHelper("slipway-agent", "", "tests"), Fail, "not found", "make build")
	want(t, checkHelper("slipway-agent", script(t, "", 0o700), "tests"), OK, "program", "")
	want(t, checkGit(""), Warn, "not found", "apt-get install git")
	want(t, checkGit("/usr/bin/git"), OK, "/usr/bin/git", "")
}
