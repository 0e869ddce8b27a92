package forge

import (
	"strings"
	"testing"
)

func TestGuide(t *testing.T) {
	const hook, key = "https://ci.example.com/hooks/7", "whsec_AAAA"
	for _, k := range Kinds() {
		got := k.Guide(hook, key)
		if strings.Count(got, hook) != 1 || strings.Count(got, key) != 1 || strings.Contains(got, "%!") || !strings.HasSuffix(got, "\n") {
			t.Errorf("%s:\n%s", k, got)
		}
		if back, err := ParseKind(string(k)); err != nil || back != k {
			t.Errorf("%q, %v", back, err)
		}
	}
	if _, err := ParseKind("sourceforge"); err == nil || !strings.Contains(err.Error(), "github, gitlab") {
		t.Errorf("%v", err)
	}
}
