package builder

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/pipeline"
)

const everyLayer = `FROM busybox:1 AS base
FROM base AS made
RUN mkdir -p /out/d && echo made > /out/d/f && ln -s d/f /out/l && ln /out/d/f /out/h && mkdir /gone && touch /gone/x
FROM base
COPY a.txt sub /ctx/
COPY --link --from=made /out /linked
RUN rm /ctx/a.txt && rm -r /root && mkdir /root && echo new > /root/n && chmod 600 /etc/group && chown 7:8 /linked/d/f
RUN <<SCRIPT
  echo "heredoc $SOURCE_DATE_EPOCH" > /here
  touch /now
SCRIPT
COPY <<FILE /file
text
FILE
WORKDIR /made/by/workdir
`

// The same files give the same digest, whatever the day, the machine and the
// times on the files.
func TestSameDigestTwice(t *testing.T) {
	var digests []string
	for i := range 2 {
		b := fresh(t)
		dir := project(t, map[string]string{"Dockerfile": everyLayer, "a.txt": "a", "sub/b.txt": "b", "sub/deep/c.txt": "c"})
		old := time.Date(2011+i, 1, 2, 3, 4, 5, 6, time.UTC)
		for _, f := range []string{"a.txt", "sub/b.txt", "sub/deep"} {
			if err := os.Chtimes(filepath.Join(dir, f), old, old); err != nil {
				t.Fatal(err)
			}
		}
		out := build(t, b, Request{Dir: dir, NoCache: true})
		digests = append(digests, out.Image.Descriptor.Digest.String())
		if got := fileIn(t, b, out.Image, "here"); got != fmt.Sprintf("heredoc %d\n", epoch.Unix()) {
			t.Errorf("/here holds %q", got)
		}
		checkTimes(t, b, out.Image)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond) // another second for whatever still carries one
	}
	if digests[0] != digests[1] {
		t.Errorf("the same files gave %s and %s", digests[0], digests[1])
	}
}

// checkTimes reads every layer that was built.
func checkTimes(t *testing.T, b *Builder, img pipeline.Image) {
	t.Helper()
	ctx := context.Background()
	all, err := b.manifests(ctx, img.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	if made := all[0].config.Created; made == nil || !made.Equal(epoch) {
		t.Errorf("the image was created %v", made)
	}
	files := 0
	for _, l := range all[0].manifest.Layers[1:] { // the first is busybox's
		r, err := b.Blob(ctx, l)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		for tr := tar.NewReader(z); ; files++ {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.ModTime.After(epoch) {
				t.Errorf("%s has the time %s", h.Name, h.ModTime)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if files < 10 {
		t.Errorf("the layers hold %d files only", files)
	}
}

// An edit that keeps size and time of modification is an edit.
func TestNoStaleContent(t *testing.T) {
	b := fresh(t)
	dir := project(t, map[string]string{"Dockerfile": "FROM busybox:1\nCOPY src /src\n", "src/f": "0000"})
	path := filepath.Join(dir, "src/f")
	when := time.Now().Add(-time.Hour)
	for i := range 6 {
		text := strings.Repeat(fmt.Sprint(i), 4)
		if i%2 == 0 { // in place, and by a rename
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		} else {
			if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		out := build(t, b, Request{Dir: dir})
		if got := fileIn(t, b, out.Image, "src/f"); got != text {
			t.Fatalf("edit %d: the image holds %q, the context %q", i, got, text)
		}
		if again := build(t, b, Request{Dir: dir}); !again.Cached {
			t.Errorf("edit %d: nothing changed and a step ran", i)
		}
	}
}

// The times of files are those of the context until the layer is written.
func TestTimesWithinABuild(t *testing.T) {
	b := fresh(t)
	dir := project(t, map[string]string{"Dockerfile": "FROM busybox:1\nCOPY f /f\nRUN stat -c %Y /f > /time\n", "f": "x"})
	when := time.Date(2015, 5, 5, 5, 5, 5, 0, time.UTC)
	if err := os.Chtimes(filepath.Join(dir, "f"), when, when); err != nil {
		t.Fatal(err)
	}
	out := build(t, b, Request{Dir: dir})
	if got := fileIn(t, b, out.Image, "time"); got != fmt.Sprintln(when.Unix()) {
		t.Errorf("a step saw the time %q, the file has %d", got, when.Unix())
	}
}
