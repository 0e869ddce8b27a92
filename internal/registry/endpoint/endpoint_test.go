package endpoint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"slipway/internal/need"
	"slipway/internal/registry/local"
	"slipway/internal/registry/manifest"
)

// serve starts the endpoint on loopback, over a fresh store where o has none.
func serve(t *testing.T, o Options) (host string) {
	t.Helper()
	if o.Store == nil {
		o.Store = openStore(t, t.TempDir())
	}
	s := httptest.NewServer(New(o))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func openStore(t *testing.T, dir string) *local.Store {
	t.Helper()
	s, err := local.Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answer is what the endpoint said.
type answer struct {
	status int
	header http.Header
	body   string
}

// code is that of the first error.
func (a answer) code() string {
	var all struct {
		Errors []struct{ Code string }
	}
	if json.Unmarshal([]byte(a.body), &all) != nil || len(all.Errors) == 0 {
		return ""
	}
	return all.Errors[0].Code
}

// ask makes a request; headers are NAME: VALUE.
func ask(t *testing.T, method, url string, body io.Reader, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	must(t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func text(s string) io.Reader { return strings.NewReader(s) }

const config = `{"os":"linux","architecture":"amd64"}`

// pushImage puts a manifest over one config into a repository.
func pushImage(t *testing.T, base string, headers ...string) digest.Digest {
	t.Helper()
	d := digest.FromString(config)
	if a := ask(t, "POST", base+"/blobs/uploads/?digest="+d.String(), text(config), headers...); a.status != 201 {
		t.Fatalf("config: %+v", a)
	}
	doc := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`, d, len(config))
	d = digest.FromString(doc)
	if a := ask(t, "PUT", base+"/manifests/v1", text(doc), append(headers, "Content-Type: application/vnd.oci.image.manifest.v1+json")...); a.status != 201 || a.header.Get("Docker-Content-Digest") != d.String() {
		t.Fatalf("manifest: %+v", a)
	}
	return d
}

func TestErrors(t *testing.T) {
	base := "http://" + serve(t, Options{Delete: true}) + "/v2/"
	d := pushImage(t, base+"app")
	none := digest.FromString("none").String()
	for name, tt := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
		code               string
	}{
		"not a path":             {"GET", "app/nothing", "", nil, 404, "UNSUPPORTED"},
		"not a method":           {"POST", "app/manifests/v1", "", nil, 405, "UNSUPPORTED"},
		"not a name":             {"GET", "App/manifests/v1", "", nil, 400, "NAME_INVALID"},
		"a way out":              {"GET", "app/%2e%2e/%2e%2e/x/manifests/v1", "", nil, 400, "NAME_INVALID"},
		"a hidden part":          {"GET", "app/_blobs/manifests/v1", "", nil, 400, "NAME_INVALID"},
		"no tag":                 {"GET", "app/manifests/none", "", nil, 404, "MANIFEST_UNKNOWN"},
		"not a tag":              {"GET", "app/manifests/-", "", nil, 400, "TAG_INVALID"},
		"no manifest":            {"GET", "app/manifests/" + none, "", nil, 404, "MANIFEST_UNKNOWN"},
		"not a digest":           {"GET", "app/blobs/sha256:../../../etc/passwd", "", nil, 404, "UNSUPPORTED"},
		"a short digest":         {"GET", "app/blobs/sha256:abc", "", nil, 400, "DIGEST_INVALID"},
		"no blob":                {"GET", "app/blobs/" + none, "", nil, 404, "BLOB_UNKNOWN"},
		"no tags":                {"GET", "none/tags/list", "", nil, 404, "NAME_UNKNOWN"},
		"a wrong page":           {"GET", "app/tags/list?n=x", "", nil, 400, "UNSUPPORTED"},
		"no upload":              {"PATCH", "app/blobs/uploads/none", "x", nil, 404, "BLOB_UPLOAD_UNKNOWN"},
		"wrong bytes":            {"POST", "app/blobs/uploads/?digest=" + none, "x", nil, 400, "DIGEST_INVALID"},
		"mount of no digest":     {"POST", "app/blobs/uploads/?mount=x&from=app", "", nil, 400, "DIGEST_INVALID"},
		"mount from no name":     {"POST", "app/blobs/uploads/?mount=" + none + "&from=../x", "", nil, 400, "NAME_INVALID"},
		"not a manifest":         {"PUT", "app/manifests/v1", "<html>", nil, 400, "MANIFEST_INVALID"},
		"another type":           {"PUT", "app/manifests/v1", `{"schemaVersion":2,"manifests":[]}`, []string{"Content-Type: " + manifest.TypeDockerManifest}, 400, "MANIFEST_INVALID"},
		"another digest":         {"PUT", "app/manifests/" + none, `{"schemaVersion":2,"manifests":[]}`, nil, 400, "DIGEST_INVALID"},
		"too large":              {"PUT", "app/manifests/v1", strings.Repeat(" ", manifest.MaxSize+1), nil, 413, "SIZE_INVALID"},
		"missing parts":          {"PUT", "app/manifests/v1", `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + none + `","size":4}]}`, nil, 400, "MANIFEST_BLOB_UNKNOWN"},
		"a blob in use":          {"DELETE", "app/blobs/" + digest.FromString(config).String(), "", nil, 409, "DENIED"},
		"deleting nothing":       {"DELETE", "app/manifests/" + none, "", nil, 404, "MANIFEST_UNKNOWN"},
		"deleting no tag":        {"DELETE", "app/manifests/none", "", nil, 404, "MANIFEST_UNKNOWN"},
		"referrers of no digest": {"GET", "app/referrers/v1", "", nil, 400, "DIGEST_INVALID"},
	} {
		a := ask(t, tt.method, base+tt.path, text(tt.body), tt.headers...)
		if a.status != tt.status || a.code() != tt.code {
			t.Errorf("%s: %d %s, want %d %s", name, a.status, a.body, tt.status, tt.code)
		}
	}
	if a := ask(t, "GET", base+"app/manifests/v1", nil); a.status != 200 || digest.FromString(a.body) != d {
		t.Errorf("the tag did not survive: %+v", a)
	}
}

// A name may have the parts that paths are made of.
func TestNamesLikePaths(t *testing.T) {
	base := "http://" + serve(t, Options{}) + "/v2/"
	for _, name := range []string{"blobs", "manifests", "a/blobs/uploads", "tags/list", "referrers/manifests/tags"} {
		pushImage(t, base+name)
		if a := ask(t, "GET", base+name+"/tags/list", nil); a.body != fmt.Sprintf(`{"name":%q,"tags":["v1"]}`, name) {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestWhatIsSwitchedOff(t *testing.T) {
	s := openStore(t, t.TempDir())
	rw, ro := "http://"+serve(t, Options{Store: s})+"/v2/", "http://"+serve(t, Options{Store: s, ReadOnly: true, Delete: true})+"/v2/"
	d := pushImage(t, rw+"app")
	for _, tt := range []struct{ method, url string }{
		{"DELETE", rw + "app/manifests/" + d.String()},
		{"DELETE", rw + "app/manifests/v1"},
		{"DELETE", rw + "app/blobs/" + digest.FromString(config).String()},
		{"DELETE", ro + "app/manifests/v1"},
		{"PUT", ro + "app/manifests/v2"},
		{"POST", ro + "app/blobs/uploads/"},
	} {
		if a := ask(t, tt.method, tt.url, nil); a.status != 405 || a.code() != "UNSUPPORTED" {
			t.Errorf("%s %s: %+v", tt.method, tt.url, a)
		}
	}
	if a := ask(t, "GET", ro+"app/manifests/v1", nil); a.status != 200 {
		t.Errorf("reading: %+v", a)
	}
}

func TestLists(t *testing.T) {
	host := "http://" + serve(t, Options{})
	base := host + "/v2/"
	pushImage(t, base+"b")
	pushImage(t, base+"a")
	doc := ask(t, "GET", base+"b/manifests/v1", nil).body
	for _, tag := range []string{"v2", "v3", "V0"} {
		ask(t, "PUT", base+"b/manifests/"+tag, text(doc))
	}
	var got []string
	next := "/v2/b/tags/list?n=3"
	for pages := 0; next != ""; pages++ {
		a := ask(t, "GET", host+next, nil)
		var page struct{ Tags []string }
		must(t, json.Unmarshal([]byte(a.body), &page))
		got = append(got, page.Tags...)
		next = strings.TrimPrefix(strings.TrimSuffix(a.header.Get("Link"), `>; rel="next"`), "<")
		if pages > 3 {
			t.Fatal("the list does not end")
		}
	}
	if fmt.Sprint(got) != "[V0 v1 v2 v3]" {
		t.Errorf("tags %v", got)
	}
	if a := ask(t, "GET", base+"_catalog", nil); a.body != `{"repositories":["a","b"]}` {
		t.Errorf("catalog %+v", a)
	}
	if a := ask(t, "GET", base+"b/tags/list?n=0", nil); a.body != `{"name":"b","tags":[]}` {
		t.Errorf("none: %+v", a)
	}
}

// An upload goes on where a broken connection left it.
func TestUploadIsResumed(t *testing.T) {
	host := serve(t, Options{})
	base := "http://" + host
	a := ask(t, "POST", base+"/v2/app/blobs/uploads/", nil)
	at := a.header.Get("Location")
	c, err := net.Dial("tcp", host)
	must(t, err)
	_, err = fmt.Fprintf(c, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Range: 0-9\r\nContent-Length: 10\r\n\r\n01234", at)
	must(t, err)
	must(t, c.Close())
	for ask(t, "GET", base+at, nil).header.Get("Range") != "0-4" { // the endpoint notices in its own time
		time.Sleep(time.Millisecond)
	}
	for {
		a = ask(t, "PATCH", base+at, text("56789"), "Content-Range: 5-9")
		if a.status != 409 { // the broken request may still hold it
			break
		}
	}
	if a.status != 202 || a.header.Get("Range") != "0-9" {
		t.Fatalf("going on: %+v", a)
	}
	if a := ask(t, "PATCH", base+at, text("x"), "Content-Range: 5-5"); a.status != 416 || a.header.Get("Range") != "0-9" {
		t.Errorf("a piece twice: %+v", a)
	}
	d := digest.FromString("0123456789").String()
	if a := ask(t, "PUT", base+at+"?digest="+d, nil); a.status != 201 {
		t.Errorf("the end: %+v", a)
	}
	if a := ask(t, "GET", base+"/v2/app/blobs/"+d, nil, "Range: bytes=3-4"); a.status != 206 || a.body != "34" || a.header.Get("Content-Range") != "bytes 3-4/10" {
		t.Errorf("a range: %+v", a)
	}
}

// A client that stalls is given up, and one that is merely slow is not.
func TestStalledClients(t *testing.T) {
	host := serve(t, Options{stall: 300 * time.Millisecond})
	at := ask(t, "POST", "http://"+host+"/v2/app/blobs/uploads/", nil).header.Get("Location")
	c, err := net.Dial("tcp", host)
	must(t, err)
	defer c.Close()
	_, err = fmt.Fprintf(c, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234", at)
	must(t, err)
	b, _ := io.ReadAll(c) // ends when the endpoint hangs up
	if !bytes.Contains(b, []byte(" 408 ")) {
		t.Errorf("a stalled client was told %q", b)
	}
	if a := ask(t, "GET", "http://"+host+at, nil); a.header.Get("Range") != "0-4" {
		t.Errorf("what came is lost: %+v", a)
	}
}

// endless is n bytes that nobody had to keep.
func endless(n int64) io.Reader { return io.LimitReader(zeros{}, n) }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestConstantMemory(t *testing.T) {
	const size = 256 << 20
	base := "http://" + serve(t, Options{}) + "/v2/app"
	h := digest.SHA256.Hash()
	_, err := io.Copy(h, endless(size))
	must(t, err)
	d := digest.NewDigest(digest.SHA256, h).String()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if a := ask(t, "POST", base+"/blobs/uploads/?digest="+d, endless(size)); a.status != 201 {
		t.Fatalf("push: %+v", a)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", base+"/blobs/"+d, nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	n, err := io.Copy(io.Discard, resp.Body)
	if must(t, resp.Body.Close()); err != nil || n != size {
		t.Errorf("pulled %d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	// All that was ever allocated, client included: freed memory counts too.
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("%d MB were allocated for a blob of %d MB", used>>20, size>>20)
	}
}

func TestAccounts(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	must(t, err)
	token := digest.FromString("t0ken").Encoded()
	accounts, err := ReadAccounts(text(fmt.Sprintf("# who\n\nann:%s\nbob:%s:read\nroot:%s:delete\nrobot:sha256:%s\nviewer:sha256:%s:read\n",
		hash, hash, hash, token, digest.FromString("other").Encoded())))
	must(t, err)
	base := "http://" + serve(t, Options{Accounts: accounts, Delete: true}) + "/v2/"
	basic := func(user, password string) string {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		return "Authorization: " + r.Header.Get("Authorization")
	}
	d := pushImage(t, base+"app", basic("ann", "secret"))
	for _, tt := range []struct {
		who                 string
		read, write, remove int
	}{
		{"", 401, 401, 401},
		{basic("ann", "secret"), 200, 202, 403},
		{basic("ann", "secret"), 200, 202, 403}, // remembered by now
		{basic("ann", "guess"), 401, 401, 401},
		{basic("ann", ""), 401, 401, 401},
		{basic("", "secret"), 401, 401, 401},
		{basic("nobody", "secret"), 401, 401, 401},
		{basic("bob", "secret"), 200, 403, 403},
		{basic("robot", "t0ken"), 200, 202, 403},
		{basic("robot", token), 401, 401, 401},
		{"Authorization: Bearer t0ken", 200, 202, 403},
		{"Authorization: Bearer other", 200, 403, 403},
		{"Authorization: Bearer ", 401, 401, 401},
		{"Authorization: Digest x", 401, 401, 401},
		{basic("root", "secret"), 200, 202, 202},
	} {
		headers := []string{tt.who}
		if tt.who == "" {
			headers = nil
		}
		read := ask(t, "GET", base+"app/manifests/"+d.String(), nil, headers...)
		write := ask(t, "POST", base+"app/blobs/uploads/", nil, headers...)
		remove := ask(t, "DELETE", base+"app/manifests/v1", nil, headers...)
		if read.status != tt.read || write.status != tt.write || remove.status != tt.remove {
			t.Errorf("%q: %d %d %d, want %d %d %d", tt.who, read.status, write.status, remove.status, tt.read, tt.write, tt.remove)
		}
		if read.status == 401 && (read.code() != "UNAUTHORIZED" || !strings.HasPrefix(read.header.Get("WWW-Authenticate"), "Basic ")) {
			t.Errorf("%q: %+v", tt.who, read)
		}
	}
	if a := ask(t, "GET", base, nil); a.status != 401 {
		t.Errorf("the ping of docker login: %+v", a)
	}
}

func TestAccountsAreRefused(t *testing.T) {
	for file, want := range map[string]string{
		"":                 "no account",
		"ann":              "line 1: write NAME:HASH",
		"# x\nann:plain":   "line 2: hash of \"ann\" is neither",
		"ann:$2y$05$short": "make it with `htpasswd -nB ann`",
		"a:sha256:00":      "64 hex digits",
		"a:sha256:" + strings.Repeat("0", 64) + ":admin":                                          "right \"admin\"",
		"a:sha256:" + strings.Repeat("0", 64) + "\na:sha256:" + strings.Repeat("0", 64) + ":read": "there twice",
	} {
		if _, err := ReadAccounts(text(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", file, err, want)
		}
	}
}

func TestFullDisk(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	must(t, unix.Mount("slipway-test", dir, "tmpfs", 0, "size=4m,mode=0700"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	s, err := local.Open(dir)
	must(t, err)
	defer s.Close()
	base := "http://" + serve(t, Options{Store: s}) + "/v2/app"
	large := strings.Repeat("x", 8<<20)
	a := ask(t, "POST", base+"/blobs/uploads/?digest="+digest.FromString(large).String(), text(large))
	if a.status != 507 || !strings.Contains(a.body, "is full") {
		t.Errorf("%+v", a)
	}
	pushImage(t, base)
}

// A real client of another house, both ways.
func TestSkopeo(t *testing.T) {
	program := need.Tool(t, "skopeo")
	host := serve(t, Options{})
	d := pushImage(t, "http://"+host+"/v2/app")
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	dir := filepath.Join(t.TempDir(), "image")
	run("copy", "--src-tls-verify=false", "docker://"+host+"/app:v1", "dir:"+dir)
	run("copy", "--dest-tls-verify=false", "dir:"+dir, "docker://"+host+"/copies/app:v2")
	if a := ask(t, "GET", "http://"+host+"/v2/copies/app/manifests/v2", nil); a.header.Get("Docker-Content-Digest") != d.String() {
		t.Errorf("skopeo brought %+v", a)
	}
	if out := run("list-tags", "--tls-verify=false", "docker://"+host+"/copies/app"); !strings.Contains(out, `"v2"`) {
		t.Errorf("tags: %s", out)
	}
}

// FuzzPiece: what is read as a piece is one, and no number overflows.
func FuzzPiece(f *testing.F) {
	for _, s := range []string{"0-0", "5-9", "bytes 0-9/10", "9-5", "-1", "0-9223372036854775807", "1-+2", "0x1-2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, ok := parsePiece(s)
		if ok && (first < 0 || last < first || last-first+1 <= 0) {
			t.Errorf("%q is %d-%d", s, first, last)
		}
	})
}

// FuzzRequests: no path, method or header makes the endpoint fail or write
// outside of its store.
func FuzzRequests(f *testing.F) {
	for _, path := range []string{"/v2/", "/v2/app/manifests/v1", "/v2/app/blobs/uploads/", "/v2/app/blobs/uploads/../../x", "/v2/a/blobs/sha256:x", "/v2//tags/list", "/v2/app/referrers/sha512:0"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"} {
			f.Add(method, path, "n=1&digest=sha256:x", "0-4", "hello")
		}
	}
	dir := f.TempDir()
	s, err := local.Open(filepath.Join(dir, "store"))
	must(f, err)
	h := New(Options{Store: s, Delete: true})
	f.Fuzz(func(t *testing.T, method, path, query, piece, body string) {
		r := httptest.NewRequest("GET", "/", text(body))
		r.Method, r.URL.Path, r.URL.RawQuery = method, path, query
		r.Header.Set("Content-Range", piece)
		r.Header.Set("Range", piece)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s %q?%q: %d %s", method, path, query, w.Code, w.Body)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s %q wrote %v, %v", method, path, entries, err)
		}
	})
}
