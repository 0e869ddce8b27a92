package supervise

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/pipeline"
)

func TestSecretsAreFoundWhereTheySay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(file, []byte("of a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := resolver{
		getenv:  func(name string) (string, bool) { return "of " + name, name == "DB" },
		decrypt: func(path string) ([]byte, error) { return []byte("of " + path), nil },
	}
	for want, s := range map[string]pipeline.Secret{
		"of a file":   {File: file},
		"of DB":       {Env: "DB"},
		"of a printf": {Command: []string{"printf", "of a printf\r\n"}},
		"of db.age":   {Age: "db.age"},
	} {
		if got, err := r.value(t.Context(), "PASSWORD", s); err != nil || got != want {
			t.Errorf("%+v: %q, %v", s, got, err)
		}
	}
}

func TestSecretsThatAreNotThere(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, maxSecret+1), 0o600); err != nil {
		t.Fatal(err)
	}
	r := resolver{getenv: func(string) (string, bool) { return "", false }}
	for want, s := range map[string]pipeline.Secret{
		"make the file":     {File: "/nowhere/secret"},
		"larger than":       {File: large},
		"is not set":        {Env: "DB"},
		"exit status 3":     {Command: []string{"sh", "-c", "echo hush; echo hush >&2; exit 3"}},
		"zero byte":         {Command: []string{"printf", `a\000b`}},
		"no key for it":     {Age: "db.age"},
		"file, env, comman": {},
	} {
		got, err := r.value(t.Context(), "PASSWORD", s)
		if err == nil || got != "" || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "secret PASSWORD: ") {
			t.Errorf("%+v: %q, %v; want %q", s, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}
