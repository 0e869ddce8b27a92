package pipeline_test

import (
	"strings"
	"testing"

	"slipway/pipeline"
)

func TestInit(t *testing.T) {
	for _, c := range []struct {
		name  string
		found []string
		want  []string // IDs of the builds, with context and Dockerfile
	}{
		{"none", nil, []string{"app . Dockerfile"}},
		{"root", []string{"Dockerfile"}, []string{"app . Dockerfile"}},
		{"several", []string{"web/Dockerfile", "Dockerfile", "api/Dockerfile.prod", "docker/base.Dockerfile", "other/api/Dockerfile", "api/Dockerfile"}, []string{
			"app . Dockerfile", "api api Dockerfile", "prod api Dockerfile.prod", "base docker base.Dockerfile", "api-2 other/api Dockerfile", "web web Dockerfile",
		}},
		{"odd names", []string{"true/Dockerfile", "a b/Dockerfile", "ünï/Dockerfile.x y", "${{ x/Dockerfile", "#/Dockerfile", "x-y/Dockerfile", "12/Dockerfile", "a: b/Dockerfile"}, []string{
			"app # Dockerfile", "x ${{ x Dockerfile", "12 12 Dockerfile", "a-b a b Dockerfile", "a-b-2 a: b Dockerfile", "true true Dockerfile", "app-2 x-y Dockerfile", "app-3 ünï Dockerfile.x y",
		}},
		{"outside", []string{"../Dockerfile", "/Dockerfile"}, []string{"app . Dockerfile"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := string(pipeline.Init(c.found))
			var got []string
			for _, task := range expand(t, text, pipeline.Event{}).Tasks {
				got = append(got, task.ID+" "+task.Build.Context+" "+task.Build.Dockerfile)
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s\nof\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"), text)
			}
		})
	}
}

// Each commented part of the first file is right when its # is taken away.
func TestInitExamples(t *testing.T) {
	var out []string
	for line := range strings.Lines(string(pipeline.Init([]string{"Dockerfile"}))) {
		trimmed := strings.TrimLeft(line, " ")
		if rest, found := strings.CutPrefix(trimmed, "# "); found && (strings.Contains(rest, ": ") || strings.HasSuffix(rest, ":\n")) && !strings.HasPrefix(rest, "Check") {
			line = strings.Repeat(" ", len(line)-len(trimmed)) + rest
		}
		out = append(out, line)
	}
	plan := expand(t, strings.Join(out, ""), pipeline.Event{})
	if len(plan.Tasks) != 2 {
		t.Errorf("%d tasks, want a build and a test of\n%s", len(plan.Tasks), strings.Join(out, ""))
	}
}
