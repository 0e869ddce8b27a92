package pipeline_test

import (
	"bytes"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"slipway/pipeline"
)

func compileSchema(t testing.TB, text []byte) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("slipway.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("slipway.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON is what an editor would give a schema: YAML as JSON values, keys as they are written.
func asJSON(text []byte) (any, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	keysAsText(&doc)
	var v any
	err := doc.Decode(&v)
	return plainValues(v), err
}

func keysAsText(n *yaml.Node) {
	for i, c := range n.Content {
		if c.Kind == yaml.ScalarNode && c.ShortTag() == "!!timestamp" { // YAML 1.2, which editors read, has none
			c.Tag = "!!str"
		}
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Kind == yaml.ScalarNode && c.ShortTag() != "!!merge" {
			c.Tag = "!!str"
		}
		keysAsText(c)
	}
}

func plainValues(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = plainValues(v[k])
		}
	case []any:
		for i := range v {
			v[i] = plainValues(v[i])
		}
	case time.Time:
		return v.String()
	}
	return v
}

// What parses, the schema takes; and what is wrong in form, it refuses.
func TestSchemaAgreesWithParser(t *testing.T) {
	schema := compileSchema(t, pipeline.Schema())
	for _, file := range files(t, "testdata/valid/*.yml") {
		v, err := asJSON(file.text)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s parses and the schema refuses it: %v", file.name, err)
		}
	}
	for _, w := range wrongFiles {
		v, err := asJSON([]byte(w.text()))
		if err != nil {
			if w.schema {
				t.Errorf("%s is not even YAML: %v", w.name, err)
			}
			continue
		}
		refused := schema.Validate(v) != nil
		if bytes.Contains([]byte(w.text()), []byte("---\n")) {
			continue // the second document is not seen here
		}
		if refused != w.schema && v != nil {
			t.Errorf("%s: the schema refuses it: %v, want %v\n%s", w.name, refused, w.schema, w.text())
		}
	}
}

func TestEnvironmentSchemaAgreesWithParser(t *testing.T) {
	schema := compileSchema(t, pipeline.EnvironmentSchema())
	for _, file := range files(t, "testdata/environment/*.yml") {
		v, err := asJSON(file.text)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s parses and the schema refuses it: %v", file.name, err)
		}
	}
	for _, w := range wrongEnvironments {
		v, err := asJSON([]byte(w.file))
		if err != nil {
			t.Fatal(err)
		}
		if refused := schema.Validate(v) != nil; refused != w.schema {
			t.Errorf("%s: the schema refuses it: %v, want %v", w.name, refused, w.schema)
		}
	}
}

type file struct {
	name string
	text []byte
}

func files(t testing.TB, glob string) []file {
	t.Helper()
	names, err := filepath.Glob(glob)
	if err != nil || len(names) == 0 {
		t.Fatalf("no files %s (%v)", glob, err)
	}
	var out []file
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, file{name, text})
	}
	return out
}

// Whatever is changed in a good file: what the parser still takes, the schema takes.
func TestSchemaTakesWhatParses(t *testing.T) {
	for _, c := range []struct {
		glob   string
		schema []byte
		parse  func([]byte) error
	}{
		{"testdata/valid/*.yml", pipeline.Schema(), func(b []byte) error { _, err := pipeline.Parse("x", b); return err }},
		{"testdata/environment/*.yml", pipeline.EnvironmentSchema(), func(b []byte) error { _, err := pipeline.ParseEnvironment("x", b); return err }},
	} {
		schema := compileSchema(t, c.schema)
		random := rand.New(rand.NewSource(1))
		taken := 0
		for _, file := range files(t, c.glob) {
			for range 80 {
				var doc yaml.Node
				if err := yaml.Unmarshal(file.text, &doc); err != nil {
					t.Fatal(err)
				}
				mutate(random, &doc)
				text, err := yaml.Marshal(&doc)
				if err != nil || c.parse(text) != nil {
					continue
				}
				v, err := asJSON(text)
				if err != nil {
					t.Fatal(err)
				}
				taken++
				if err := schema.Validate(v); err != nil {
					t.Fatalf("parses, and the schema refuses it: %v\n%s", err, text)
				}
			}
		}
		if taken < 60 {
			t.Errorf("only %d changed files were still good; the changes are too wild to show anything", taken)
		}
	}
}

// mutate changes one value or key somewhere under n.
func mutate(random *rand.Rand, n *yaml.Node) {
	var all []*yaml.Node
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		all = append(all, n)
		for _, c := range n.Content {
			walk(c)
		}
	}
	walk(n.Content[0])
	victim := all[1+random.Intn(len(all)-1)]
	anchor := victim.Anchor
	other := all[1+random.Intn(len(all)-1)]
	switch random.Intn(4) {
	case 0:
		values := []string{"1", "1.5", "true", "5m", "512m", "a", ".", "/out/a", "", "~", "[]", "{}", "[a, 2]", "{a: b}", "none", "\"3\"", "${{ event.ref }}", "./a:/b", "2026-01-02"}
		var v yaml.Node
		if yaml.Unmarshal([]byte(values[random.Intn(len(values))]), &v) == nil && len(v.Content) > 0 {
			*victim = *v.Content[0]
		}
	case 1:
		if other.Kind == yaml.ScalarNode {
			*victim = *other
		}
	case 2:
		if len(victim.Content) >= 2 {
			victim.Content = victim.Content[2:]
		}
	case 3:
		if victim.Kind == yaml.ScalarNode && victim.Value != "" {
			i := random.Intn(len(victim.Value))
			victim.Value = victim.Value[:i] + victim.Value[i+1:]
			victim.Tag = ""
		}
	}
	victim.Anchor = anchor
}
