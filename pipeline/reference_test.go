package pipeline

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

// docs/ci-yml.md is written from the tables that the parser reads; with
// -update this test rewrites it.
func TestReferenceIsCurrent(t *testing.T) {
	const file = "../docs/ci-yml.md"
	want := reference()
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the parser's tables say; go test ./pipeline -run Reference -update rewrites it", file)
	}
}

func reference() string {
	var out strings.Builder
	out.WriteString(referenceHead)
	r := referenceWriter{out: &out, done: map[string]bool{}}
	r.object(fileCodec.shape, "## `.ci.yml`", "")
	r.rest()
	out.WriteString(referenceEnvironment)
	r.object(plainShape(environmentCodec.shape), "## `environments/NAME.yml`", "")
	r.rest()
	return out.String()
}

const referenceHead = "<!-- Written by go test ./pipeline -run Reference -update from the tables that the parser reads. Do not edit. -->\n" +
	"# `.ci.yml` and environment files, key by key\n\n" +
	"Keys that Compose has keep Compose's names. Unknown keys are errors; `x-*` keys, anchors, aliases and merge keys (`<<`) are allowed.\n" +
	"`slipway validate` checks a file, `slipway schema` prints its JSON Schema, `slipway init` writes a first one.\n\n" +
	"`${{ matrix.NAME }}` and `${{ event.ref }}`, `event.commit`, `event.branch`, `event.tag`, `event.kind` may stand in any value marked *e*.\n" +
	"They are filled in after the file is read, so a value can never change the file's structure; a whole value keeps the type of its key; `$${{` is the text itself.\n" +
	"On a pull request, `event.branch` is the branch it goes to.\n\n" +
	"A duration is numbers with units `us`, `ms`, `s`, `m`, `h`: `500ms`, `1h30m`. A size is a number with `k`, `m`, `g` or `t`, of 1024: `512m`, `1.5g`.\n" +
	"A glob's `*` and `?` stop at a slash, `**` does not, `[a-z]` is a set, a leading `!` takes away what earlier globs let in, a trailing slash means everything below.\n\n" +
	"How images, matrices and tests depend on each other:\n\n" +
	"- A build waits for the builds of the images under `needs` and of each `image:NAME` in `additional_contexts`. Where both images have a matrix, the combinations go together whose values agree in the keys they share; where `image:NAME` then still means several, write `image:NAME[KEY=VALUE]`.\n" +
	"- A test waits for its own image, for the tests under its `needs`, and for the images its services and volumes come from.\n" +
	"- A test's own `services` replace the image's; a test with `network: none` has none.\n" +
	"- A service whose definition uses a matrix value is another service for each value.\n" +
	"- What an event does not run is skipped and reported as a success. An image that another one needs is built all the same.\n" +
	"\nServices, and the network of a test:\n\n" +
	"- A test and its services have a network of their own, with IPv4 and IPv6. A service is reached by its name, at any port, from the test and from the other services. Nothing leads from there to the host, to other tests or anywhere else; with `network: internet` the test and its services also get out, never to the host or cloud metadata.\n" +
	"- A service is ready when its `healthcheck` passes; without one, when the HEALTHCHECK of its image does; without that, when the lowest TCP port that its image exposes takes connections; else as soon as it runs. While it starts it is looked at early and often, which counts as no failure: `interval` and `retries` mean what they mean in Compose. A check whose program is not there (its shell's exit code 127 counts) can never pass and fails at once; in the `start_period` it may still come.\n" +
	"- The test starts when all its services are ready. One that fails its check too often, or ends, fails the test, and is named with its last lines; only one that others wait for with `service_completed_successfully`, or one without any check, may end with exit code 0. `slipway logs RUN/TEST` shows all that they said.\n" +
	"- An image of a service that was imported (`slipway images import`) is used as it is; any other is asked of its registry once a run, and taken by digest. The digests stand in the run's record, and a result is reused only while they are the same.\n" +
	"- A named volume is one directory to a test and all its services. Lines of an `env_file` are `NAME=VALUE`, nothing in them is interpolated.\n"

const referenceEnvironment = "\n# Environment files\n\nThey hold no expressions. Paths are relative to the file's own repository.\n"

// referenceWriter writes one table for each object, each once.
type referenceWriter struct {
	out     *strings.Builder
	pending []*shape
	done    map[string]bool
}

func (r *referenceWriter) rest() {
	for len(r.pending) > 0 {
		s := r.pending[0]
		r.pending = r.pending[1:]
		r.object(s, "### "+s.def, "")
	}
}

func (r *referenceWriter) object(s *shape, title, note string) {
	r.done[s.def] = true
	fmt.Fprintf(r.out, "\n%s\n\n%s%s\n\n| key | takes | |\n|---|---|---|\n", title, s.doc, note)
	for _, f := range s.fields {
		required := ""
		if f.required {
			required = "**Required.** "
		}
		fmt.Fprintf(r.out, "| `%s` | %s | %s%s |\n", f.key, r.takes(f.shape), required, f.doc)
	}
	if s.items != nil {
		fmt.Fprintf(r.out, "| *any other name* | %s | |\n", r.takes(s.items))
	}
}

// takes describes a value in a few words and queues the objects in it.
func (r *referenceWriter) takes(s *shape) string {
	return strings.ReplaceAll(r.bare(s), "|", "\\|")
}

func (r *referenceWriter) bare(s *shape) string {
	mark := ""
	if s.expression || (s.kind == "either" && s.says != "" && anyExpression(s)) {
		mark = " *e*"
	}
	switch s.kind {
	case "object":
		if !r.done[s.def] {
			r.done[s.def] = true
			r.pending = append(r.pending, s)
		}
		return "[" + s.def + "](#" + strings.ReplaceAll(s.def, " ", "-") + ")"
	case "map":
		return "map from names to " + r.bare(s.items)
	case "list":
		return "list of " + r.bare(s.items)
	case "either":
		for _, e := range s.either {
			if e.kind == "object" || (e.kind == "map" && e.items.kind == "object") {
				return r.either(s)
			}
		}
	}
	if s.enum != nil {
		return "`" + strings.Join(s.enum, "`, `") + "`" + mark
	}
	return s.says + mark
}

func (r *referenceWriter) either(s *shape) string {
	var parts []string
	for _, e := range s.either {
		if e.kind == "null" {
			parts = append(parts, "nothing")
		} else {
			parts = append(parts, r.bare(e))
		}
	}
	return strings.Join(parts, " or ")
}

func anyExpression(s *shape) bool {
	if s.expression {
		return true
	}
	for _, e := range s.either {
		if anyExpression(e) {
			return true
		}
	}
	return s.items != nil && anyExpression(s.items)
}
