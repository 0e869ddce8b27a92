package git

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/plumbing/transport/ssh"
)

// auth is nil where the transport finds by itself what it needs: the password in
// the address, or ssh's agent.
func (r *Repository) auth() (transport.AuthMethod, error) {
	switch r.endpoint.Protocol {
	case "http", "https":
		if r.access.Token != "" {
			user := r.access.User
			if user == "" {
				user = "slipway" // forges look at the token alone, but not at one without a name
			}
			return &http.BasicAuth{Username: user, Password: r.access.Token}, nil
		}
	case "ssh":
		if r.access.SSHKey != "" {
			user := r.endpoint.User
			if user == "" {
				user = ssh.DefaultUsername
			}
			keys, err := ssh.NewPublicKeysFromFile(user, r.access.SSHKey, "")
			if err != nil {
				return nil, fmt.Errorf("read the key for %s: %w", r, err)
			}
			return keys, nil
		}
	}
	return nil, nil //nolint:nilnil // the transport's own way
}

// explain says what to do about an error of the other side.
func (r *Repository) explain(verb string, err error) error {
	switch {
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return fmt.Errorf("%s %s: %w; give a token that may do that with --git-token FILE, or a key with --git-key FILE", verb, r, err)
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return fmt.Errorf("%s %s: there is no such repository, or you may not see it: %w", verb, r, fs.ErrNotExist)
	}
	return fmt.Errorf("%s %s: %w", verb, r, err)
}
