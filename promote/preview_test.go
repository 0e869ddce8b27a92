package promote_test

import (
	"errors"
	"strings"
	"testing"

	"slipway/pipeline"
	"slipway/promote"
)

const (
	oldDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	newDigest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
)

// file fills OLD and NEW into text behind the lines every environment has.
func file(text string) string {
	return strings.NewReplacer("OLD", oldDigest, "NEW", newDigest).Replace("version: 1\nname: prod\n" + text)
}

func TestDigestIsSpliced(t *testing.T) {
	candidate := promote.Candidate{Name: "api", Matrix: map[string]string{"a": "1", "b": "2"}, Digest: newDigest}
	for _, c := range []struct{ name, before, after string }{
		{"double quotes", "images: {api: {digest: \"OLD\"}}   # slipway's\n", "images: {api: {digest: \"NEW\"}}   # slipway's\n"},
		{"single quotes", "images:\n  api: {digest: 'OLD', repository: r.example/a}\n", "images:\n  api: {digest: 'NEW', repository: r.example/a}\n"},
		{"no quotes", "images:\n  api:\n    digest: OLD # note\n    repository: r.example/a\n", "images:\n  api:\n    digest: NEW # note\n    repository: r.example/a\n"},
		{"on the next line", "images:\n  api:\n    digest:\n      OLD\n", "images:\n  api:\n    digest:\n      NEW\n"},
		{"anchor and tag", "images: {api: {digest: &d !!str \"OLD\"}}\n", "images: {api: {digest: &d !!str \"NEW\"}}\n"},
		{"same digest elsewhere", "# OLD\nimages: {web: {digest: \"OLD\"}, api: {digest: \"OLD\"}} # OLD\n", "# OLD\nimages: {web: {digest: \"OLD\"}, api: {digest: \"NEW\"}} # OLD\n"},
		{"wide characters", "images: {web: {x-n: \"äöü日本\"}, api: {x-n: 'ß', digest: \"OLD\"}}\n", "images: {web: {x-n: \"äöü日本\"}, api: {x-n: 'ß', digest: \"NEW\"}}\n"},
		{"CRLF", "images:\r\n  api:\r\n    digest: \"OLD\"\r\n", "images:\r\n  api:\r\n    digest: \"NEW\"\r\n"},
		{"key in quotes", "\"images\": {'api': {\"digest\": \"OLD\"}}\n", "\"images\": {'api': {\"digest\": \"NEW\"}}\n"},
		{"folded lines", "images: {api: {digest:\n\n  # here\n  \"OLD\"}}\n", "images: {api: {digest:\n\n  # here\n  \"NEW\"}}\n"},

		{"added, empty flow", "images: {api: {}}\n", "images: {api: {digest: \"NEW\"}}\n"},
		{"added, empty flow with space", "images: {api: { }}\n", "images: {api: {digest: \"NEW\" }}\n"},
		{"added, flow", "images: {api: {repository: r.example/a}} # c\n", "images: {api: {repository: r.example/a, digest: \"NEW\"}} # c\n"},
		{"added, flow with trailing comma", "images: {api: {repository: r.example/a, }, web: {}}\n", "images: {api: {repository: r.example/a, digest: \"NEW\", }, web: {}}\n"},
		{"added, flow with a map in it", "images: {api: {x-m: {a: \"}\", b: '2,'} }}\n", "images: {api: {x-m: {a: \"}\", b: '2,'}, digest: \"NEW\" }}\n"},
		{"added, flow over lines", "images: {\n  api: {\n    repository: r.example/a # }, not here\n  }\n}\n", "images: {\n  api: {\n    repository: r.example/a, digest: \"NEW\" # }, not here\n  }\n}\n"},
		{"added, block", "images:\n  api:\n    # where\n    repository: r.example/a   # there\n\n  web: {}\n", "images:\n  api:\n    # where\n    repository: r.example/a   # there\n    digest: \"NEW\"\n\n  web: {}\n"},
		{"added, block with a map at its end", "images:\n  api:\n    matrix:\n      a: 1\n      b: 2\n", "images:\n  api:\n    digest: \"NEW\"\n    matrix:\n      a: 1\n      b: 2\n"},
		{"added, no line end", "images:\n  api:\n    repository: r.example/a", "images:\n  api:\n    repository: r.example/a\n    digest: \"NEW\""},
		{"added, CRLF", "images:\r\n  api:\r\n    repository: r.example/a\r\n", "images:\r\n  api:\r\n    repository: r.example/a\r\n    digest: \"NEW\"\r\n"},
		{"added over a merge key", "x-a: &a {repository: r.example/a}\nimages: {api: {<<: *a}}\n", "x-a: &a {repository: r.example/a}\nimages: {api: {<<: *a, digest: \"NEW\"}}\n"},
		{"text over lines", "images:\n  api:\n    x-note: >\n      one\n      two\n", "images:\n  api:\n    digest: \"NEW\"\n    x-note: >\n      one\n      two\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, after := file(c.before), file(c.after)
			if strings.Contains(c.before, "\r\n") {
				before, after = strings.Replace(before, "1\nname: prod\n", "1\r\nname: prod\r\n", 1), strings.Replace(after, "1\nname: prod\n", "1\r\nname: prod\r\n", 1)
			}
			got, err := promote.Preview("prod.yml", []byte(before), []promote.Candidate{candidate})
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Edited) != after {
				t.Errorf("got\n%s\nwant\n%s", got.Edited, after)
			}
			env, err := pipeline.ParseEnvironment("prod.yml", got.Edited)
			if err != nil || env.Images["api"].Digest != newDigest {
				t.Errorf("the edited file says %v (%v)", env, err)
			}
			again, err := promote.Preview("prod.yml", got.Edited, []promote.Candidate{candidate})
			if err != nil || again.Diff != "" || string(again.Edited) != string(got.Edited) {
				t.Errorf("promoted twice: %q (%v)", again.Diff, err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	one := []promote.Candidate{{Name: "api", Digest: newDigest}}
	for _, c := range []struct {
		name, text string
		images     []promote.Candidate
		want       string
	}{
		{"digest is an alias", "x-d: &d \"OLD\"\nimages: {api: {digest: *d}}\n", one, "prod.yml:4: the digest of api cannot be written without changing more"},
		{"digest has an alias", "images: {api: {digest: &d \"OLD\"}, web: {digest: *d}}\n", one, "prod.yml:3: the digest of api cannot be written without changing more"},
		{"image has an alias", "images: {api: &a {digest: \"OLD\"}, web: *a}\n", one, "prod.yml:3: the digest of api cannot be written without changing more"},
		{"image is merged elsewhere", "images:\n  api: &a {digest: \"OLD\"}\n  web: {<<: *a}\n", one, "prod.yml:4: the digest of api cannot be written without changing more"},
		{"image comes from a merge", "x-i: &i {api: {digest: \"OLD\"}}\nimages: {<<: *i}\n", one, "prod.yml: image api is not written as a map"},
		{"digest over several lines", "images:\n  api:\n    digest: >-\n      OLD\n", one, "prod.yml:5: the digest of api cannot be written without changing more"},
		{"digest with escapes", "images: {api: {digest: \"\\x73" + oldDigest[1:] + "\"}}\n", one, "prod.yml:3: the digest of api cannot be written without changing more"},
		{"a tag", "images: {api: {}}\n", []promote.Candidate{{Name: "api", Digest: "latest"}}, `promote api to prod: "latest" is not a digest (invalid checksum digest format); name it as api@sha256:…`},
		{"several fit", "images: {api: {}}\n", []promote.Candidate{
			{Name: "api", Matrix: map[string]string{"v": "1"}, Digest: newDigest}, {Name: "api", Matrix: map[string]string{"v": "2"}, Digest: newDigest},
		}, "prod.yml: 2 images of the pipeline fit api; write the values of one of them under images.api.matrix"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := promote.Preview("prod.yml", []byte(file(c.text)), c.images)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	var wrong pipeline.Errors
	if _, err := promote.Preview("prod.yml", []byte("version: 1\n"), one); !errors.As(err, &wrong) {
		t.Errorf("got %v, want pipeline.Errors", err)
	}
}

func TestPreview(t *testing.T) {
	text := file(`from: [test]
images:
  api: {matrix: {python: "3.12"}, repository: registry.example.com/prod/api, digest: "OLD"}   # slipway's to write
  web: {}
  other: {digest: "OLD"}
gates: {branch: main, signers: [slipway.pub, old.pub], tests: [unit, lint, integration], evidence: [test-result, provenance], approvals: {count: 1, from: [sysadmin], not: author}, soak: 30m, freeze: [{start: "Fri 17:00", end: "Mon 08:00", tz: Europe/Berlin}]}
`)
	got, err := promote.Preview("environments/prod.yml", []byte(text), []promote.Candidate{
		{Name: "api", Matrix: map[string]string{"python": "2.7"}, Digest: oldDigest},
		{Name: "api", Matrix: map[string]string{"python": "3.12"}, Digest: newDigest},
		{Name: "web"},
		{Name: "unknown to it", Digest: newDigest},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Edited != nil {
		t.Error("edited, although the digest of web is not known")
	}
	if want := strings.NewReplacer("OLD", oldDigest, "NEW", newDigest).Replace(`--- a/environments/prod.yml
+++ b/environments/prod.yml
@@ -2,7 +2,7 @@
 name: prod
 from: [test]
 images:
-  api: {matrix: {python: "3.12"}, repository: registry.example.com/prod/api, digest: "OLD"}   # slipway's to write
-  web: {}
+  api: {matrix: {python: "3.12"}, repository: registry.example.com/prod/api, digest: "NEW"}   # slipway's to write
+  web: {digest: "unknown"}
   other: {digest: "OLD"}
 gates: {branch: main, signers: [slipway.pub, old.pub], tests: [unit, lint, integration], evidence: [test-result, provenance], approvals: {count: 1, from: [sysadmin], not: author}, soak: 30m, freeze: [{start: "Fri 17:00", end: "Mon 08:00", tz: Europe/Berlin}]}
`); got.Diff != want {
		t.Errorf("got\n%s\nwant\n%s", got.Diff, want)
	}
	var gates []string
	for _, g := range got.Gates {
		gates = append(gates, g.String())
	}
	if want := `branch: the tested commit is on main, and the environment file is read from there
tests: unit, lint and integration passed on exactly this digest, signed with slipway.pub or old.pub
flaky: a pass after a failure does not count
evidence: test-result and provenance on this digest, signed with slipway.pub or old.pub
approvals: 1 of sysadmin, not the author
soak: 30m in test
freeze: not from Fri 17:00 to Mon 08:00 (Europe/Berlin)`; strings.Join(gates, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(gates, "\n"), want)
	}
}

func TestNothingToDo(t *testing.T) {
	text := file("images: {api: {digest: \"OLD\"}}\n")
	got, err := promote.Preview("prod.yml", []byte(text), []promote.Candidate{{Name: "web", Digest: newDigest}, {Name: "api", Digest: oldDigest}})
	if err != nil || got.Diff != "" || string(got.Edited) != text || got.Gates != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}

// FuzzPreview: whatever the file, what comes out says the same but for the digest.
func FuzzPreview(f *testing.F) {
	for _, seed := range []string{
		"images: {api: {digest: \"OLD\"}}\n", "images:\n  api:\n    repository: r.example/a\n", "images: {api: {}, web: {digest: OLD}}\n",
		"images: {api: {x-m: {a: \"}\"}, }}\n", "x: &a {b: c}\nimages: {api: {<<: *a}}\n", "images:\r\n  api:\r\n    digest: 'OLD'\r\n",
	} {
		f.Add([]byte(file(seed)))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := promote.Preview("f", text, []promote.Candidate{{Name: "api", Digest: newDigest}})
		if err != nil {
			return
		}
		before, err := pipeline.ParseEnvironment("f", text)
		if err != nil {
			t.Fatal(err)
		}
		after, err := pipeline.ParseEnvironment("f", got.Edited)
		if err != nil {
			t.Fatalf("%v in\n%q\nof\n%q", err, got.Edited, text)
		}
		if len(got.Edited) > len(text)+len(newDigest)+100 {
			t.Fatalf("grew from %q to %q", text, got.Edited)
		}
		if matrix := before.Images["api"].Matrix; len(matrix) > 0 {
			return // the candidate is without one
		}
		for name, image := range after.Images {
			want := before.Images[name].Digest
			if name == "api" {
				want = newDigest
			}
			if image.Digest != want {
				t.Fatalf("%s has %s, want %s, in %q of %q", name, image.Digest, want, got.Edited, text)
			}
		}
	})
}
