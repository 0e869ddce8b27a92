package pipeline

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Init writes a first .ci.yml for the Dockerfiles found, given as paths relative
// to where it will lie, with forward slashes. Without any it names the
// Dockerfile that is still to be written. What Parse would refuse is left out.
func Init(dockerfiles []string) []byte {
	var out strings.Builder
	out.WriteString(starterHead)
	taken := map[string]bool{}
	found := slices.Clone(dockerfiles)
	slices.Sort(found)
	for _, d := range slices.Compact(found) {
		if clean, problem := insidePath(d); problem == "" && clean != "." {
			starterImage(&out, clean, taken)
		}
	}
	if len(taken) == 0 {
		starterImage(&out, "Dockerfile", taken)
	}
	out.WriteString(starterTail)
	return []byte(out.String())
}

const starterHead = `# What slipway builds here, and what the images must pass.
# Check it with: slipway validate      See the plan with: slipway run pipeline --dry-run
version: 1

# Without "when" every push and pull request runs.
# when: {push: {branches: [main], tags: ["v*"]}, pull_request: {forks: hold}}

images:
`

const starterTail = `
# Containers beside a test; the test reaches one under its name here. Keys are Compose's.
# services:
#   db:
#     image: mysql:8.4
#     environment: {MYSQL_ALLOW_EMPTY_PASSWORD: "1", MYSQL_DATABASE: test}
#     healthcheck: {test: [CMD, mysqladmin, ping], interval: 500ms, retries: 60}
`

func starterImage(out *strings.Builder, dockerfile string, taken map[string]bool) {
	dir, file := path.Split(dockerfile)
	dir = path.Clean(dir)
	fmt.Fprintf(out, "  %s:\n", starterName(dir, file, taken))
	if file == "Dockerfile" {
		fmt.Fprintf(out, "    build: %s\n", starterScalar(dir))
	} else {
		fmt.Fprintf(out, "    build:\n      context: %s\n      dockerfile: %s\n", starterScalar(dir), starterScalar(file))
	}
	if len(taken) > 1 {
		return
	}
	out.WriteString(`    # Each test runs in a sandbox made from exactly the image that was built.
    # tests:
    #   unit:
    #     command: ./run-tests.sh --junit /out/junit.xml
    #     network: none                        # or services (default), internet
    #     reports: {junit: /out/junit.xml}
    #     timeout: 5m
`)
}

// starterName is what a Dockerfile's own name or its directory calls the image.
func starterName(dir, file string, taken map[string]bool) string {
	name := strings.TrimPrefix(file, "Dockerfile")
	name = strings.TrimSuffix(strings.Trim(name, ".-_"), ".Dockerfile")
	if name == "" {
		name = path.Base(dir)
	}
	name = notInName.ReplaceAllString(strings.ToLower(name), "-")
	if name = strings.Trim(name, "-._"); name == "" || strings.HasPrefix(name, "x-") {
		name = "app"
	}
	base := name
	for i := 2; taken[name]; i++ {
		name = base + "-" + strconv.Itoa(i)
	}
	taken[name] = true
	return name
}

var (
	notInName   = regexp.MustCompile(`[^a-z0-9_.-]+`)
	plainScalar = regexp.MustCompile(`^(\.|[a-zA-Z_][a-zA-Z0-9_./-]*)$`)
)

// starterScalar puts quotes around what YAML could take for something else.
func starterScalar(text string) string {
	switch strings.ToLower(text) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		return strconv.Quote(text)
	}
	if plainScalar.MatchString(text) {
		return text
	}
	return strconv.Quote(strings.ReplaceAll(text, "${{", "$${{"))
}
