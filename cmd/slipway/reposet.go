//go:build linux && !client

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/pipeline"
)

func setRepoCommand(g *globals) *cobra.Command {
	var f repoFlags
	var at serverFlags
	var address string
	var fresh bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change what is registered of a repository; what is not named stays",
		Long: "Changes what is registered of a repository, for what is delivered from then on: what is not\nnamed stays as it is. With --new-secret its webhook gets another secret, shown this once;\n" +
			"what is signed with the old one is refused at once.",
		Args: cobra.ExactArgs(1),
	}
	fs := cmd.Flags()
	f.settings(fs)
	at.register(fs)
	fs.StringVar(&address, "url", "", "another clone URL; on another host it takes that one's credential, too")
	fs.BoolVar(&fresh, "new-secret", false, "give its webhook another secret, and print that")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c := server.RepoChange{
			Name: given(fs, "name", &f.name), URL: given(fs, "url", &address), Forge: given(fs, "forge", &f.forge),
			Newest: given(fs, "newest", &f.newest), Deny: given(fs, "deny", &f.deny), Forks: given(fs, "forks", (*pipeline.Forks)(&f.forks)), NewSecret: fresh,
		}
		if fs.Changed("repo-token") || fs.Changed("repo-key") {
			data, err := f.credential()
			if err != nil {
				return err
			}
			text := string(data)
			c.Credential = &text
		}
		if c == (server.RepoChange{}) {
			return usagef("what is to be different of %s? say it with flags, as --forks deny; `slipway repos set --help` lists them", args[0])
		}
		return g.setRepo(cmd.Context(), at, f, args[0], c)
	}
	return cmd
}

// given is the value of a flag that the command line has; nil: it has none.
func given[T any](fs *pflag.FlagSet, flag string, value *T) *T {
	if !fs.Changed(flag) {
		return nil
	}
	return value
}

func (g *globals) setRepo(ctx context.Context, at serverFlags, f repoFlags, name string, c server.RepoChange) error {
	asked, err := at.client(g)
	if err != nil {
		return err
	}
	var done server.RepoChanged
	if asked != nil {
		err = asked.ask(ctx, http.MethodPost, "/api/v1/repos/"+url.PathEscape(name), c, &done)
	} else {
		err = g.withRepo(ctx, f.ledgerFlags, name, func(l *ledger.Ledger, r ledger.Repo) error {
			done, err = c.Do(ctx, l, r.ID, actorHere())
			done.Hook = strings.TrimRight(f.public, "/") + done.Hook
			return asUsage(err)
		})
	}
	if err != nil {
		return err
	}
	if g.json {
		return printJSON(os.Stdout, done)
	}
	if len(done.Changed) == 0 {
		fmt.Println(done.Name, "is registered so already: nothing is different")
	}
	for _, what := range done.Changed {
		fmt.Println(done.Name, what)
	}
	if c.Name != nil {
		fmt.Printf("secrets are kept by name: `slipway secrets ls --repo %s` says which it has now\n", done.Name)
	}
	if done.Secret != "" {
		fmt.Printf("\n%s\n", strings.TrimRight(forge.Kind(done.Forge).Guide(done.Hook, done.Secret), "\n"))
	}
	return nil
}
