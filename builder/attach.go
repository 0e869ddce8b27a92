package builder

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
)

// attachables are what a build may ask its caller for: registry credentials,
// the secrets and the ssh keys it names, and nothing else.
func (b *Builder) attachables(r Request) ([]session.Attachable, error) {
	creds, err := b.auth.provider()
	if err != nil {
		return nil, err
	}
	out := []session.Attachable{creds}
	secrets := map[string][]byte{}
	for _, name := range r.Build.Secrets {
		v, ok := r.Secrets[name]
		if !ok {
			return nil, &BuildError{
				Message: fmt.Sprintf("the build asks for the secret %q and the run has none of that name", name),
				Next:    "give it with --secrets FILE",
			}
		}
		if len(v) > secretsprovider.MaxSecretSize {
			return nil, &BuildError{Message: fmt.Sprintf("the secret %q has %d bytes; a build can be given %d", name, len(v), secretsprovider.MaxSecretSize)}
		}
		secrets[name] = v
	}
	if len(secrets) > 0 {
		out = append(out, secretsprovider.FromMap(secrets))
	}
	if len(r.Build.SSH) > 0 {
		ssh, err := sshAgents(r)
		if err != nil {
			return nil, err
		}
		out = append(out, ssh)
	}
	return out, nil
}

// sshAgents serves "default" from the caller's agent and "id=path" from a key
// file or an agent's socket; a relative path starts at the pipeline file.
func sshAgents(r Request) (session.Attachable, error) {
	var agents []sshprovider.AgentConfig
	for _, entry := range r.Build.SSH {
		id, path, ok := strings.Cut(entry, "=")
		if !ok {
			path = r.SSHAgent
		} else if !filepath.IsAbs(path) {
			path = filepath.Join(r.Dir, path)
		}
		if path == "" {
			return nil, &BuildError{
				Message: fmt.Sprintf("the build asks for ssh %q and there is no ssh agent", id),
				Next:    "start one (SSH_AUTH_SOCK names it), or write ssh: [\"" + id + "=path/to/key\"]",
			}
		}
		if _, err := os.Stat(path); err != nil {
			return nil, &BuildError{Message: fmt.Sprintf("ssh %q: %v", id, err), Next: "name a private key or the socket of an agent"}
		}
		agents = append(agents, sshprovider.AgentConfig{ID: id, Paths: []string{path}})
	}
	p, err := sshprovider.NewSSHAgentProvider(agents)
	if err != nil {
		return nil, &BuildError{Message: err.Error(), Next: "name a private key without a passphrase, or the socket of an agent"}
	}
	return p, nil
}

// credentials reads Docker's config file when the first build wants it.
type credentials struct {
	dir  string
	once sync.Once
	file *configfile.ConfigFile
	err  error
}

func newCredentials(dir string) *credentials { return &credentials{dir: dir} }

func (c *credentials) provider() (session.Attachable, error) {
	c.once.Do(func() {
		c.file = configfile.New("")
		if c.dir == "" {
			return
		}
		if c.file, c.err = config.Load(c.dir); c.err != nil {
			c.err = fmt.Errorf("%w; mend %s or choose another directory", c.err, filepath.Join(c.dir, config.ConfigFileName))
		}
	})
	if c.err != nil {
		return nil, c.err
	}
	return authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: authprovider.LoadAuthConfig(c.file),
	}), nil
}
