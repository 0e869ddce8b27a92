package floors

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestNothingIsSkippedInCI: a test may skip for want of a thing only when `make
// test` insists on that thing by name, so that nothing goes untested unnoticed.
func TestNothingIsSkippedInCI(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^REQUIRE := (.*)$`).FindSubmatch(makefile)
	if line == nil {
		t.Fatal("the Makefile has no line REQUIRE := names")
	}
	listed := strings.Split(string(line[1]), ",")
	asked := 0
	err = fs.WalkDir(os.DirFS("../.."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile("../../" + name)
		if err != nil {
			return err
		}
		names, err := namesAsked(name, text)
		for _, n := range names {
			asked++
			if !slices.Contains(listed, n) {
				t.Errorf("%s can skip for want of %q, which REQUIRE in the Makefile does not name", name, n)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if asked == 0 {
		t.Error("no test asks for anything: have the functions need and require been renamed?")
	}
}

// namesAsked finds the names given as strings to functions called need or require (or
// longer), anywhere in a test file.
func namesAsked(name string, text []byte) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) < 2 {
			return true
		}
		fun, ok := call.Fun.(*ast.Ident)
		if !ok || !(strings.HasPrefix(fun.Name, "need") || strings.HasPrefix(fun.Name, "require")) {
			return true
		}
		if lit, ok := call.Args[1].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				found = append(found, s)
			}
		}
		return true
	})
	return found, nil
}

func TestNamesAsked(t *testing.T) {
	got, err := namesAsked("a_test.go", []byte(`package a
		func TestA(t *testing.T) { need(t, "root", nil); requireTool(t, "skopeo"); other(t, "x"); need(t, name, nil) }`))
	if err != nil || !slices.Equal(got, []string{"root", "skopeo"}) {
		t.Errorf("got %q, %v", got, err)
	}
}
