package forge

import (
	"os/exec"
	"strings"
	"testing"
)

// TestCheckRef holds the rules against those of git itself.
func TestCheckRef(t *testing.T) {
	for _, ref := range []string{
		"refs/heads/main", "refs/heads/a/b/c", "refs/tags/v1.0-rc1", "refs/heads/ümlaut", "refs/heads/a@b", "refs/heads/@",
		"", "main", "refs/", "refs/heads/", "refs//heads", "refs/heads/.a", "refs/heads/a.lock", "refs/heads/a.lock/b",
		"refs/heads/a..b", "refs/heads/a b", "refs/heads/a~1", "refs/heads/a^", "refs/heads/a:b", "refs/heads/a?", "refs/heads/a*",
		"refs/heads/a[", `refs/heads/a\b`, "refs/heads/a\x7f", "refs/heads/a\n", "refs/heads/a.", "refs/heads/a@{b", "refs/heads/a/",
		"/refs/heads/a", "refs/heads/{a}", "refs/heads/a;b", "refs/heads/$(a)", "refs/heads/a.b",
	} {
		want := strings.HasPrefix(ref, "refs/") && exec.Command("git", "check-ref-format", ref).Run() == nil
		if got := checkRef(ref) == nil; got != want {
			t.Errorf("%q: allowed %v, by git %v", ref, got, want)
		}
	}
	for _, ref := range []string{"refs/heads/-a", "refs/-a/b", "refs/heads/" + strings.Repeat("a", maxName)} {
		if checkRef(ref) == nil {
			t.Errorf("%.40q is allowed", ref)
		}
	}
}
