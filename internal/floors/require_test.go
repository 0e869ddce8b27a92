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
	lines := regexp.MustCompile(`(?m)^(?:REQUIRE|MAYSKIP) := (.*)$`).FindAllSubmatch(makefile, -1)
	if len(lines) != 2 {
		t.Fatal("the Makefile has no lines REQUIRE := names and MAYSKIP := names")
	}
	listed := strings.Split(string(lines[0][1])+","+string(lines[1][1]), ",")
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
				t.Errorf("%s can skip for want of %q, which neither REQUIRE nor MAYSKIP in the Makefile names", name, n)
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

// namesAsked finds the names given as strings to package need, or to functions
// called need or require (or longer), anywhere in a test file.
func namesAsked(name string, text []byte) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if _, selector := call.Fun.(*ast.SelectorExpr); selector && asks(call.Fun, "Root") {
			found = append(found, "root")
		}
		if len(call.Args) < 2 || !asks(call.Fun, "Have", "Tool") {
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

// asks says whether fun is one of these functions of package need, or a
// function of the test's own whose name starts with need or require.
func asks(fun ast.Expr, names ...string) bool {
	switch f := fun.(type) {
	case *ast.SelectorExpr:
		pkg, ok := f.X.(*ast.Ident)
		return ok && pkg.Name == "need" && slices.Contains(names, f.Sel.Name)
	case *ast.Ident:
		return strings.HasPrefix(f.Name, "need") || strings.HasPrefix(f.Name, "require")
	}
	return false
}

func TestNamesAsked(t *testing.T) {
	got, err := namesAsked("a_test.go", []byte(`package a
		func TestA(t *testing.T) {
			need.Root(t); need.Have(t, "runc", nil); need.Tool(t, "skopeo"); require(t, "netns", nil)
			other(t, "x"); other.Have(t, "x", nil); need.Have(t, name, nil); need.OpenDir(t)
		}`))
	if err != nil || !slices.Equal(got, []string{"root", "runc", "skopeo", "netns"}) {
		t.Errorf("got %q, %v", got, err)
	}
}
