package main

import (
	"errors"
	"testing"
)

// FuzzConfig: a config file that is not right is the user's to correct, and what is
// taken names flags alone.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"", "root: /srv\naddress: 127.0.0.1:1\n", "registries:\n  example.com: {mirrors: [a], plain_http: true, insecure: false, ca: [x]}\n", "registries: {example.com: {nothing: 1}}", "unknown: 1",
		"- a", "root: [1]", "a: &a\n  <<: *a\n", "root: !!binary eA==\n", "? {a: b}\n: c\n", "registries: 1", "registries: {example.com: 1}",
	} {
		f.Add([]byte(text))
	}
	g := &globals{}
	root := root(g)
	known := map[string]bool{}
	for _, name := range flagNames(root) {
		known[name] = true
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := (&globals{config: "config.yml"}).parseConfig(root, data)
		var usage usageError
		if err != nil && !errors.As(err, &usage) {
			t.Errorf("%v is no usage error", err)
		}
		for name := range values {
			if !known[name] {
				t.Errorf("%q is no flag", name)
			}
		}
	})
}
