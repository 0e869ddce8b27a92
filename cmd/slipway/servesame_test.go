package main

import (
	"os"
	"path/filepath"
	"testing"

	"slipway/internal/ledger"
)

// TestSameCommitSameDigest: a server and a clone of git's own, each with an empty root,
// make the same image of the same plan of a commit, also where its .gitattributes has
// git write other line ends than the commit holds; and both call it clean.
func TestSameCommitSameDigest(t *testing.T) {
	v := newServed(t)
	for name, text := range map[string]string{
		".gitattributes": "* text=auto\n*.bat text eol=crlf\n*.bin binary\nlib/** export-ignore\n*.psd filter=lfs diff=lfs merge=lfs -text\n",
		"run.bat":        "@echo off\necho one\n", "lib/deep/notes.txt": "a\nb\n", "data.bin": "\x00\x01\r\n\n", "plain.psd": "no pointer\n", "bin/tool": "#!/bin/sh\n", "empty": "",
		"Dockerfile": "FROM example.com/base:1\nCOPY . /app\nRUN find /app | sort > /list\n",
	} {
		v.write(t, name, text)
	}
	if err := os.Chmod(filepath.Join(v.dir, "bin/tool"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../lib", filepath.Join(v.dir, "bin/lib")); err != nil {
		t.Fatal(err)
	}
	v.write(t, ".ci.yml", "version: 1\nimages: {web: {build: ., tests: {unit: {command: \"grep -c $(printf '\\\\r') /app/run.bat\"}}}}\n")
	commit := v.commit(t, "with attributes")
	v.start(t)
	v.push(t, "d", zeros, commit)
	r := v.until(t, commit, "over", func(r ledger.Run) bool { return r.State.Over() })
	record := recordOf(t, r)
	if r.State != ledger.Passed || record.Unsigned != "" {
		t.Fatalf("%s %s, unsigned %q\n%s", r.State, r.Reason, record.Unsigned, v.must(t, "logs", r.ID))
	}
	laptop := newPlace(t)
	laptop.must(t, "images", "import", filepath.Join(filepath.Dir(v.root), "busybox.tar"), "--name", "example.com/base:1") // the same base
	laptop.must(t, "keys", "generate")
	laptop.dir = filepath.Join(laptop.dir, "clone")
	v.git(t, "clone", "-q", v.origin, laptop.dir)
	local := laptop.run(t, "--event", "push")
	if local.Images[0].Digest != record.Images[0].Digest || local.Plan != record.Plan || local.Unsigned != "" {
		t.Errorf("on a laptop %s of plan %s, unsigned %q; on the server %s of plan %s", local.Images[0].Digest, local.Plan, local.Unsigned, record.Images[0].Digest, record.Plan)
	}
	// git does not look at a file whose size and time it knows; when it must, the line ends are no change either.
	if out := v.git(t, "-C", laptop.dir, "ls-files", "--eol", "run.bat"); out == "" {
		t.Error("the clone has no run.bat")
	}
	touched := filepath.Join(laptop.dir, "run.bat")
	data, err := os.ReadFile(touched)
	if err == nil {
		err = os.WriteFile(touched, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if again := laptop.run(t, "--event", "push"); again.Unsigned != "" || again.Images[0].Digest != record.Images[0].Digest {
		t.Errorf("after a touch: %s, unsigned %q", again.Images[0].Digest, again.Unsigned)
	}
}
