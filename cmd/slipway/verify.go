package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"slipway/internal/attest"
	"slipway/internal/registry"
	"slipway/internal/registry/local"
)

func verifyCommand(g *globals) *cobra.Command {
	var keys []string
	var insecure bool
	cmd := &cobra.Command{
		Use:   "verify IMAGE@DIGEST --key FILE",
		Short: "Check what is signed about an image, with only a public key and a registry",
		Long: "Reads everything that is signed about an image where the image is: in this root\n(NAME@sha256:…) or in a registry (HOST/NAME@sha256:…). Succeeds when at least one\ntest has passed by the word of a listed key, and no failed one stands.\n\n" +
			"It does not know your pipeline: whether the tests are those you ask for, at a\ncommit of your branch, is what `slipway promote` checks.\n\n" + exitHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.verify(cmd.Context(), args[0], keys, insecure)
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "file of a public key whose word counts (repeatable)")
	cmd.Flags().BoolVar(&insecure, "insecure", false, "allow plain HTTP and unverified TLS")
	return cmd
}

func (g *globals) verify(ctx context.Context, image string, files []string, insecure bool) error {
	ref, err := registry.ParseReference(image)
	if err != nil {
		return usageError{err}
	}
	if ref.Digest == "" {
		return usagef("%s is not a digest: a tag may move between this check and its use; give NAME@sha256:…", image)
	}
	if len(files) == 0 {
		return usagef("whose word counts? give --key FILE (`slipway keys export` prints a root's own)")
	}
	var keys []attest.Key
	for _, name := range files {
		k, err := attest.ReadKey(name)
		if err != nil {
			return usageError{err}
		}
		keys = append(keys, k)
	}
	found, err := g.attached(ctx, ref, keys, insecure)
	if err != nil {
		return err
	}
	v := verdictOn(ref, found)
	if g.json {
		err = printJSON(os.Stdout, v)
	} else {
		err = v.print(painter{w: os.Stdout, color: g.color && isTerminal(os.Stdout)})
	}
	if err == nil && !v.Verified {
		return exitError(exitRefused)
	}
	return err
}

// attached reads what hangs on an image, wherever that is.
func (g *globals) attached(ctx context.Context, ref registry.Reference, keys []attest.Key, insecure bool) (all attached, err error) {
	var images *local.Store // a registry needs no root
	if ref.Host() == "" {
		if images, err = g.images(); err != nil {
			return all, err
		}
		defer images.Close()
	}
	registries := g.registriesWith(images, insecure)
	defer registries.Close()
	repo, d, err := registries.Open(ctx, registry.Reference{Repository: ref.Repository, Digest: ref.Digest}.String())
	if errors.Is(err, fs.ErrNotExist) {
		return all, usagef("%w; push the image there first, or name where it is", err)
	}
	if err != nil {
		return all, err
	}
	return attestations(ctx, repo, d, keys, time.Now())
}

// verdict is what `slipway verify --json` prints.
type verdict struct {
	Image        string        `json:"image"`
	Digest       digest.Digest `json:"digest"`
	Verified     bool          `json:"verified"`
	Reason       string        `json:"reason,omitempty"` // why not
	Attestations []claim       `json:"attestations"`
	Refused      []refusal     `json:"refused"`
}

type claim struct {
	Digest     digest.Digest `json:"digest"`
	Type       string        `json:"type"`
	What       string        `json:"what"`
	Result     string        `json:"result,omitempty"` // of a test
	Repository string        `json:"repository,omitempty"`
	Commit     string        `json:"commit,omitempty"`
	Key        string        `json:"key"`
	Signed     time.Time     `json:"signed"`
	Superseded bool          `json:"superseded,omitempty"`
}

type refusal struct {
	Digest digest.Digest `json:"digest"`
	Kind   string        `json:"kind"`
	Detail string        `json:"detail"`
}

func verdictOn(ref registry.Reference, found attached) verdict {
	v := verdict{Image: ref.Repository, Digest: ref.Digest, Attestations: []claim{}, Refused: []refusal{}}
	standing := attest.Standing(found.Good)
	passed := false
	for _, a := range found.Good {
		c := claim{Digest: a.Digest, Type: a.Predicate.Type(), Key: a.Key.ID(), Signed: a.Signed}
		switch p := a.Predicate.(type) {
		case attest.TestResult:
			c.What, c.Result, c.Repository, c.Commit = "test "+p.Task, "FAILED", p.Source.Repository, p.Source.Commit
			if p.Passed {
				c.Result = "PASSED"
			}
			passed = passed || p.Passed
			c.Superseded = !p.Passed && !slices.ContainsFunc(standing, func(f attest.Verified) bool { return f.Digest == a.Digest })
		case attest.Provenance:
			c.What, c.Repository, c.Commit = "built "+p.Task, p.Source.Repository, p.Source.Commit
		case attest.Approval:
			c.What, c.Commit = "approved for "+p.Environment, p.Commit
		case attest.BreakGlass:
			c.What = "let into " + p.Environment + " past its gates"
		}
		v.Attestations = append(v.Attestations, c)
	}
	slices.SortStableFunc(v.Attestations, func(a, b claim) int { return a.Signed.Compare(b.Signed) })
	for _, r := range found.Refused {
		v.Refused = append(v.Refused, refusal{r.Digest, r.Why.Reason.Error(), r.Why.Detail})
	}
	switch {
	case len(standing) > 0:
		names := []string{}
		for _, f := range standing {
			names = append(names, f.Predicate.(attest.TestResult).Task)
		}
		v.Reason = fmt.Sprintf("the failure of %s stands; only a later pass of the same test on this digest ends it", strings.Join(names, ", "))
	case !passed:
		v.Reason = "no listed key says that a test of it passed"
	default:
		v.Verified = true
	}
	return v
}

func (v verdict) print(p painter) error {
	fmt.Fprintf(p.w, "%s@%s\n", v.Image, v.Digest)
	t := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	for _, a := range v.Attestations {
		note := a.Result
		if a.Superseded {
			note += " (superseded)"
		}
		fmt.Fprintf(t, "  %s\t%s\tcommit %.12s\tkey %s\t%s\t%s\n", a.What, note, a.Commit, a.Key, a.Signed.Local().Format(time.DateTime), a.Digest)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range v.Refused {
		fmt.Fprintf(p.w, "  refused (%s): %s  %s\n", r.Kind, r.Detail, r.Digest)
	}
	if v.Verified {
		fmt.Fprintln(p.w, p.paint(green, "verified"))
	} else {
		fmt.Fprintln(p.w, p.paint(red, "not verified")+": "+v.Reason)
	}
	return nil
}
