package pipeline_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"slipway/pipeline"
)

func TestEnvironments(t *testing.T) {
	for _, file := range files(t, "testdata/environment/*.yml") {
		e, err := pipeline.ParseEnvironment(file.name, file.text)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.MarshalIndent(e, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, strings.TrimSuffix(file.name, ".yml")+".json", append(text, '\n'))
	}
}

var wrongEnvironments = []wrong{
	{"empty", "{}\n", "", []string{`1:1: "version" is missing: The version of this format: 1.`, `1:1: "name" is missing: The environment's name.`}, form},
	{"slip", "version: 1\nname: p\nimage: {}\n", "", []string{`3:1: unknown key "image"; did you mean "images"?`}, form},
	{"from itself", "version: 1\nname: p\nfrom: [p]\n", "", []string{`3:7: from: p cannot come from itself`}, meaning},
	{"digest and repository", "version: 1\nname: p\nimages: {a: {repository: \"r.example/a:1\", digest: latest, tag: v1}}\n", "", []string{
		`3:26: images.a.repository: "r.example/a:1" is not a repository; write registry.example.com/team/name, in small letters, without a tag`,
		`3:51: images.a.digest: "latest" is not a digest; write sha256: and 64 hexadecimal digits, or leave it to slipway`,
		`3:59: images.a: unknown key "tag"; a tag can move; the digest is slipway's to write`,
	}, form},
	{"secret values", "version: 1\nname: p\nsecrets: {A: hunter2, B: {value: x}, C: {file: /a, env: B}, D: {}}\n", "", []string{
		`3:14: secrets.A: a secret's value never stands in a file of the repository; write {file: PATH}, {env: NAME}, {command: …} or {age: PATH}`,
		`3:26: secrets.B: one of file, env, command, age is missing`,
		`3:27: secrets.B: unknown key "value"; a secret's value never stands in a file of the repository`,
		`3:41: secrets.C: file and env are given together; keep one`,
		`3:64: secrets.D: one of file, env, command, age is missing`,
	}, form},
	{"secret is plain too", "version: 1\nname: p\nenvironment: {A: b}\nsecrets: {A: {env: A}}\n", "", []string{"4:11: secrets: A stands under environment too; keep one"}, meaning},
	{"gates", "version: 1\nname: p\ngates: {signers: [/etc/key.pub], evidence: [tests], approvals: {count: 0, not: reviewer}, soak: 1d, freeze: [{start: Friday 5pm, end: \"Mon 25:00\"}], flaky: maybe}\n", "", []string{
		`3:19: gates.signers: "/etc/key.pub" is not a path in the repository; it lies outside the repository; write a path relative to the pipeline file`,
		`3:45: gates.evidence: "tests" is not a kind of evidence; write test-result, provenance`,
		`3:64: gates.approvals: "from" is missing: Who may approve: ` + "`NAME` is the public key NAME.pub beside the environment file, or each key in the directory NAME.",
		`3:72: gates.approvals.count: "0" is not a whole number; write one from 1 to 100`,
		`3:80: gates.approvals.not: "reviewer" is not a person who does not count; write author`,
		`3:97: gates.soak: "1d" is not a duration; write numbers with units us, ms, s, m, h, such as 500ms, 90s or 1h30m`,
		`3:118: gates.freeze.start: "Friday 5pm" is not a time of the week; write a day and a time, such as Fri 17:00`,
		`3:135: gates.freeze.end: "Mon 25:00" is not a time of the week; write a day and a time, such as Fri 17:00`,
		`3:157: gates.flaky: "maybe" is not an answer to flaky tests; write deny, allow`,
	}, form},
	{"source", "version: 1\nname: p\nsource: {branch: main}\n", "", []string{
		`3:9: source: "repository" is missing: Where it is cloned from, without credentials; a directory begins with file://.`,
		`3:10: source: unknown key "branch"; it belongs to gates`,
	}, form},
	{"tests of images", "version: 1\nname: p\nimages: {a: {}}\ngates: {tests: [a/unit, b/unit]}\n", "", []string{"4:16: gates.tests: b/unit: the environment has no image b"}, meaning},
	{"test of a test", "version: 1\nname: p\nimages: {a: {}}\ngates: {tests: [a/b/unit]}\n", "", []string{`4:17: gates.tests: "a/b/unit" is not a test; write the name of a test, or IMAGE/TEST for the test of one image`}, form},
	{"two deliveries", "version: 1\nname: p\ndeliver: {git: {}, swarm: {}}\n", "", []string{"3:10: deliver: swarm and git are given together; keep one"}, form},
	{"no delivery", "version: 1\nname: p\ndeliver: {k8s: {}}\n", "", []string{"3:10: deliver: one of local, compose, swarm, git, kubernetes is missing", `3:11: deliver: unknown key "k8s"; write kubernetes`}, form},
	{"delivery is text", "version: 1\nname: p\ndeliver: {git: yes}\n", "", []string{`3:16: deliver.git: the text "yes" where a map belongs`}, form},
	{"expression", "version: 1\nname: p\nenvironment: {A: \"${{ event.ref }}\"}\n", "", []string{"3:19: environment.A: ${{ event.ref }} cannot stand here: an environment file has no events and no matrix; write the value, or $${{ for the text itself"}, meaning},
	{"auto", "version: 1\nname: p\nauto: true\nverify: {timeout: 1m}\n", "", []string{
		"3:7: auto: the boolean true where a map with the keys of auto belongs; known: branch",
		`4:9: verify: "command" is missing: Must succeed within the timeout; it is tried until then.`,
	}, form},
}

func TestWrongEnvironments(t *testing.T) {
	for _, w := range wrongEnvironments {
		t.Run(w.name, func(t *testing.T) {
			_, err := pipeline.ParseEnvironment("prod.yml", []byte(w.file))
			var got pipeline.Errors
			if !errors.As(err, &got) {
				t.Fatalf("got %v, want Errors", err)
			}
			if want := "prod.yml:" + strings.Join(w.want, "\nprod.yml:"); err.Error() != want {
				t.Errorf("got\n%s\nwant\n%s", err, want)
			}
		})
	}
}
