//go:build linux && !client

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/mask"
	"slipway/internal/secret"
)

// vault keeps the secrets of the server's runs.
func (g *globals) vault() secret.Vault { return secret.Vault{Dir: filepath.Join(g.root, "secrets")} }

func secretsCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secrets",
		Short: "Keep the secrets that the server's runs may read, encrypted under the root",
		Args:  cobra.NoArgs,
		RunE:  needsSubcommand,
	}
	var repo string
	cmd.PersistentFlags().StringVar(&repo, "repo", "", "the repository whose runs they are for")
	list := &cobra.Command{
		Use: "ls", Short: "List the names of secrets, and the events whose runs may read them", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return g.listSecrets(repo) },
	}
	remove := &cobra.Command{
		Use: "rm NAME", Short: "Remove a secret", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return asUsage(g.vault().Remove(repo, args[0])) },
	}
	cmd.AddCommand(setSecretCommand(g, &repo), list, remove)
	return cmd
}

func setSecretCommand(g *globals, repo *string) *cobra.Command {
	var events []string
	var file string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Set a secret to what standard input or a file holds",
		Long: "Sets a secret to what standard input or a file holds, without the line end behind it.\nThe value is never an argument: others on the machine read those. " +
			"Runs of forks get no secret.",
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringSliceVar(&events, "events", []string{"push", "tag"}, "whose runs may read it: push, tag, pull_request, schedule")
	cmd.Flags().StringVar(&file, "file", "", "read the value from this file (default: standard input)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in := cmd.InOrStdin()
		if file != "" {
			f, err := os.Open(file)
			if err != nil {
				return usageError{err}
			}
			defer f.Close()
			in = f
		}
		value, err := io.ReadAll(io.LimitReader(in, 1<<20))
		if err != nil {
			return fmt.Errorf("read the value: %w", err)
		}
		value = bytes.TrimRight(value, "\r\n")
		if len(value) > 0 && len(value) < mask.MinLength {
			g.log.Warn().Msgf("the secret is shorter than %d bytes and cannot be hidden in logs; use a longer one", mask.MinLength)
		}
		return asUsage(g.vault().Set(*repo, args[0], value, events, time.Now()))
	}
	return cmd
}

// asUsage makes a problem of the command line of an error; nil stays nil.
func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

func (g *globals) listSecrets(repo string) error {
	all, err := g.vault().List(repo)
	if err != nil {
		return err
	}
	if g.json {
		return printJSON(os.Stdout, all)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, s := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, strings.Join(s.Events, ","), s.Set.Format(time.RFC3339))
	}
	return w.Flush()
}
