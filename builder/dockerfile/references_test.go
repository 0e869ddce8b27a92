package dockerfile

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestReferences(t *testing.T) {
	for _, tc := range []struct {
		name, file, target string
		args               map[string]string
		want               []string
	}{
		{name: "one base", file: "FROM debian:12\nRUN true\n", want: []string{"docker.io/library/debian:12 debian:12 1"}},
		{name: "latest", file: "FROM debian\n", want: []string{"docker.io/library/debian:latest debian 1"}},
		{name: "scratch", file: "FROM scratch\nCOPY a /\n"},
		{name: "registry", file: "FROM reg.example:5000/a/b:1\n", want: []string{"reg.example:5000/a/b:1 reg.example:5000/a/b:1 1"}},
		{
			name: "digest", file: "FROM a@sha256:" + strings.Repeat("a", 64) + "\n",
			want: []string{"docker.io/library/a@sha256:" + strings.Repeat("a", 64) + " a@sha256:" + strings.Repeat("a", 64) + " 1"},
		},
		{
			name: "only what the target needs", target: "a",
			file: "FROM one AS a\nFROM two AS b\n", want: []string{"docker.io/library/one:latest one 1"},
		},
		{
			name: "stages, copies and mounts",
			file: "FROM one AS a\nFROM two\nCOPY --from=a /x /x\nCOPY --from=three:3 /x /x\nRUN --mount=from=four,target=/m true\nCOPY --from=0 / /\n",
			want: []string{"docker.io/library/four:latest four 5", "docker.io/library/one:latest one 1", "docker.io/library/three:3 three:3 4", "docker.io/library/two:latest two 2"},
		},
		{
			name: "arguments", args: map[string]string{"V": "13"},
			file: "ARG V=12\nARG B=debian:$V\nFROM ${B}-slim\n", want: []string{"docker.io/library/debian:13-slim debian:13-slim 3"},
		},
		{name: "platform argument", file: "FROM --platform=$BUILDPLATFORM x:$TARGETARCH\n", want: []string{"docker.io/library/x:arm64 x:arm64 1"}},
		{name: "a later stage does not shadow FROM", file: "FROM x AS y\nFROM z AS x\n", target: "y", want: []string{"docker.io/library/x:latest x 1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := Parse("Dockerfile", []byte(tc.file))
			if err != nil {
				t.Fatal(err)
			}
			platform := ""
			if strings.Contains(tc.file, "TARGETARCH") {
				platform = "linux/arm64"
			}
			refs, err := f.References(tc.args, tc.target, platform)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range refs {
				got = append(got, r.Name+" "+r.Context+" "+string(rune('0'+r.Line)))
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for _, tc := range []struct{ name, file, want string }{
		{"empty", "\n", "D: the Dockerfile is empty; begin it with a FROM line"},
		{"unknown instruction", "FROM a\n\nCOPPY a b\n", "D:3: unknown instruction: COPPY (did you mean COPY?)"},
		{"no stage", "ARG A=1\n", "D: there is no FROM line; begin with one"},
		{"bad flag", "FROM a\nCOPY --frm=x a b\n", "D:2: unknown flag: --frm (did you mean from?)"},
		{"too few arguments", "FROM a\nCOPY a\n", "D:2: COPY requires at least two arguments, but only one was provided. Destination could not be determined"},
		{"before FROM", "RUN true\nFROM a\n", "D:1: no build stage in current context"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("D", []byte(tc.file))
			var se *SyntaxError
			if !errors.As(err, &se) {
				t.Fatalf("got %v, want a SyntaxError", err)
			}
			if err.Error() != tc.want {
				t.Errorf("got  %s\nwant %s", err, tc.want)
			}
		})
	}
}

func TestReferenceErrors(t *testing.T) {
	for _, tc := range []struct{ name, file, target, want string }{
		{"no such target", "FROM a AS one\nFROM b AS two\n", "three", `D: there is no stage "three": its stages are one, two`},
		{"blank base", "ARG X\nFROM $X\n", "", "D:2: FROM $X names no image: give the argument a default or a value"},
		{"bad reference", "FROM UPPER:x\n", "", `D:1: "UPPER:x" is not an image reference: invalid reference format: repository name (library/UPPER) must be lowercase; write it like debian:12 or registry.example/team/app:1`},
		{"stage number", "FROM a\nCOPY --from=3 a b\n", "", "D:2: COPY --from=3: there are 1 stages, counted from 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := Parse("D", []byte(tc.file))
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.References(nil, tc.target, "")
			var se *SyntaxError
			if !errors.As(err, &se) || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestPrivileges(t *testing.T) {
	f, err := Parse("Dockerfile", []byte("FROM a\nRUN --security=insecure x\nRUN y\nRUN --network=host z\nRUN --network=none z\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Privilege{{Line: 2, Flag: "--security=insecure"}, {Line: 4, Flag: "--network=host"}}
	if got := f.Privileges(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
