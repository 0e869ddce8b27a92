//go:build linux && !client

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"slipway/internal/forge"
	"slipway/internal/git"
	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/pipeline"
)

func reposCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "repos", Short: "Register the repositories that `slipway serve` listens to", RunE: needsSubcommand}
	cmd.AddCommand(addRepoCommand(g), setRepoCommand(g), listReposCommand(g), dropRepoCommand(g), testRepoCommand(g))
	return cmd
}

type repoFlags struct {
	ledgerFlags
	forge, name, token, key, public string
	newest                          bool
	deny                            []string
	forks                           string
}

// settings are what a repository is registered with and may be given anew.
func (f *repoFlags) settings(fs *pflag.FlagSet) {
	f.register(fs)
	fs.StringVar(&f.forge, "forge", "", "github, gitlab, bitbucket, bitbucket-dc, gitea, forgejo or generic (default: by the host, where it tells)")
	fs.StringVar(&f.name, "name", "", "full name in the forge, as its webhooks have it (default: the URL's path)")
	fs.StringVar(&f.token, "repo-token", "", "file of a token, or USER:TOKEN, that may clone and set statuses")
	fs.StringVar(&f.key, "repo-key", "", "file of a private key for cloning over ssh (no statuses are sent then)")
	fs.StringVar(&f.public, "public-url", "", "what forges reach the server by, as `slipway serve` has it")
	fs.BoolVar(&f.newest, "newest", false, "a newer push to a branch or pull request ends the older run of it")
	fs.StringSliceVar(&f.deny, "deny", nil, "make no run of these: push, tag, pull_request")
	fs.StringVar(&f.forks, "forks", string(pipeline.ForksHold), "pull requests from forks: hold (until somebody allows the commit), allow (run at once, without secrets and with nothing shared) or deny")
}

func addRepoCommand(g *globals) *cobra.Command {
	var f repoFlags
	cmd := &cobra.Command{
		Use:   "add URL",
		Short: "Register a repository; prints its webhook, the secret and what to click",
		Long:  "Registers a repository by its clone URL, and prints the address and the secret of its\nwebhook with what to click in the forge. The secret is shown this once.",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return g.addRepo(cmd.Context(), args[0], f) },
	}
	f.settings(cmd.Flags())
	return cmd
}

func (g *globals) addRepo(ctx context.Context, address string, f repoFlags) error {
	repo, err := f.repo(address)
	if err != nil {
		return err
	}
	public := strings.TrimRight(f.public, "/")
	if public == "" {
		return usagef("where will the forge reach the server? give --public-url https://HOST, or `public-url:` in the config file")
	}
	err = g.withLedger(ctx, f.ledgerFlags, func(l *ledger.Ledger) error {
		return errors.Join(l.AddRepo(ctx, repo), l.Note(ctx, ledger.Deed{At: time.Now(), Actor: actorHere(), Action: "repos add", Object: repo.Name}))
	})
	if err != nil {
		return usageError{err}
	}
	hook := public + "/hooks/" + repo.ID
	if g.json {
		return printJSON(os.Stdout, map[string]string{"name": repo.Name, "hook": hook, "secret": string(repo.Secret)})
	}
	fmt.Printf("%s is registered.\n\n%s\n", repo.Name, strings.TrimRight(forge.Kind(repo.Forge).Guide(hook, string(repo.Secret)), "\n"))
	return nil
}

func actorHere() string { return fmt.Sprint("user ", os.Getuid(), " of this machine") }

func (g *globals) withLedger(ctx context.Context, f ledgerFlags, do func(*ledger.Ledger) error) error {
	l, err := g.openLedger(ctx, f)
	if err != nil {
		return err
	}
	return errors.Join(do(l), l.Close())
}

// repo makes what is registered of what the user gave.
func (f repoFlags) repo(address string) (r ledger.Repo, err error) {
	kind, err := f.kind(address)
	if err != nil {
		return r, err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand's contract since Go 1.24
	r = ledger.Repo{
		ID: hex.EncodeToString(id[:]), Name: f.name, URL: address, Forge: string(kind), Created: time.Now(), Secret: []byte(forge.NewSecret()),
		Policy: ledger.Policy{Newest: f.newest, Deny: f.deny, Forks: pipeline.Forks(f.forks)},
	}
	if r.Name == "" {
		r.Name = nameIn(address)
	}
	if r.Credential, err = f.credential(); err != nil {
		return r, err
	}
	return r, asUsage(server.CheckRepo(r))
}

// credential reads the token or the key.
func (f repoFlags) credential() ([]byte, error) {
	if f.token != "" && f.key != "" {
		return nil, usagef("give --repo-token or --repo-key, not both")
	}
	if f.token == "" && f.key == "" {
		return nil, nil
	}
	data, err := os.ReadFile(cmp.Or(f.token, f.key))
	if f.token != "" {
		data = bytes.TrimSpace(data)
	}
	return data, asUsage(err)
}

func (f repoFlags) kind(address string) (forge.Kind, error) {
	if f.forge != "" {
		kind, err := forge.ParseKind(f.forge)
		if err != nil {
			return "", usageError{err}
		}
		return kind, nil
	}
	for host, kind := range map[string]forge.Kind{"github.com": forge.GitHub, "gitlab.com": forge.GitLab, "bitbucket.org": forge.Bitbucket} {
		if strings.Contains(address, "//"+host+"/") || strings.Contains(address, "@"+host+":") || strings.Contains(address, "@"+host+"/") {
			return kind, nil
		}
	}
	return "", usagef("which forge is at %s? say it with --forge: github, gitlab, bitbucket, bitbucket-dc, gitea, forgejo or generic", address)
}

// nameIn is the path of a clone URL, without .git.
func nameIn(address string) string {
	path := address
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		path = u.Path
	} else if _, after, ok := strings.Cut(address, ":"); ok {
		path = after
	}
	return strings.TrimPrefix(strings.TrimSuffix(strings.Trim(path, "/"), ".git"), "scm/")
}

func listReposCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List the registered repositories", Args: cobra.NoArgs}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return g.withLedger(cmd.Context(), f, func(l *ledger.Ledger) error {
			all, err := l.Repos(cmd.Context())
			if err != nil || g.json {
				return errors.Join(err, printJSON(os.Stdout, all))
			}
			t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tFORGE\tURL\tHOOK")
			for _, r := range all {
				fmt.Fprintf(t, "%s\t%s\t%s\t/hooks/%s\n", r.Name, r.Forge, r.URL, r.ID)
			}
			return t.Flush()
		})
	}
	return cmd
}

func dropRepoCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{Use: "rm NAME", Short: "Forget a repository and its runs", Args: cobra.ExactArgs(1)}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.withRepo(cmd.Context(), f, args[0], func(l *ledger.Ledger, r ledger.Repo) error {
			return errors.Join(l.DropRepo(cmd.Context(), r.ID), l.Note(cmd.Context(), ledger.Deed{At: time.Now(), Actor: actorHere(), Action: "repos rm", Object: r.Name}))
		})
	}
	return cmd
}

func (g *globals) withRepo(ctx context.Context, f ledgerFlags, name string, do func(*ledger.Ledger, ledger.Repo) error) error {
	return g.withLedger(ctx, f, func(l *ledger.Ledger) error {
		r, err := l.RepoNamed(ctx, name)
		if errors.Is(err, ledger.ErrNone) {
			return usagef("no repository is called %s; `slipway repos ls` lists them", name)
		}
		if err != nil {
			return err
		}
		return do(l, r)
	})
}

func testRepoCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	var from sourceFlags
	var public string
	cmd := &cobra.Command{Use: "test NAME", Short: "Try whether a repository can be fetched, and whether the server answers", Args: cobra.ExactArgs(1)}
	f.register(cmd.Flags())
	from.register(cmd.Flags())
	cmd.Flags().StringVar(&public, "public-url", "", "what forges reach the server by; empty: that is not tried")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.withRepo(cmd.Context(), f, args[0], func(_ *ledger.Ledger, r ledger.Repo) error {
			refs, err := g.remoteOf(r, from.policy(), from.knownHosts).List(cmd.Context(), git.Limits{Time: time.Minute}, "refs/heads/")
			if err != nil {
				return err
			}
			fmt.Printf("%s has %s; its default is %s\n", r.URL, plural(len(refs.At), "branch", "branches"), refs.Default)
			if public == "" {
				return nil
			}
			return answering(cmd.Context(), strings.TrimRight(public, "/")+"/readyz")
		})
	}
	return cmd
}

// answering asks a server how it is.
func answering(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return usageError{err}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w; is `slipway serve` running, and is that its address?", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s; see the server's log", address, resp.Status)
	}
	fmt.Println(address, "is ready")
	return nil
}
