package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const build = "make build, or set up slipway again"

func checkPrograms(ctx context.Context, in Input) []Finding {
	return []Finding{
		checkRunc(ctx, in.Runc),
		checkHelper("slipway-sandbox", in.Sandbox, "tests"),
		checkHelper("slipway-agent", in.Agent, "tests"),
		checkGit(in.Git),
	}
}

func checkHelper(name, path, what string) Finding {
	if path == "" {
		return fail(name, "not found beside slipway; "+what+" need it", build)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fail(name, err.Error(), build)
	}
	if !info.Mode().IsRegular() || unix.Access(path, unix.X_OK) != nil {
		return fail(name, path+" cannot be executed", "chmod +x "+path+", or "+build)
	}
	return ok(name, path)
}

func checkRunc(ctx context.Context, path string) Finding {
	const name = "slipway-runc"
	if f := checkHelper(name, path, "build steps"); f.State != OK {
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = []string{}
	out, err := cmd.Output()
	if err != nil {
		return fail(name, fmt.Sprintf("%s --version: %v", path, err), build)
	}
	version := field(string(out), "runc version ")
	v, known := parseVersion(version)
	switch {
	case !known:
		return fail(name, fmt.Sprintf("%s does not say its version (%q)", path, strings.TrimSpace(string(out))), build)
	case v.vulnerable():
		return fail(name, fmt.Sprintf("%s is runc %s, from which containers can escape (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881, CVE-2026-41579)", path, version), build+"; from a distribution, runc 1.2.8, 1.3.6, 1.4.3 or newer")
	}
	return ok(name, fmt.Sprintf("%s, version %s", path, version))
}

// runcVersion is major, minor, patch. A pre-release counts as what came before it.
type runcVersion struct {
	major, minor, patch int
	pre                 bool
}

// parseVersion reads "1.5.2", "1.1.5+ds1", "1.4.0-rc.1" and "v1.3.6".
func parseVersion(s string) (v runcVersion, ok bool) {
	s = strings.TrimPrefix(s, "v")
	s, _, _ = strings.Cut(s, "+")
	s, pre, _ := strings.Cut(s, "-")
	v.pre = strings.HasPrefix(pre, "rc") || strings.HasPrefix(pre, "alpha") || strings.HasPrefix(pre, "beta")
	n, err := fmt.Sscanf(s, "%d.%d.%d", &v.major, &v.minor, &v.patch)
	return v, n == 3 && err == nil
}

// vulnerable: fixed in 1.2.8, 1.3.6, 1.4.3 and everything after 1.4.
func (v runcVersion) vulnerable() bool {
	fixed := map[int]int{2: 8, 3: 6, 4: 3, 5: 0}
	patch, known := fixed[v.minor]
	switch {
	case v.major != 1:
		return v.major < 1
	case !known:
		return v.minor < 2
	case v.patch == patch:
		return v.pre
	}
	return v.patch < patch
}

func checkGit(path string) Finding {
	const name = "git"
	if path == "" {
		return warn(name, "not found; promotions to environments on this machine, and contexts and ADD from git addresses, will fail; nothing else needs it", "apt-get install git")
	}
	return ok(name, path)
}
