package examples

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/need"
)

// TestHello is the demo: everything works, then everything is reused, then one
// name changes and the right test says so.
func TestHello(t *testing.T) {
	t.Parallel()
	r := newRoot(t, "hello")
	dir := copied(t, "hello")

	first := r.pipeline(0, dir)
	r.want(first, "passed", "hello built", "  greets passed", "  serves passed")
	if !strings.HasPrefix(first.Images[0].Digest, "sha256:") {
		t.Errorf("digest is %q", first.Images[0].Digest)
	}

	again := r.pipeline(0, dir)
	r.want(again, "passed", "hello cached", "  greets passed reused", "  serves passed reused")
	rerun := r.pipeline(0, dir, "--rerun-tests")
	r.want(rerun, "passed", "hello cached", "  greets passed", "  serves passed")
	for _, later := range []run{again, rerun} {
		if later.Images[0].Digest != first.Images[0].Digest {
			t.Errorf("nothing changed, but the digest went from %s to %s", first.Images[0].Digest, later.Images[0].Digest)
		}
	}

	edit(t, filepath.Join(dir, "names.txt"), "Grace", "Barbara")
	r.want(r.pipeline(1, dir), "failed", "hello built", "  greets failed", "  serves skipped")
	_, stdout, stderr := r.slipway("run", "pipeline", dir)
	if !strings.Contains(stdout+stderr, "Grace is greeted 0 times") {
		t.Error("the screen does not show what the test said")
	}
}

// TestLayers: both images stand on the base, and what they share is stored once.
func TestLayers(t *testing.T) {
	t.Parallel()
	r := newRoot(t, "layers")
	dir := copied(t, "layers")
	r.want(r.pipeline(0, dir), "passed", "base built", "api built", "  answers passed", "web built", "  renders passed")

	layers := map[string][]string{} // image → layer digests
	code, stdout, _ := r.slipway("images", "--json")
	var images []struct {
		Name   string `json:"name"`
		Layers []struct {
			Digest string `json:"digest"`
		} `json:"layers"`
	}
	if err := json.Unmarshal([]byte(stdout), &images); code != 0 || err != nil {
		t.Fatalf("slipway images --json: exit code %d, %v", code, err)
	}
	for _, im := range images {
		for _, l := range im.Layers {
			layers[shortName(im.Name)] = append(layers[shortName(im.Name)], l.Digest)
		}
	}
	base := layers["base"]
	if len(base) < 3 {
		t.Fatalf("base has %d layers, want its own and busybox's: %v", len(base), layers)
	}
	for _, name := range []string{"api", "web"} {
		if len(layers[name]) != len(base)+1 || !equal(layers[name][:len(base)], base) {
			t.Errorf("%s has layers %v, want those of base %v and one more", name, layers[name], base)
		}
	}

	edit(t, filepath.Join(dir, "web", "render.sh"), "welcome", "welcome</p><p>again")
	edit(t, filepath.Join(dir, "web", "test.sh"), "<p>welcome</p>", "<p>again</p>")
	r.want(r.pipeline(0, dir), "passed", "base cached", "api cached", "  answers passed reused", "web built", "  renders passed")

	edit(t, filepath.Join(dir, "base", "log.sh"), "log WORD...", "log WORD ...")
	r.want(r.pipeline(0, dir), "passed", "base built", "api built", "  answers passed", "web built", "  renders passed")
}

// shortName leaves the image's own name of what slipway calls it.
func shortName(name string) string {
	name, _, _ = strings.Cut(name, "@")
	return name[strings.LastIndexByte(name, '/')+1:]
}

func equal(a, b []string) bool { return strings.Join(a, " ") == strings.Join(b, " ") }

// TestMatrix: the same code on two Pythons, two images, two digests.
func TestMatrix(t *testing.T) {
	t.Parallel()
	r := newRoot(t, "matrix")
	got := r.pipeline(0, example("matrix"))
	r.want(got, "passed", "words[2.7] built", "  unit passed", "words[3.11] built", "  unit passed")
	if got.Images[0].Digest == got.Images[1].Digest {
		t.Errorf("both Pythons have the digest %s", got.Images[0].Digest)
	}
}

// TestPythonWeb: requirements come from Debian over the build network; a change
// of the source leaves their layer alone; a failing unit test is named.
func TestPythonWeb(t *testing.T) {
	t.Parallel()
	r := newRoot(t, "python-web")
	dir := copied(t, "python-web")
	r.want(r.pipeline(0, dir), "passed", "web built", "  unit passed", "  serves passed")

	edit(t, filepath.Join(dir, "shop", "prices.py"), `"bread": 250`, `"bread": 260`)
	code, stdout, stderr := r.slipway("run", "pipeline", dir, "--progress=plain")
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{"test_total_over_http", "1 failed"} {
		if !strings.Contains(stdout+stderr, want) {
			t.Errorf("the screen does not name %q", want)
		}
	}
	if strings.Contains(stdout+stderr, "Setting up python3-flask") {
		t.Error("a change of the source installed the requirements again")
	}
}

// TestShop: unit tests alone, integration tests beside a real database and a real
// cache; each test has its own copy of the seeded catalogue. Then the same images
// and services as a development set.
func TestShop(t *testing.T) {
	t.Parallel()
	r := newRoot(t, "shop")
	dir := copied(t, "shop")
	r.want(r.pipeline(0, dir), "passed", "db built", "  starts passed", "seed built",
		"web built", "  unit passed", "  integration passed", "  seed-is-whole passed")
	r.want(r.pipeline(0, dir), "passed", "db cached", "  starts passed reused", "seed cached",
		"web cached", "  unit passed reused", "  integration passed reused", "  seed-is-whole passed reused")

	// Another row in the seed, and the test that counts them says so.
	edit(t, filepath.Join(dir, "seed", "catalogue.sql"), "480, 40);", "480, 40), (4, 'tea', 390, 25);")
	got := r.pipeline(1, dir, "--only", "web/integration")
	r.want(got, "failed", "db cached", "seed built", "web cached", "  unit passed reused", "  integration failed")

	at := "127.0.0.1:" + freePort(t)
	t.Cleanup(func() { r.slipway("supervise", "stop") })
	if code, _, _ := r.slipway("up", dir, "--publish", "web="+at+":8000"); code != 0 {
		t.Fatalf("up: exit code %d", code)
	}
	if body := get(t, "http://"+at+"/"); !strings.Contains(body, `"apple","bread","coffee","tea"`) || !strings.Contains(body, `"visitors":1`) {
		t.Errorf("the shop says %s", body)
	}
	if code, stdout, _ := r.slipway("logs", dir, "db", "--tail", "5"); code != 0 || !strings.Contains(stdout, "ready for connections") {
		t.Error("the database's log is not shown")
	}
	if code, _, _ := r.slipway("down", dir, "--volumes"); code != 0 {
		t.Errorf("down: exit code %d", code)
	}
}

// TestShopShips: from a commit to production, back from a version that is well in
// test alone, and through a kill of slipway. The script checks what it shows.
func TestShopShips(t *testing.T) {
	r := newRoot(t, "shop")
	need.Tool(t, "curl")
	t.Cleanup(func() { r.slipway("supervise", "stop") })
	cmd := exec.Command(example("shop/ship"), filepath.Join(t.TempDir(), "shop"))
	cmd.Env = append(os.Environ(), "SLIPWAY="+program(t), "SLIPWAY_ROOT="+r.dir, "SLIPWAY_PROGRESS=quiet", "NO_COLOR=1", "PORT_TEST="+freePort(t), "PORT_PROD="+freePort(t))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"name":"test apple"`, `"name":"tea"`, "both containers see the same", "rolled back: delivery failed", "== Done"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not show %s", want)
		}
	}
	if r.witness("test", "web") == r.witness("prod", "web") {
		t.Error("test runs the new version and prod the one before, but slipway says that they are the same")
	}
}

// freePort is a port of the loopback where nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// get asks over HTTP and wants an answer.
func get(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, answer.Status, err)
	}
	return string(body)
}

// TestFailing: each failure is told where a person looks for it, and does not
// stop the other image's work.
func TestFailing(t *testing.T) {
	t.Parallel()
	r := newRoot(t, "failing")
	got := r.pipeline(1, example("failing"))
	r.want(got, "failed", "sums built", "  unit failed", "  after skipped", "broken failed", "  never skipped")
	if code := got.Images[0].Tests[0].ExitCode; code != 1 {
		t.Errorf("exit code of sums/unit is %d, want 1", code)
	}

	code, stdout, stderr := r.slipway("run", "pipeline", example("failing"))
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{
		"three_numbers", "got 3, want 6", // from the JUnit report
		"FAIL  three_numbers",                               // the test's own output
		"settings.txt names no port", "broken/Dockerfile:4", // the failed step and its line
	} {
		if !strings.Contains(stdout+stderr, want) {
			t.Errorf("the screen does not say %q", want)
		}
	}
}

// TestEveryExampleIsRun fails when an example is added without a test here.
func TestEveryExampleIsRun(t *testing.T) {
	entries, err := os.ReadDir(example(""))
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("examples_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.Contains(string(tests), `newRoot(t, "`+e.Name()+`")`) {
			t.Errorf("examples/%s has no test", e.Name())
		}
		if _, err := os.Stat(example(filepath.Join(e.Name(), "README.md"))); e.IsDir() && err != nil {
			t.Error(err)
		}
	}
}
