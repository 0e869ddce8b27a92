package secret

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/pipeline"
)

func nothing(name string) ([]byte, error) { return nil, fmt.Errorf("%s is not there", name) }

func TestSecretsAreFoundWhereTheySay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(file, []byte("of a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := Resolver{Getenv: func(name string) (string, bool) { return "of " + name, name == "DB" }}
	for want, s := range map[string]pipeline.Secret{
		"of a file":   {File: file},
		"of DB":       {Env: "DB"},
		"of a printf": {Command: []string{"printf", "of a printf\r\n"}},
	} {
		if got, err := r.Value(t.Context(), "PASSWORD", s, nothing); err != nil || got != want {
			t.Errorf("%+v: %q, %v", s, got, err)
		}
	}
}

func TestSecretsThatAreNotThere(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, maxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	r := Resolver{Getenv: func(string) (string, bool) { return "", false }}
	for want, s := range map[string]pipeline.Secret{
		"make the file":         {File: "/nowhere/secret"},
		"larger than":           {File: large},
		"is not set":            {Env: "DB"},
		"exit status 3":         {Command: []string{"sh", "-c", "echo hush; echo hush >&2; exit 3"}},
		"zero byte":             {Command: []string{"printf", `a\000b`}},
		"db.age is not there":   {Age: "db.age"},
		"file, env, command or": {},
	} {
		got, err := r.Value(t.Context(), "PASSWORD", s, nothing)
		if err == nil || got != "" || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "secret PASSWORD: ") {
			t.Errorf("%+v: %q, %v; want %q", s, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}
