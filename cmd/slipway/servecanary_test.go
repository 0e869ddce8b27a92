package main

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/secret"
)

// canary is a secret and the random parts of it by which it is known again.
type canary struct {
	name, value string
	parts       []string
}

// shapes are what secrets look like; each X is a random part.
var shapes = []string{
	"X", "X, and then X", " \tX\t ", "X\nX\nX", "-----BEGIN KEY-----\nX\nX\nX=\n-----END KEY-----", "X\r\nX\r\n",
	`it's "X" \X\ ` + "`X`", "%s%20X%%X%", `{"user": "X", "key": "X\n\u00e9", "url": "https:\/\/X"}`, "pässwörd-X-日本語-X-🚢", "\x01\x02X\x1b[31mX\x7f",
	"\xff\xfeX\x80X\xc3", "postgres://X:X%40@db.example.com/X?a=b&c=d", "X.X.X_-", "<X>&X;", "$X ${X} $(X)", strings.Repeat("X", 150), strings.Repeat("X\n", 60), "X+/=X+/==",
}

func newCanaries(n int) (all []canary) {
	for i := range n {
		c := canary{name: fmt.Sprintf("C%d", i)}
		for piece := range strings.SplitSeq(shapes[i%len(shapes)], "X") {
			if c.value += piece; len(c.parts) < strings.Count(shapes[i%len(shapes)], "X") {
				part := strings.ToLower(rand.Text()[:13]) + rand.Text()[:5]
				if shapes[i%len(shapes)] == "X" {
					part = part[10:] // a short one
				}
				c.parts = append(c.parts, part)
				c.value += c.parts[len(c.parts)-1]
			}
		}
		all = append(all, c)
	}
	return all
}

// sightings looks for canaries in whatever it is given: as they are, in hexadecimal, in
// percents, and in base64 wherever they stand.
type sightings struct {
	t     *testing.T
	known map[uint64][]sighting // by the first eight bytes
	count int
	bytes int64
}

type sighting struct{ name, form, text string }

func newSightings(t *testing.T, all []canary) *sightings {
	s := &sightings{t: t, known: map[uint64][]sighting{}}
	add := func(name, form, text string) {
		k := binary.LittleEndian.Uint64([]byte(text))
		s.known[k] = append(s.known[k], sighting{name, form, text})
	}
	for _, c := range all {
		for _, p := range c.parts {
			inHex := hex.EncodeToString([]byte(p))
			var percents strings.Builder
			for i := 0; i < len(inHex); i += 2 {
				percents.WriteString("%" + inHex[i:i+2])
			}
			add(c.name, "raw", p)
			add(c.name, "hex", inHex)
			add(c.name, "HEX", strings.ToUpper(inHex))
			add(c.name, "percent", percents.String())
			add(c.name, "PERCENT", strings.ToUpper(percents.String()))
			for before := range 3 {
				coded := base64.StdEncoding.EncodeToString([]byte("abc"[:before] + p))
				add(c.name, fmt.Sprint("base64 after ", before), coded[(before*8+5)/6:(before+len(p))*8/6])
			}
		}
	}
	return s
}

// seen gives what is in the data, and where.
func (s *sightings) seen(data []byte, found func(k sighting, at int)) {
	for i := 0; i+8 <= len(data); i++ {
		for _, k := range s.known[binary.LittleEndian.Uint64(data[i:])] {
			if bytes.HasPrefix(data[i:], []byte(k.text)) {
				found(k, i)
			}
		}
	}
}

func (s *sightings) look(where string, data []byte) {
	s.bytes += int64(len(data))
	s.seen(data, func(k sighting, at int) {
		if s.count++; s.count <= 40 {
			s.t.Errorf("%s (%s) is in %s: …%q", k.name, k.form, where, data[max(0, at-30):min(len(data), at+len(k.text)+10)])
		}
	})
	for _, open := range []func(io.Reader) (io.ReadCloser, error){
		func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) },
		zlib.NewReader, // objects of git
	} {
		if z, err := open(bytes.NewReader(data)); err == nil {
			plain, _ := io.ReadAll(z) // what can be unpacked
			s.look(where+", unpacked", plain)
		}
	}
}

// tree looks at every file below a directory, which may be changing.
func (s *sightings) tree(dir string) (files int) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > 256<<20 { // a sparse store of volumes
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		files++
		s.look(path, data)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return files
}

// show prints each secret in many ways.
const show = `for f in /run/secrets/*; do
cat $f; echo; base64 $f; base64 -w0 $f; echo; (printf x; cat $f) | base64; (printf xy; cat $f) | base64 -w0; echo
hex=$(od -An -v -tx1 $f | tr -d ' \n'); echo $hex; echo $hex | tr a-f A-F; echo $hex | sed 's/../%&/g'; echo $hex | tr a-f A-F | sed 's/../%&/g'
while IFS= read -r line || [ -n "$line" ]; do printf 'line: %s\n' "$line"; done < $f
head -c 9 $f; sleep 0.001; tail -c +10 $f; echo
printf '{"value": "'; sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/\\t/g' $f | awk '{printf "%s%s", sep, $0; sep = "\\n"}'; echo '"}'
cat $f >&2
done
echo; echo all were shown; exit $1
`

// TestServeKeepsSecrets: builds and tests that a server runs print their secrets, of
// many shapes, in many ways, and one of them fails. They are found in nothing that is shown
// or told, and in no file of the root.
func TestServeKeepsSecrets(t *testing.T) {
	v := servedOptions{forge: true}.serve(t)
	canaries := newCanaries(soak(2*len(shapes), 500))
	vault := secret.Vault{Dir: filepath.Join(v.root, "secrets")}
	names := make([]string, len(canaries))
	for i, c := range canaries {
		names[i] = c.name
		if err := vault.Set("example/web", c.name, []byte(c.value), nil, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	list := strings.Join(names, ", ")
	v.write(t, "show.sh", show)
	v.write(t, "Dockerfile", "FROM example.com/base:1\nCOPY show.sh /\nRUN "+secretMounts(names)+" sh /show.sh 0\n")
	shows := func(code int) string {
		return fmt.Sprintf("{command: sh /show.sh %d, secrets: [%s], timeout: 10m}", code, list)
	}
	pipeline := "version: 1\nimages: {web: {build: {context: ., secrets: [" + list + "]}, tests: {unit: " + shows(0)
	v.write(t, ".ci.yml", pipeline+"}}}\n")
	good := v.commit(t, "shows secrets")
	v.start(t)
	v.push(t, "good", zeros, good)
	passed := v.until(t, good, "promoted", promoted)
	if record := recordOf(t, passed); record.Images[0].Provenance == "" || record.Images[0].Tests[0].Attestation == "" {
		t.Errorf("there is no proof in which to look: %s", passed.Result)
	}
	v.write(t, ".ci.yml", pipeline+", bad: "+shows(7)+"}}}\n")
	commit := v.commit(t, "fails")
	v.push(t, "bad", good, commit)
	r := v.until(t, commit, "over", func(r ledger.Run) bool { return r.State.Over() })
	log := v.must(t, "logs", r.ID)
	if n := bytes.Count(log, []byte("all were shown\n")); r.State != ledger.Failed || n < 2 {
		t.Fatalf("%s %s, shown %d times\n%s", r.State, r.Reason, n, log[max(0, len(log)-1500):])
	}
	log = append(log, v.must(t, "logs", passed.ID)...)
	s := newSightings(t, canaries)
	s.look("what `slipway logs` says", log)
	for _, path := range []string{"/", "/runs/" + r.ID, "/metrics", "/api/v1/runs", "/api/v1/runs/" + r.ID, "/api/v1/runs/" + passed.ID, "/api/v1/repos", "/api/v1/audit", "/api/v1/runs/" + r.ID + "/logs"} {
		for _, accept := range []string{"application/json", "text/event-stream"} {
			s.look(path+" as "+accept, v.get(t, path, accept))
		}
	}
	for deadline := time.Now().Add(time.Minute); len(v.forge.states(commit)) < 2 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
	}
	if told := v.forge.states(commit); len(told) != 2 || told[1] != "failure" {
		t.Errorf("the forge was told %v", told)
	}
	s.look("what the forge was told", fmt.Append(nil, v.forge.said))
	before := s.tree(v.root) // with the ledger's write-ahead log
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d", code)
	}
	files := s.tree(v.root)
	if before < 20 || files < 20 {
		t.Fatalf("%d and %d files of the root were read", before, files)
	}
	s.look("the server's own log", []byte(v.said()))
	t.Logf("%d canaries, %d files, %d MB: %d found", len(canaries), files, s.bytes>>20, s.count)
	s.works()
}

// works holds that every canary would be seen where it is not hidden.
func (s *sightings) works() {
	for _, all := range s.known {
		for _, k := range all {
			n := 0
			s.seen([]byte("xyz"+k.text), func(sighting, int) { n++ })
			if n == 0 {
				s.t.Errorf("%s (%s) would not be seen", k.name, k.form)
			}
		}
	}
}

// get asks the API with a token of the highest role.
func (v *served) get(t *testing.T, path, accept string) []byte {
	t.Helper()
	if v.token == "" {
		v.token = strings.TrimSpace(string(v.must(t, "tokens", "add", "all", "--role", "admin")))
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+v.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("Authorization", "Bearer "+v.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return data
}
