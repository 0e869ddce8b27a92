//go:build linux && !client

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"slipway/internal/registry"
)

func pushCommand(g *globals) *cobra.Command {
	var q pushing
	cmd := &cobra.Command{
		Use:   "push IMAGE REPOSITORY",
		Short: "Put an image by digest into a registry, or into the local store; only missing blobs are sent",
		Args:  cobra.ExactArgs(2),
	}
	cmd.Flags().StringVar(&q.Tag, "tag", "", "also put it under this tag, which slipway never reads back")
	cmd.Flags().BoolVar(&q.Insecure, "insecure", false, "allow plain HTTP and unverified TLS")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q.Image, q.Repository = args[0], args[1]
		done, err := imagePush.run(cmd.Context(), g, q, os.Stderr)
		if err != nil {
			return err
		}
		return g.tellCopied("pushed", done.To, done.Copied)
	}
	return cmd
}

// pushing is what is to be pushed, and where.
type pushing struct {
	Image, Repository, Tag string
	Insecure               bool
}

// pushed is what came of it.
type pushed struct {
	registry.Copied
	To string
}

var imagePush = chore[pushing, pushed]{name: "images-push", open: openOptions{command: "slipway images push"}, do: pushImage}

func pushImage(ctx context.Context, g *globals, s *stack, q pushing, _ io.Writer) (done pushed, err error) {
	im, err := s.builder.Lookup(ctx, q.Image)
	if err != nil {
		return done, usageError{err}
	}
	err = g.withRepositories(q.Insecure, func(all *registry.Registries) error {
		to, err := all.Repository(q.Repository)
		if err != nil {
			return usageError{err}
		}
		bar := g.transfer("push")
		done.To = to.Name()
		done.Copied, err = registry.Push(ctx, s.builder.Blob, im.Descriptor, to, registry.CopyOptions{Progress: bar.update, File: s.builder.BlobFile})
		bar.end()
		if err == nil && q.Tag != "" {
			err = to.Tag(ctx, q.Tag, im.Descriptor.Digest)
		}
		return err
	})
	return done, err
}

func copyCommand(g *globals) *cobra.Command {
	var insecure bool
	cmd := &cobra.Command{
		Use:   "copy NAME@DIGEST REPOSITORY",
		Short: "Copy an image with its proofs from one repository to another, local or in a registry",
		Long: "Copies an image by its digest, and whatever refers to it, between any two of the local\n" +
			"store and registries. A name whose first part has a dot or a port, or is localhost, is\n" +
			"in that registry; every other one is in the local store of this root.",
		Args: cobra.ExactArgs(2),
	}
	cmd.Flags().BoolVar(&insecure, "insecure", false, "allow plain HTTP and unverified TLS")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		source, err := registry.ParseReference(args[0])
		if err != nil {
			return usageError{err}
		}
		if source.Digest == "" {
			return usagef("%s is not a digest, and may be another image a moment later; write NAME@sha256:…", args[0])
		}
		return g.withRepositories(insecure, func(all *registry.Registries) error {
			from, err := all.Repository(source.Repository)
			if err != nil {
				return usageError{err}
			}
			to, err := all.Repository(args[1])
			if err != nil {
				return usageError{err}
			}
			bar := g.transfer("copy")
			copied, err := registry.Copy(cmd.Context(), from, ocispec.Descriptor{Digest: source.Digest}, to, registry.CopyOptions{Progress: bar.update})
			bar.end()
			if err != nil {
				return err
			}
			return g.tellCopied("copied", to.Name(), copied)
		})
	}
	return cmd
}

func (g *globals) tellCopied(verb, to string, c registry.Copied) error {
	if g.json {
		return printJSON(os.Stdout, map[string]any{
			"repository": to, "digest": c.Digest, "sent_bytes": c.Sent, "saved_bytes": c.Saved,
			"blobs": c.Blobs, "skipped": c.Skipped, "referrers": c.Referrers,
		})
	}
	proofs := ""
	if c.Referrers > 0 {
		proofs = fmt.Sprintf(", with %d referrers", c.Referrers)
	}
	fmt.Printf("%s %s@%s%s: %s sent, %d of %d blobs were there (%s)\n", verb, to, c.Digest, proofs, bytesText(c.Sent), c.Skipped, c.Blobs, bytesText(c.Saved))
	return nil
}

// transfer shows how far a copy is: a line on a terminal, nothing elsewhere.
type transfer struct {
	verb  string
	shown bool
	quiet bool
	last  time.Time
}

func (g *globals) transfer(verb string) *transfer {
	return &transfer{verb: verb, quiet: g.held != nil || !isTerminal(os.Stderr)} // a server's terminal is not that of who asks
}

// update is a registry.CopyOptions.Progress.
func (t *transfer) update(sent, total int64) {
	if t.quiet || time.Since(t.last) < 100*time.Millisecond || total == 0 {
		return
	}
	t.last, t.shown = time.Now(), true
	const width = 30
	full := int(min(sent, total) * width / total)
	fmt.Fprintf(os.Stderr, "\r\x1b[K%s [%-*s] %s of %s", t.verb, width, bar[:full], bytesText(sent), bytesText(total))
}

const bar = "=============================="

// end takes the line away: what happened is printed by whoever asked for it.
func (t *transfer) end() {
	if t.shown {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
}
