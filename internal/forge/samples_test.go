package forge

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slipway/internal/need"
)

var update = flag.Bool("update", false, "write testdata/samples.txt anew")

// sample is a recorded webhook of another project.
type sample struct {
	kind  Kind   // empty: of a forge that slipway does not know
	event string // as the header has it
	body  []byte
}

// TestSamples answers every webhook of @octokit/webhooks-examples and of go-scm's testdata
// (.ci/samples/fetch), and holds the answers against the table testdata/samples.txt.
func TestSamples(t *testing.T) {
	dir := "../../bin/samples"
	_, err := os.Stat(dir)
	need.Have(t, "webhook-samples", err)
	table := []string{"# source | forge | event and action | count | answered as"}
	for _, source := range []struct {
		name  string
		list  []sample
		least int // so that a moved file cannot empty the table unseen
	}{
		{"octokit", octokit(t, dir+"/octokit"), 329 + 49 + 49 + 50 + 124 + 125},
		{"go-scm", goSCM(t, dir+"/go-scm"), 120},
	} {
		if len(source.list) < source.least {
			t.Errorf("%s: %d samples, expected %d", source.name, len(source.list), source.least)
		}
		counts := map[string]int{}
		for _, s := range source.list {
			var p struct {
				Action string `json:"action"`
			}
			_ = json.Unmarshal(s.body, &p) // an action of another type is none
			event := s.event
			if s.kind != "" && p.Action != "" {
				event += " " + p.Action
			}
			got := answer(t, s)
			counts[fmt.Sprintf("%s | %s | %s | %%d | %s", source.name, s.kind, event, got)]++
			if want := plainly(t, s); s.kind == GitHub && !strings.HasPrefix(got, want) {
				t.Errorf("%s %s is answered %q, must begin with %q", source.name, event, got, want)
			}
		}
		for _, line := range slices.Sorted(maps.Keys(counts)) {
			table = append(table, fmt.Sprintf(line, counts[line]))
		}
	}
	got := strings.Join(table, "\n") + "\n"
	const golden = "testdata/samples.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range table {
		if !strings.Contains(string(want), line+"\n") {
			t.Errorf("new: %s", line)
		}
	}
	for line := range strings.Lines(string(want)) {
		if !strings.Contains(got, line) {
			t.Errorf("gone: %s", line)
		}
	}
}

// answer is what Read makes of a sample, in words.
func answer(t *testing.T, s sample) string {
	t.Helper()
	if s.kind == "" {
		h := http.Header{}
		if s.event == "gogs" {
			h.Set("X-Gogs-Event", "push")
			h.Set("X-GitHub-Event", "push")
		}
		if kind, ok := Detect(h); ok {
			return "taken for " + string(kind)
		}
		return "refused: no forge that slipway knows"
	}
	d, err := readAt(now, s.kind, secret, signed(t, s.kind, s.event, s.body), s.body)
	if errors.Is(err, ErrMalformed) {
		return "refused: " + err.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	if d.Ping {
		return "ping"
	}
	var words []string
	for _, c := range d.Changes {
		what := "run "
		if !c.Runs() {
			what = "no run "
		}
		what += fmt.Sprintf("%s %s", c.Event.Kind, c.Event.Ref)
		if c.PullRequest != 0 {
			what += fmt.Sprintf(" → %s, %s", c.Event.Base, c.Action)
		}
		if !c.Event.Trusted {
			what += ", untrusted"
		}
		words = append(words, what)
	}
	if d.Ignored != "" {
		words = append(words, "ignored: "+d.Ignored)
	}
	return strings.Join(words, "; ")
}

// plainly is how the answer to a sample of GitHub begins, by another way of reading it.
func plainly(t *testing.T, s sample) string {
	t.Helper()
	var p map[string]any
	if err := json.Unmarshal(s.body, &p); err != nil {
		t.Fatal(err)
	}
	switch s.event {
	case "ping":
		return "ping"
	case "push":
		if p["deleted"] == true {
			return "no run "
		}
		return "run "
	case "pull_request":
		number := fmt.Sprintf("pull_request refs/pull/%v/head", p["number"])
		switch p["action"] {
		case "opened", "reopened", "synchronize":
			return "run " + number
		case "closed":
			return "no run " + number
		}
		return "ignored: a pull request was"
	}
	return "ignored: slipway does nothing on"
}

// octokit reads the examples of GitHub, and of its Enterprise Server.
func octokit(t *testing.T, dir string) []sample {
	t.Helper()
	files, err := filepath.Glob(dir + "/*/index.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples in %s: %v", dir, err)
	}
	var list []sample
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var events []struct {
			Name     string            `json:"name"`
			Examples []json.RawMessage `json:"examples"`
		}
		if err := json.Unmarshal(text, &events); err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			for _, body := range e.Examples {
				list = append(list, sample{GitHub, e.Name, body})
			}
		}
	}
	return list
}

// goSCM reads what go-scm's drivers are tested with. The files hold bodies only: the event in the
// header follows from the file's name, or from the body.
func goSCM(t *testing.T, dir string) []sample {
	t.Helper()
	files, err := filepath.Glob(dir + "/*/testdata/webhooks/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples in %s: %v", dir, err)
	}
	var list []sample
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		driver, _, _ := strings.Cut(strings.TrimPrefix(file, dir+"/"), "/")
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		var p struct {
			ObjectKind string `json:"object_kind"` // GitLab
			EventKey   string `json:"eventKey"`    // Data Center
		}
		if err := json.Unmarshal(body, &p); err != nil {
			t.Fatal(err)
		}
		s := sample{body: body}
		switch driver {
		case "github":
			s.kind, s.event = GitHub, named(name, githubNames)
		case "gitea":
			s.kind, s.event = Gitea, named(name, giteaNames)
		case "gitlab":
			s.kind, s.event = GitLab, gitlabNames[p.ObjectKind]
		case "bitbucket":
			s.kind, s.event = Bitbucket, named(name, bitbucketNames)
		case "stash":
			s.kind, s.event = BitbucketDC, p.EventKey
		default: // azure, gogs
			s.event = driver
		}
		if s.event == "" {
			t.Errorf("%s: which event is it?", file)
			continue
		}
		list = append(list, s)
	}
	return list
}

// named finds the event of the longest prefix of a file's name.
func named(name string, events map[string]string) string {
	best := ""
	for prefix := range events {
		if strings.HasPrefix(name, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	return events[best]
}

var (
	githubNames = map[string]string{
		"branch_create": "create", "branch_delete": "delete", "tag_create": "create", "tag_delete": "delete",
		"check_run": "check_run", "check_suite": "check_suite", "deployment": "deployment", "deployment_status": "deployment_status",
		"fork": "fork", "installation": "installation", "installation_repository": "installation_repositories",
		"issue_comment": "issue_comment", "label": "label", "ping": "ping", "pr_": "pull_request",
		"pr_comment": "pull_request_review_comment", "pr_review": "pull_request_review", "push": "push",
		"release": "release", "repository": "repository", "status": "status",
	}
	giteaNames = map[string]string{
		"branch_create": "create", "branch_delete": "delete", "tag_create": "create", "tag_delete": "delete",
		"issue_comment": "issue_comment", "issues": "issues", "pull_request": "pull_request",
		"pull_request_comment": "issue_comment", "push": "push", "release": "release", "review": "pull_request_approved",
	}
	gitlabNames = map[string]string{
		"push": "Push Hook", "tag_push": "Tag Push Hook", "merge_request": "Merge Request Hook",
		"issue": "Issue Hook", "note": "Note Hook", "release": "Release Hook",
	}
	bitbucketNames = map[string]string{
		"push": "repo:push", "pr_created": "pullrequest:created", "pr_updated": "pullrequest:updated",
		"pr_fulfilled": "pullrequest:fulfilled", "pr_declined": "pullrequest:rejected",
	}
)
