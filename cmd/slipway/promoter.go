package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"slipway/internal/git"
	"slipway/internal/registry"
	"slipway/promote"
)

// environmentFlags say where the environments are, how their repository is
// reached, and who asks.
type environmentFlags struct {
	repository, branch string
	token, key, actor  string
	insecure           bool
}

func (f *environmentFlags) register(fs *pflag.FlagSet) {
	f.registerRepository(fs)
	fs.StringVar(&f.actor, "actor", "", "who asks, as NAME <EMAIL> (default: git's user, else the system's)")
	fs.BoolVar(&f.insecure, "insecure", false, "allow plain HTTP and unverified TLS to registries")
}

// registerRepository registers those alone that lead to the environments.
func (f *environmentFlags) registerRepository(fs *pflag.FlagSet) {
	fs.StringVar(&f.repository, "environments", "", "git repository of the environments: a directory, https:// or ssh (default: ROOT/environments.git)")
	fs.StringVar(&f.branch, "environments-branch", "main", "its protected branch")
	fs.StringVar(&f.token, "git-token", "", "file of a token for git repositories over https")
	fs.StringVar(&f.key, "git-key", "", "file of a private key for git repositories over ssh (default: those of the agent)")
}

// home is the address of the environments' repository.
func (f environmentFlags) home(g *globals) string {
	if f.repository == "" {
		return filepath.Join(g.root, "environments.git")
	}
	return f.repository
}

func (f environmentFlags) access(g *globals) (git.Access, error) {
	a := git.Access{Copies: filepath.Join(g.root, "git"), SSHKey: f.key}
	if f.token != "" {
		token, err := os.ReadFile(f.token)
		if err != nil {
			return a, usagef("--git-token: %w", err)
		}
		a.Token = strings.TrimSpace(string(token))
	}
	return a, nil
}

// promotionsDir holds the journals of promotions and the audit log.
func promotionsDir(root string) string { return filepath.Join(root, "promotions") }

// person is who asks.
func (f environmentFlags) person() git.Person {
	if f.actor != "" {
		name, email, _ := strings.Cut(f.actor, "<")
		return git.Person{Name: strings.TrimSpace(name), Email: strings.TrimSuffix(strings.TrimSpace(email), ">")}
	}
	who := git.Identity()
	if who.Name != "" || who.Email != "" {
		return who
	}
	if u, err := user.Current(); err == nil {
		host, _ := os.Hostname()
		return git.Person{Name: u.Username, Email: u.Username + "@" + host}
	}
	return git.Person{Name: "unknown"}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// refusedPromotion says whether an error is a no: of a gate, or of somebody who was first.
func refusedPromotion(err error) bool {
	var lost *promote.Lost
	var shut *promote.Shut
	return errors.As(err, &lost) || errors.As(err, &shut)
}

// wrongPromotion says whether an error is the user's to correct.
func wrongPromotion(err error) bool {
	var none *promote.NoEnvironment
	var wrong *promote.Mistake
	return errors.As(err, &none) || errors.As(err, &wrong)
}

// wanted reads IMAGE arguments: NAME@sha256:…, REPOSITORY@sha256:…, or with
// --from a NAME alone.
func wanted(args []string, from string) ([]promote.Wanted, error) {
	var all []promote.Wanted
	for _, arg := range args {
		ref, err := registry.ParseReference(arg)
		if err != nil {
			return nil, usageError{err}
		}
		if ref.Tag != "" && ref.Digest == "" {
			fmt.Fprintf(os.Stderr, "slipway: %s is a tag, not a digest: it may name something else than what was tested; write %s@sha256:…\n", arg, ref.Repository)
			return nil, exitError(exitRefused)
		}
		if ref.Digest == "" && from == "" {
			return nil, usagef("which %s? write %s@sha256:…, or name an environment that runs it with --from", arg, arg)
		}
		w := promote.Wanted{Name: filepath.Base(ref.Repository), Digest: ref.Digest}
		if strings.Contains(ref.Repository, "/") {
			w.Repository = ref.Repository
		}
		all = append(all, w)
	}
	return all, nil
}
