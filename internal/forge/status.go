package forge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// State is how far the work on a commit has come.
type State string

// The states. Failure is the user's, Error slipway's own.
const (
	Pending State = "pending"
	Success State = "success"
	Failure State = "failure"
	Error   State = "error"
)

// Status is what a forge shows beside a commit.
type Status struct {
	Commit      string // in full
	Context     string // which of several it is: a later one of the same Context replaces it
	State       State
	Description string // one line; cut to what the forge takes
	URL         string // where to read more, http or https; may be empty except for Bitbucket
}

// Reporter posts statuses to one forge.
type Reporter struct {
	kind   Kind
	api    string // without a slash at the end
	token  string
	client *http.Client
}

// NewReporter posts to the API at apiURL (as Kind.API gives it), with a token that may set the
// statuses of commits and needs no more. "user:password" is sent as such to Bitbucket. For
// Generic, apiURL is a webhook of the user's and the token the secret it is signed with.
//
// A nil client is one that gives up after 30 seconds. Redirects are never followed.
func NewReporter(kind Kind, apiURL, token string, client *http.Client) (*Reporter, error) {
	u, err := url.Parse(apiURL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || kind != Generic && u.RawQuery != "" {
		return nil, errors.New("the address of the forge's API is not of the form https://HOST/PATH")
	}
	if _, ok := readers[kind]; !ok {
		return nil, fmt.Errorf("no forge is called %q", kind)
	}
	if token == "" {
		return nil, fmt.Errorf("%s takes statuses only with a token; make one that may set the statuses of commits", kind)
	}
	return &Reporter{kind: kind, api: strings.TrimRight(apiURL, "/"), token: token, client: strict(client)}, nil
}

// API is where the forge of a clone URL has its API, unless its owner has put it elsewhere.
func (k Kind) API(cloneURL string) (string, error) {
	u, err := url.Parse(cloneURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", errors.New("only an http or https clone URL tells where the forge's API is; name its address")
	}
	base := u.Scheme + "://" + u.Host
	switch k {
	case GitHub:
		if u.Host == "github.com" {
			return "https://api.github.com", nil
		}
		return base + "/api/v3", nil
	case GitLab:
		return base + "/api/v4", nil
	case Bitbucket:
		return "https://api.bitbucket.org/2.0", nil
	case BitbucketDC:
		// A context path, and then /scm/, stand before a repository.
		path, _, _ := strings.Cut(u.Path, "/scm/")
		return base + path + "/rest/api/latest", nil
	case Gitea, Forgejo:
		return base + "/api/v1", nil
	}
	return "", fmt.Errorf("a forge of kind %s has no API", k)
}

// Post sets a status of a commit in the repository of that full name. Its error is a *PostError
// when it is the forge's, or the network's.
func (r *Reporter) Post(ctx context.Context, repo string, s Status) error {
	if err := s.check(r.kind); err != nil {
		return err
	}
	if r.kind == Generic {
		return r.postGeneric(ctx, repo, s)
	}
	path, body, err := r.request(repo, s)
	if err != nil {
		return err
	}
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.api+path, strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	r.authorize(req)
	what := fmt.Sprintf("post %q for %s@%.12s to %s", s.State, repo, s.Commit, r.kind)
	answer, err := post(r.client, req, what)
	if r.kind == GitLab && err != nil && answer.code == http.StatusBadRequest && gitlabRepeat(answer.body, gitlabStates[s.State]) {
		return nil
	}
	return err
}

func (s Status) check(kind Kind) error {
	if err := checkCommit("the status is for", s.Commit); err != nil {
		return err
	}
	if s.Context == "" {
		return errors.New("a status needs a context")
	}
	if _, ok := gitlabStates[s.State]; !ok {
		return fmt.Errorf("a status cannot be %q", s.State)
	}
	if s.URL == "" {
		if kind == Bitbucket || kind == BitbucketDC {
			return fmt.Errorf("%s takes no status without a link; set the server's public address", kind)
		}
		return nil
	}
	if u, err := url.Parse(s.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("a status links to http or https, not to %q", s.URL)
	}
	return nil
}

// request is where a forge takes statuses, and how.
func (r *Reporter) request(repo string, s Status) (string, any, error) {
	parts := strings.Split(repo, "/")
	for i, p := range parts {
		if p == "" || p == "." || p == ".." || plain("the repository's name", p, maxName) != nil {
			return "", nil, fmt.Errorf("%q is no full name of a repository", repo)
		}
		parts[i] = url.PathEscape(p)
	}
	if len(parts) != 2 && (r.kind != GitLab || len(parts) < 2) {
		return "", nil, fmt.Errorf("%q is no full name of a repository on %s", repo, r.kind)
	}
	switch r.kind {
	case GitHub: // docs.github.com/en/rest/commits/statuses
		return "/repos/" + strings.Join(parts, "/") + "/statuses/" + s.Commit,
			likeGitHub{s.State, s.Context, oneLine(s.Description, 140), s.URL}, nil
	case Gitea, Forgejo: // /api/swagger, repoCreateStatus
		return "/repos/" + strings.Join(parts, "/") + "/statuses/" + s.Commit,
			likeGitHub{s.State, s.Context, oneLine(s.Description, 255), s.URL}, nil
	case GitLab: // docs.gitlab.com/api/commits, "Set commit pipeline status"
		link := s.URL
		if len(link) > 255 {
			link = "" // GitLab refuses the whole status for it
		}
		return "/projects/" + strings.Join(parts, "%2F") + "/statuses/" + s.Commit,
			likeGitLab{gitlabStates[s.State], oneLine(s.Context, 255), oneLine(s.Description, 255), link}, nil
	case Bitbucket: // developer.atlassian.com/cloud/bitbucket/rest, commit-statuses
		return "/repositories/" + strings.Join(parts, "/") + "/commit/" + s.Commit + "/statuses/build",
			likeBitbucket{bitbucketStates[s.State], key(s.Context, 40), oneLine(s.Context, 255), oneLine(s.Description, 255), s.URL}, nil
	default: // developer.atlassian.com/server/bitbucket/rest, builds
		return "/projects/" + parts[0] + "/repos/" + parts[1] + "/commits/" + s.Commit + "/builds",
			likeBitbucket{bitbucketStates[s.State], key(s.Context, 255), oneLine(s.Context, 255), oneLine(s.Description, 255), s.URL}, nil
	}
}

type likeGitHub struct {
	State       State  `json:"state"`
	Context     string `json:"context"`
	Description string `json:"description,omitempty"`
	URL         string `json:"target_url,omitempty"`
}

type likeGitLab struct {
	State       string `json:"state"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	URL         string `json:"target_url,omitempty"`
}

type likeBitbucket struct {
	State       string `json:"state"`
	Key         string `json:"key"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	URL         string `json:"url"`
}

// The forges' words for the states. GitLab and Bitbucket do not tell Error from Failure.
var (
	gitlabStates    = map[State]string{Pending: "pending", Success: "success", Failure: "failed", Error: "failed"}
	bitbucketStates = map[State]string{Pending: "INPROGRESS", Success: "SUCCESSFUL", Failure: "FAILED", Error: "FAILED"}
)

// gitlabRepeat says whether GitLab refused a status because the commit has it already:
// {"message":"Cannot transition status via :enqueue from :pending (Reason(s): …)"}.
func gitlabRepeat(body, state string) bool {
	var refusal struct {
		Message json.RawMessage `json:"message"`
	}
	if json.Unmarshal([]byte(body), &refusal) != nil {
		return false
	}
	message := string(refusal.Message)
	_, from, ok := strings.Cut(message, " from :")
	return ok && strings.Contains(message, "Cannot transition status") && (from == state+`"` || strings.HasPrefix(from, state+" "))
}

// authorize adds the token as the forge takes it.
func (r *Reporter) authorize(req *http.Request) {
	user, password, basic := strings.Cut(r.token, ":")
	switch {
	case basic && (r.kind == Bitbucket || r.kind == BitbucketDC):
		req.SetBasicAuth(user, password)
	case r.kind == Gitea || r.kind == Forgejo:
		req.Header.Set("Authorization", "token "+r.token)
	default:
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if r.kind == GitHub {
		req.Header.Set("Accept", "application/vnd.github+json")
		req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	}
}

// postGeneric sends the status as a signed webhook.
func (r *Reporter) postGeneric(ctx context.Context, repo string, s Status) error {
	body, err := json.Marshal(struct {
		Event      string `json:"event"`
		Repository string `json:"repository"`
		Commit     string `json:"commit"`
		likeGitHub
	}{"status", repo, s.Commit, likeGitHub{s.State, s.Context, oneLine(s.Description, 1000), s.URL}})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	out := Outgoing{URL: r.api, Secret: []byte(r.token), Client: r.client}
	return out.Send(ctx, "status-"+hex.EncodeToString(sum[:16]), time.Now(), body)
}

// key is a context as a forge's key: itself where it is short enough, else a digest of it.
func key(context string, limit int) string {
	if len(context) <= limit {
		return context
	}
	sum := sha256.Sum256([]byte(context))
	return hex.EncodeToString(sum[:20])
}

// oneLine is s without line breaks, in at most limit characters; what was cut shows an ellipsis.
func oneLine(s string, limit int) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "�")), " ")
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	runes := []rune(s)
	return string(runes[:limit-1]) + "…"
}

// retryAfter reads how long the forge asks to wait (RFC 9110, 10.2.3; GitHub's x-ratelimit-reset).
func retryAfter(h http.Header, now time.Time) time.Duration {
	wait := time.Duration(0)
	if s := h.Get("Retry-After"); s != "" {
		if seconds, err := strconv.Atoi(s); err == nil {
			wait = time.Duration(min(seconds, 1<<20)) * time.Second
		} else if at, err := http.ParseTime(s); err == nil {
			wait = at.Sub(now)
		}
	} else if h.Get("X-Ratelimit-Remaining") == "0" {
		if at, err := strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64); err == nil {
			wait = time.Unix(at, 0).Sub(now)
		}
	}
	return min(max(wait, 0), 24*time.Hour)
}
