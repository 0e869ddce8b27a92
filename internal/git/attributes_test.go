package git

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzAttributes holds what is read of .gitattributes files against git check-attr.
func FuzzAttributes(f *testing.F) {
	for seed := range uint64(150) {
		f.Add(seed)
	}
	dir := f.TempDir()
	if out, err := exec.Command("git", "init", "-q", dir).CombinedOutput(); err != nil {
		f.Fatalf("%v: %s", err, out)
	}
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		f.Fatal(err)
	}
	paths := []string{"a.txt", "b.TXT", ".hidden", "a/a.txt", "a/b/c.txt", "a/b/a b", "a/b/\"q\"", "b/a", "a/b/[x]", "a\\b", "ä.txt", "a/file"}
	patterns := []string{
		"*", "*.txt", "a", "/a", "a/", "a/*", "a/**", "**/a.txt", "**/b/*", "a/**/c.txt", "/*.txt", "b/a", "?.txt", "[ab].txt", "[!a].txt", "[^b].txt", "[a-c]*", `"a b"`, `"\303\244.txt"`,
		`a\\b`, `\*`, "!a.txt", "**", "a**t", ".*", "/**/c.txt", "a/b", `"\"q\""`, "c.txt", "[[]x]", `\[x\]`, "[", "a[", "#x", `"a`, "a/b/**", "**/", "*/b/*", "/", "[]a].txt", "*.[tT][xX]t",
	}
	words := []string{"text", "-text", "!text", "text=auto", "eol=crlf", "eol=lf", "-eol", "!eol", "crlf", "-crlf", "crlf=input", "binary", "-binary", "!binary", "mine", "-mine", "!mine", "ident", "filter=x", "text=input"}
	names := []string{"text", "eol", "crlf", "binary", "mine", "ident", "filter", "diff", "merge"}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		var known *attributes
		of := map[string]*attributes{}
		for _, at := range []string{"", "a", "a/b"} {
			var text strings.Builder
			for range r.IntN(6) {
				p := patterns[r.IntN(len(patterns))]
				if r.IntN(8) == 0 {
					p = "[attr]mine"
				}
				text.WriteString(p)
				for range 1 + r.IntN(3) {
					text.WriteString([]string{" ", "\t", "  "}[r.IntN(3)] + words[r.IntN(len(words))])
				}
				text.WriteString([]string{"\n", "\r\n", "\n\n"}[r.IntN(3)])
			}
			if err := os.WriteFile(filepath.Join(dir, at, ".gitattributes"), []byte(text.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			known = known.below(at, []byte(text.String()))
			of[at] = known
			if at == "" {
				of["."], of["b"] = known, known
			}
		}
		cmd := exec.Command("git", append(append([]string{"-C", dir, "check-attr", "-z"}, names...), append([]string{"--"}, paths...)...)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Split(string(out), "\x00")
		for i := 0; i+2 < len(fields); i += 3 {
			got, want := strings.TrimPrefix(of[path.Dir(fields[i])].of(fields[i])[fields[i+1]], "="), fields[i+2]
			if got == "" {
				got = "unspecified"
			}
			if got != want {
				t.Errorf("%s of %q is %q, git says %q\n%s", fields[i+1], fields[i], got, want, files(dir))
			}
		}
	})
}

func files(dir string) string {
	var all strings.Builder
	for _, at := range []string{"", "a", "a/b"} {
		text, _ := os.ReadFile(filepath.Join(dir, at, ".gitattributes")) // it was written just now
		all.WriteString("--- " + at + "\n" + string(text))
	}
	return all.String()
}
