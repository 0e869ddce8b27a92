package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"slipway/internal/forge"
	"slipway/internal/git"
	"slipway/internal/ledger"
	"slipway/pipeline"
)

// CheckRepo says what of a repository cannot be registered so. The error is for who asked.
func CheckRepo(r ledger.Repo) error {
	no := func(format string, args ...any) error { return &ledger.Refusal{Why: fmt.Sprintf(format, args...)} }
	if r.Name == "" {
		return no("name: a repository has one, as shop/web")
	}
	if _, err := forge.ParseKind(r.Forge); err != nil {
		return no("forge: %v", err)
	}
	policy := git.Policy{File: true, Plain: true} // the server's own policy decides when it fetches
	if err := policy.Check(r.URL); err != nil {
		return no("%v", err)
	}
	if f := r.Policy.Forks; f != "" && f != pipeline.ForksHold && f != pipeline.ForksAllow && f != pipeline.ForksDeny {
		return no("forks: no policy is called %q; use hold, allow or deny", f)
	}
	for _, kind := range r.Policy.Deny {
		if !slices.Contains([]pipeline.EventKind{pipeline.Push, pipeline.Tag, pipeline.PullRequest}, pipeline.EventKind(kind)) {
			return no("deny: no event is called %q; use push, tag or pull_request", kind)
		}
	}
	return nil
}

// RepoChange is what is to be different of a registered repository; what it does not
// say stays as it is.
type RepoChange struct {
	Name       *string         `json:"name,omitempty"`
	URL        *string         `json:"url,omitempty"`
	Forge      *string         `json:"forge,omitempty"`
	Credential *string         `json:"credential,omitempty"` // empty: none
	Newest     *bool           `json:"newest,omitempty"`
	Deny       *[]string       `json:"deny,omitempty"`
	Forks      *pipeline.Forks `json:"forks,omitempty"`
	NewSecret  bool            `json:"new_secret,omitempty"` // of its webhook; the old one stops
}

// RepoChanged says what is different now.
type RepoChanged struct {
	Name    string   `json:"name"`
	Forge   string   `json:"forge"`
	Changed []string `json:"changed"`          // in words, without secrets
	Hook    string   `json:"hook"`             // address of its webhook; of Do the path alone
	Secret  string   `json:"secret,omitempty"` // of the webhook, where that is new
}

// Do changes the repository with this name, ID or URL, and writes down that actor did.
// It holds for what is delivered and run from then on.
func (c RepoChange) Do(ctx context.Context, l *ledger.Ledger, name, actor string) (done RepoChanged, err error) {
	err = l.ChangeRepo(ctx, name, func(r *ledger.Repo) (ledger.Deed, error) {
		was := r.Name
		changed, err := c.apply(r)
		if err != nil {
			return ledger.Deed{}, err
		}
		done = RepoChanged{Name: r.Name, Forge: r.Forge, Changed: orEmpty(changed), Hook: "/hooks/" + r.ID}
		if c.NewSecret {
			done.Secret = string(r.Secret)
		}
		return ledger.Deed{At: time.Now(), Actor: actor, Action: "repos set", Object: was, Detail: cmp.Or(strings.Join(changed, "; "), "nothing is different")}, nil
	})
	return done, err
}

func (c RepoChange) apply(r *ledger.Repo) (changed []string, err error) {
	home := hostOf(r.URL)
	set(&changed, "name", &r.Name, c.Name)
	set(&changed, "url", &r.URL, c.URL)
	set(&changed, "forge", &r.Forge, c.Forge)
	set(&changed, "newest", &r.Policy.Newest, c.Newest)
	r.Policy.Forks = cmp.Or(r.Policy.Forks, pipeline.ForksHold)
	set(&changed, "forks", &r.Policy.Forks, c.Forks)
	if c.Deny != nil {
		was, is := strings.Join(r.Policy.Deny, ","), strings.Join(*c.Deny, ",")
		set(&changed, "deny", &was, &is)
		r.Policy.Deny = *c.Deny
	}
	switch {
	case c.Credential == nil && len(r.Credential) > 0 && hostOf(r.URL) != home:
		return nil, &ledger.Refusal{Why: fmt.Sprintf("the credential of %s is for %s, and is not shown to %s: give that one's, too", r.Name, home, hostOf(r.URL))}
	case c.Credential != nil && *c.Credential == "" && len(r.Credential) > 0:
		changed = append(changed, "credential: none any more")
	case c.Credential != nil && *c.Credential != string(r.Credential):
		changed = append(changed, "credential: another one")
	}
	if c.Credential != nil {
		r.Credential = []byte(*c.Credential)
	}
	if c.NewSecret {
		r.Secret = []byte(forge.NewSecret())
		changed = append(changed, "secret: a new one")
	}
	return changed, CheckRepo(*r)
}

// set gives a setting another value, and says so.
func set[T comparable](changed *[]string, what string, at, to *T) {
	if to == nil || *to == *at {
		return
	}
	*changed = append(*changed, fmt.Sprintf("%s: %s, was %s", what, inWords(*to), inWords(*at)))
	*at = *to
}

func inWords(value any) string { return cmp.Or(fmt.Sprint(value), "none") }

// hostOf is whom a credential for a clone URL is shown to: https://HOST:PORT, or the
// USER@HOST of ssh's short form.
func hostOf(address string) string {
	if u, err := url.Parse(address); err == nil && u.Scheme != "" {
		return u.Scheme + "://" + u.Host
	}
	host, _, _ := strings.Cut(address, ":")
	return host
}

// setRepo changes a repository for who asks.
func (s *Server) setRepo(w http.ResponseWriter, r *http.Request) {
	var c RepoChange
	if !s.take(w, r, &c) {
		return
	}
	name, actor := r.PathValue("name"), identityOf(r.Context()).actor
	done, err := c.Do(r.Context(), s.Ledger, name, actor)
	if err != nil {
		err = errors.Join(err, s.Ledger.Note(r.Context(), ledger.Deed{At: time.Now(), Actor: actor, Action: "repos set", Object: name, Detail: err.Error()}))
	}
	switch {
	case errors.Is(err, ledger.ErrNone):
		s.say(w, http.StatusNotFound, problem{"no repository is called " + name + "; `slipway repos ls` lists them"})
	case err != nil:
		s.fail(w, err)
	default:
		done.Hook = s.Public + done.Hook
		s.say(w, http.StatusOK, done)
	}
}
