package pipeline_test

import (
	"fmt"
	"strings"
	"testing"

	"slipway/pipeline"
)

func repeat(format string, count int) string {
	var out strings.Builder
	for i := range count {
		fmt.Fprintf(&out, format, i)
	}
	return out.String()
}

// chain is services that depend on one another, each on the next and on the last.
func chain(count int) string {
	var out strings.Builder
	for i := range count {
		fmt.Fprintf(&out, "  s%d: {image: i, depends_on: [s%d, s%d]}\n", i, i+1, count)
	}
	fmt.Fprintf(&out, "  s%d: {image: i}\n", count)
	return out.String()
}

// Files made to be expensive are refused, each with a place. That each of them
// is also quick is what the test's own time limit shows.
func TestLimits(t *testing.T) {
	laughs := "x-a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'j'; c++ {
		laughs += fmt.Sprintf("x-%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c, ", c-1), 10), ", "))
	}
	var merges strings.Builder
	merges.WriteString("x-big: &big {")
	for i := range 40_000 {
		fmt.Fprintf(&merges, "k%d: 1, ", i)
	}
	merges.WriteString("}\n")
	for i := range 30_000 {
		fmt.Fprintf(&merges, "x-%d: {<<: *big}\n", i)
	}
	eight := "[1, 2, 3, 4, 5, 6, 7, 8]"
	many := "version: 1\nimages:\n"
	for i := range 50 {
		many += fmt.Sprintf("  i%d: {build: ., matrix: {a: %s, b: %s, c: [1, 2]}, tests: {t: {command: x}}}\n", i, eight, eight)
	}
	for _, c := range []struct{ name, text, want string }{
		{"size", "version: 1\n" + strings.Repeat("# \n", 400_000), "1:1: the file has 1200011 bytes; more than 1048576 is refused, move what is not about the pipeline elsewhere"},
		{"depth", "version: 1\nx-a: " + strings.Repeat("[", 100) + strings.Repeat("]", 100), "2:70: more than 64 levels deep; no pipeline needs that"},
		{"depth of maps", "x-a: " + strings.Repeat("{a: ", 30_000) + strings.Repeat("}", 30_000), "exceeded max depth of 10000"},
		{"depth by aliases", "x-a: &a " + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "\nx-b: " + strings.Repeat("[", 40) + "*a" + strings.Repeat("]", 40), "2:46: more than 64 levels deep; no pipeline needs that"},
		{"billion laughs", laughs + "version: 1\nimages: {a: {build: {args: *j}}}\n", "9:6: images.a.build.args: a list where KEY=VALUE belongs"},
		{"many times the same", "x-e: &e [" + strings.Repeat("\"A${{event.ref}}=b\", ", 5_000) + "]\nversion: 1\nimages:\n  a:\n    build: .\n    tests:\n" + repeat("      t%d: {command: x, environment: *e}\n", 5_000), "more than 300000 values when aliases and matrices are expanded; split the pipeline"},
		{"long text often", "x-e: &e \"" + strings.Repeat("x", 400_000) + "${{ event.ref }}\"\nversion: 1\nimages:\n  a:\n    build: .\n    tests:\n" + repeat("      t%d: {command: *e}\n", 5_000), "more than 300000 values"},
		{"many needs", "x-e: &e [" + repeat("t%d, ", 5_000) + "]\nversion: 1\nimages:\n  a:\n    build: .\n    tests:\n" + repeat("      t%d: {command: x, needs: *e}\n", 5_000), "more than 300000 values"},
		{"many unknown needs", "x-e: &e [" + repeat("u%d, ", 10) + "]\nversion: 1\nimages:\n  a:\n    build: .\n    tests:\n" + repeat("      t%d: {command: x, needs: *e}\n", 5_000), "more than 50 problems"},
		{"many services", "version: 1\nimages: {a: {build: ., tests: {t: {command: x, services: s0}}}}\nservices:\n" + chain(9_000), "more than 300000 values"},
		{"merges", merges.String() + "version: 1\nimages: {a: {build: .}}\n", "merge keys copy more than 100000 values; no pipeline needs that"},
		{"tasks", many, "more than 10000 builds and tests; split the pipeline"},
		{"problems", "version: 1\nimages:\n" + strings.Repeat("  ? []\n  : x\n", 1000), "more than 50 problems; mend these first"},
		{"brackets", strings.Repeat("[", 1_000_000), "not YAML"},
		{"dashes", strings.Repeat("- ", 500_000), ""},
		{"questions", strings.Repeat("? ", 500_000), ""},
		{"anchors", "x: [" + strings.Repeat("&a a, ", 100_000) + "]", ""},
		{"quotes", "x: \"" + strings.Repeat("\\u0041", 100_000), "not YAML"},
		{"comments", strings.Repeat("#\n", 500_000) + "x: 1", ""},
		{"comments inside", "x:\n" + strings.Repeat("  - 1 #\n", 100_000), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := pipeline.Parse(".ci.yml", []byte(c.text))
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %.300s, want %s", err, c.want)
			}
			inside(t, []byte(c.text), err)
		})
	}
}

func TestEnvironmentLimits(t *testing.T) {
	laughs := "x-a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'j'; c++ {
		laughs += fmt.Sprintf("x-%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c, ", c-1), 10), ", "))
	}
	_, err := pipeline.ParseEnvironment("prod.yml", []byte(laughs+"version: 1\nname: p\ndeliver: {local: {a: *j}}\n"))
	if want := "more than 300000 values when aliases and matrices are expanded"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}
