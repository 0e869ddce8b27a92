package registry

import (
	"strings"
	"testing"

	"slipway/internal/registry/local"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParseReference(t *testing.T) {
	for s, want := range map[string]Reference{
		"app":                       {Repository: "app"},
		"app:v1":                    {Repository: "app", Tag: "v1"},
		"team/app@" + someDigest:    {Repository: "team/app", Digest: someDigest},
		"localhost/app:v1":          {Repository: "localhost/app", Tag: "v1"},
		"localhost:5000/app":        {Repository: "localhost:5000/app"},
		"r.example/t/a:v1":          {Repository: "r.example/t/a", Tag: "v1"},
		"r:1/a:v1@" + someDigest:    {Repository: "r:1/a", Tag: "v1", Digest: someDigest},
		"[::1]:5000/app":            {Repository: "[::1]:5000/app"},
		"app.v2":                    {Repository: "app.v2"}, // no slash, no host
		"docker.io/library/busybox": {Repository: "docker.io/library/busybox"},
	} {
		got, err := ParseReference(s)
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v", s, got, err)
		}
		if got.String() != s {
			t.Errorf("%q is written %q", s, got)
		}
	}
	for s, host := range map[string]string{"team/app": "", "app.v2": "", "localhost/app": "localhost", "r.example/a": "r.example", "r:5/a": "r:5", "registry/app": ""} {
		if r, err := ParseReference(s); err != nil || r.Host() != host {
			t.Errorf("%q is at %q, %v", s, r.Host(), err)
		}
	}
	for _, s := range []string{
		"", ":v1", "@" + someDigest, "app@", "app@sha256:abc", "app@md5:d41d8cd98f00b204e9800998ecf8427e", "app:", "app:a b", "App", "a/../b", "../etc", "./a",
		"r.example/", "r.example/../x", "http://r.example/app", "user@r.example/app", "r.example:port/app", "r.example//app", "r.ex%2fample/app", "a/b:c/d",
	} {
		if r, err := ParseReference(s); err == nil {
			t.Errorf("%q is taken as %+v", s, r)
		}
	}
}

// FuzzReference: what is taken has a repository that the spec allows, and reads
// the same when it is written again.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"app:v1", "localhost:5000/a@" + someDigest, "r.example/t/a", "a.b", "[::1]:5/a", "a/../b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		again, err := ParseReference(r.String())
		if err != nil || again != r {
			t.Errorf("%q becomes %+v, then %+v, %v", s, r, again, err)
		}
		host, path := splitHost(r.Repository)
		if local.CheckName(path) != nil || strings.ContainsAny(host, "/@?#% \t\n") {
			t.Errorf("%q leads to %q %q", s, host, path)
		}
	})
}
