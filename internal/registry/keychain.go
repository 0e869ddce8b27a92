package registry

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// keychain finds credentials in one Docker config file, with its credential
// helpers. go-containerregistry's own looks into the environment and the home
// directory, which is for cmd to do.
type keychain struct {
	file *configfile.ConfigFile // nil: no credentials

	mu   sync.Mutex // helpers are programs; one at a time
	used map[string]string
}

func loadKeychain(dir string) (*keychain, error) {
	if dir == "" {
		return &keychain{}, nil
	}
	f, err := config.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("credentials in %s: %w; repair the file or run `docker login` again", filepath.Join(dir, config.ConfigFileName), err)
	}
	return &keychain{file: f, used: map[string]string{}}, nil
}

// Resolve finds the credentials of a repository or else of its registry.
func (k *keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if k.file == nil {
		return authn.Anonymous, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range []string{r.String(), r.RegistryStr()} {
		if key == name.DefaultRegistry {
			key = authn.DefaultAuthKey // Docker Hub's, for historical reasons
		}
		a, err := k.file.GetAuthConfig(key)
		if err != nil {
			return nil, k.explainHelper(err, key, r.RegistryStr())
		}
		a.ServerAddress = "" // filled in even where nothing was found
		if a == (types.AuthConfig{}) {
			continue
		}
		k.used[r.RegistryStr()] = a.Username
		return authn.FromConfig(authn.AuthConfig{
			Username: a.Username, Password: a.Password, Auth: a.Auth,
			IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
		}), nil
	}
	return authn.Anonymous, nil
}

// explainHelper finds out whether the helper for key is missing: its library
// says so in text only.
func (k *keychain) explainHelper(err error, key, host string) error {
	helper := k.file.CredentialHelpers[key]
	if helper == "" {
		helper = k.file.CredentialsStore
	}
	program := "docker-credential-" + helper
	if _, missing := exec.LookPath(program); missing != nil {
		return fmt.Errorf("%s, which %s names, is not installed; install it, or remove credsStore and credHelpers from the file and run `docker login %s` again",
			program, k.file.Filename, host)
	}
	return fmt.Errorf("%s, which %s names: %w; run it by hand to see why", program, k.file.Filename, err)
}

// credentials says in words what was tried for host.
func (k *keychain) credentials(host string) string {
	if k.file == nil {
		return "no credentials were given"
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	user, ok := k.used[host]
	switch {
	case !ok:
		return "no credentials for it in " + k.file.Filename
	case user == "":
		return "the token in " + k.file.Filename + " was refused"
	}
	return fmt.Sprintf("the credentials of %q in %s were refused", user, k.file.Filename)
}

// account says in words as whom we spoke to host.
func (k *keychain) account(host string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if user := k.used[host]; user != "" {
		return fmt.Sprintf("logged in as %q", user)
	}
	return "not logged in"
}
