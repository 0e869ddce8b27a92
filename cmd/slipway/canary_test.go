package main

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCanariesStayHidden runs a pipeline whose build and tests print their
// secrets in many ways, and looks for them in all that is shown and kept: output,
// JSON, logs, records, images, caches and proofs.
func TestCanariesStayHidden(t *testing.T) {
	p := newPlace(t)
	canaries := map[string]string{}
	var file strings.Builder
	var names []string
	for i := range soak(12, 500) {
		name := fmt.Sprintf("canary_%d", i)
		value := "Kanarie/+ " + rand.Text() + fmt.Sprint("?=", i)
		canaries[name], names = value, append(names, name)
		fmt.Fprintf(&file, "%s=%s\n", name, value)
	}
	secrets := filepath.Join(t.TempDir(), "secrets") // beside the root, not in it
	if err := os.WriteFile(secrets, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	list := strings.Join(names, ", ")
	p.write(t, "show.sh", `for f in /run/secrets/*; do
cat $f; echo; base64 $f; (printf x; cat $f) | base64; (printf xy; cat $f) | base64; od -An -v -tx1 $f | tr -d ' \n'; echo
head -c 9 $f; sleep 0.001; tail -c +10 $f; echo; echo "{\"value\": \"$(cat $f)\"}" >&2
done
exit $1
`)
	p.write(t, "Dockerfile", "FROM example.com/base:1\nCOPY show.sh /\nRUN "+secretMounts(names)+" sh /show.sh 0\n")
	p.write(t, ".ci.yml", "version: 1\nimages: {web: {build: {context: ., secrets: ["+list+"]}, tests: {good: {command: sh /show.sh 0, secrets: ["+list+"]}, bad: {command: sh /show.sh 7, secrets: ["+list+"]}}}}\n")
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"}, {"-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "first"}} {
		if out, err := exec.Command("git", append([]string{"-C", p.dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	p.must(t, "keys", "generate")
	cmd := p.slipway("run", "pipeline", p.dir, "--secrets", secrets, "--json")
	var shown bytes.Buffer
	cmd.Stdout, cmd.Stderr = &shown, &shown
	_ = cmd.Run() // a test fails, as it should
	if !bytes.Contains(shown.Bytes(), []byte(`"exit_code":7`)) || !bytes.Contains(shown.Bytes(), []byte("***")) {
		t.Fatalf("the pipeline did not run as it should:\n%s", shown.Bytes())
	}
	found := 0
	look := func(where string, data []byte) {
		for name, value := range canaries {
			for form, text := range map[string]string{
				"raw": value, "hex": hex.EncodeToString([]byte(value)), "URL": url.QueryEscape(value), "base64": base64.StdEncoding.EncodeToString([]byte(value)),
				"base64 after x": base64.StdEncoding.EncodeToString([]byte("x" + value))[2:20], "base64 after xy": base64.StdEncoding.EncodeToString([]byte("xy" + value))[3:20],
			} {
				if bytes.Contains(data, []byte(text)) {
					found++
					t.Errorf("%s (%s) is in %s", name, form, where)
				}
			}
		}
	}
	look("what was shown", shown.Bytes())
	files := 0
	err := filepath.WalkDir(p.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		look(path, data)
		if z, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			plain, err := io.ReadAll(z)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			look(path+", unpacked", plain)
		}
		return nil
	})
	if err != nil || files < 20 {
		t.Fatalf("%d files of the root were read: %v", files, err)
	}
	t.Logf("%d canaries, %d files: %d found", len(canaries), files, found)
}

// secretMounts are the flags of RUN for secrets.
func secretMounts(names []string) string {
	var all strings.Builder
	for _, n := range names {
		fmt.Fprintf(&all, "--mount=type=secret,id=%s ", n)
	}
	return all.String()
}
