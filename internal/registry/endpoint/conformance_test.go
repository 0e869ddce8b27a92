package endpoint

import (
	"bytes"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"slipway/internal/need"
)

// TestConformance runs the program by which the OCI says whether something is a
// registry, for the current spec and for what is to be the next one.
func TestConformance(t *testing.T) {
	program := need.Tool(t, "oci-conformance")
	for _, version := range []string{"1.1", "1.1+dev"} {
		t.Run(version, func(t *testing.T) {
			host := serve(t, Options{Delete: true})
			results := t.TempDir()
			cmd := exec.CommandContext(t.Context(), program)
			cmd.Dir = results
			cmd.Env = append(os.Environ(), "OCI_REGISTRY="+host, "OCI_TLS=disabled", "OCI_VERSION="+version,
				"OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two", "OCI_RESULTS_DIR="+results)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			c := count(t, filepath.Join(results, "junit.xml"))
			t.Logf("spec %s: %d tests, %d failed, %d skipped, %d disabled", version, c.Tests, c.Failures+c.Errors, c.Skipped, c.Disabled)
			if err != nil || c.Failures+c.Errors > 0 {
				t.Errorf("%v\n%s", err, out.String())
			}
			if c.Tests-c.Skipped-c.Disabled < 800 {
				t.Errorf("only %d tests ran", c.Tests-c.Skipped-c.Disabled)
			}
		})
	}
}

// counters are the attributes of the report as a whole.
type counters struct {
	Tests    int `xml:"tests,attr"`
	Failures int `xml:"failures,attr"`
	Errors   int `xml:"errors,attr"`
	Skipped  int `xml:"skipped,attr"`
	Disabled int `xml:"disabled,attr"`
}

func count(t *testing.T, path string) (c counters) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}
