//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/registry"
	"slipway/internal/volume"
)

func volumesCommand(g *globals) *cobra.Command {
	list := func(cmd *cobra.Command, args []string) error {
		if err := mustBeRoot(); err != nil {
			return err
		}
		if made, err := volume.Made(g.root); err != nil {
			return err
		} else if !made { // looking makes no store
			return g.showVolumes(volumesJSON{})
		}
		return g.withVolumes(g.listVolumes)(cmd, args)
	}
	cmd := &cobra.Command{
		Use:   "volumes",
		Short: "List, show, copy, snapshot, push, pull and remove volumes of this root",
		Long: "A volume never changes and is found by its ID, the digest of what it holds.\n" +
			"Names move between volumes, as tags do between images. Runs write in copies.",
		Args: cobra.NoArgs, RunE: list,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "ls", Short: "List volumes, and copies kept from failed tests", Args: cobra.NoArgs, RunE: list},
		&cobra.Command{
			Use: "inspect VOLUME", Short: "Show what a volume is and what it takes on disk; VOLUME is a name, an ID or the beginning of one",
			Args: cobra.ExactArgs(1), RunE: g.withVolumes(g.inspectVolume),
		},
		g.snapshotCommand(),
		&cobra.Command{
			Use: "restore NAME SNAPSHOT", Short: "Let NAME mean again what SNAPSHOT holds; runs that have copies of it keep them",
			Args: cobra.ExactArgs(2), RunE: g.withVolumes(g.restoreVolume),
		},
		&cobra.Command{
			Use: "rm VOLUME...", Short: "Remove names, volumes without a name, and copies kept from failed tests; a volume goes with its last name",
			Args: cobra.MinimumNArgs(1), RunE: g.withVolumes(removeVolumes),
		},
		&cobra.Command{
			Use:   "cp FROM TO",
			Short: "Copy files out of a volume (cp VOLUME:/path PATH) or into one (cp PATH VOLUME:/path)",
			Long: "Copy files out of a volume, or into one. A directory that is there takes the files in.\n" +
				"Into a volume means a new volume under the same name; a name that is new begins empty.",
			Args: cobra.ExactArgs(2), RunE: g.withVolumes(g.copyVolume),
		},
		g.pushVolumeCommand(), g.pullVolumeCommand())
	return cmd
}

// withVolumes opens the store of volumes alone: it may be in use by a run.
func (g *globals) withVolumes(do func(context.Context, *volume.Store, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := mustBeRoot(); err != nil {
			return err
		}
		s, err := volume.Open(cmd.Context(), volume.Options{Root: g.root, Log: g.log})
		if err != nil {
			return err
		}
		err = errors.Join(do(cmd.Context(), s, args), s.Close())
		var source *volume.SourceError
		if errors.Is(err, volume.ErrNotFound) || errors.As(err, &source) {
			return usageError{err}
		}
		return err
	}
}

// volumesJSON is `slipway volumes ls --json`.
type volumesJSON struct {
	Backend volume.Backend  `json:"backend"` // empty: there is no store yet
	Volumes []volume.Volume `json:"volumes"`
	Kept    []volume.Kept   `json:"kept"`
}

func (g *globals) listVolumes(_ context.Context, s *volume.Store, _ []string) error {
	all := volumesJSON{Backend: s.Backend()}
	var err error
	if all.Volumes, err = s.List(); err != nil {
		return err
	}
	if all.Kept, err = s.Kept(); err != nil {
		return err
	}
	return g.showVolumes(all)
}

func (g *globals) showVolumes(all volumesJSON) error {
	if g.json {
		all.Volumes, all.Kept = append([]volume.Volume{}, all.Volumes...), append([]volume.Kept{}, all.Kept...) // [], not null
		return printJSON(os.Stdout, all)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAMES\tID\tSIZE\tFILES\tUSED\tFROM")
	for _, v := range all.Volumes {
		names := strings.Join(v.Names, ",")
		if names == "" {
			names = "-"
		}
		fmt.Fprintf(t, "%s\t%.14s\t%s\t%d\t%s\t%s\n", names, v.ID, bytesText(v.Size), v.Files, v.Used.Format(time.DateTime), v.From)
	}
	for _, k := range all.Kept {
		fmt.Fprintf(t, "%s\tkept\t\t\t%s\ta failed test\n", k.Name, k.Since.Format(time.DateTime))
	}
	return t.Flush()
}

// inspectedJSON is `slipway volumes inspect --json`.
type inspectedJSON struct {
	volume.Volume
	volume.Usage
	Backend volume.Backend `json:"backend"`
}

func (g *globals) inspectVolume(ctx context.Context, s *volume.Store, args []string) error {
	v, usage, err := s.Inspect(ctx, args[0])
	if err != nil {
		return err
	}
	if g.json {
		return printJSON(os.Stdout, inspectedJSON{v, usage, s.Backend()})
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"id", v.ID},
		{"names", strings.Join(v.Names, ", ")},
		{"from", v.From},
		{"created", v.Created.Format(time.RFC3339)},
		{"used", v.Used.Format(time.RFC3339)},
		{"size", fmt.Sprintf("%s in %d files", bytesText(v.Size), v.Files)},
		{"on disk", fmt.Sprintf("%s, %s of it shared with other volumes or copies", bytesText(usage.Stored), bytesText(usage.Shared))},
		{"copied by", string(s.Backend())},
	} {
		fmt.Fprintf(t, "%s\t%s\n", row[0], row[1])
	}
	return t.Flush()
}

func (g *globals) snapshotCommand() *cobra.Command {
	var as string
	cmd := &cobra.Command{
		Use:   "snapshot SOURCE --as NAME",
		Short: "Name what SOURCE holds now: a volume, a copy kept from a failed test, or a directory (./data)",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&as, "as", "", "the name, e.g. shop/before-migration (required)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if as == "" {
			return usagef("volumes snapshot needs --as NAME")
		}
		return g.withVolumes(func(ctx context.Context, s *volume.Store, args []string) error {
			v, err := snapshotOf(ctx, s, args[0], as)
			if err != nil {
				return err
			}
			return g.tellVolume("snapshot", as, v, nil)
		})(cmd, args)
	}
	return cmd
}

func snapshotOf(ctx context.Context, s *volume.Store, source, as string) (volume.Volume, error) {
	if isPath(source) {
		return s.Seed(ctx, as, volume.Directory(source, "."))
	}
	err := s.Tag(ctx, source, as)
	if err == nil {
		return s.Find(as)
	}
	if errors.Is(err, volume.ErrNotFound) {
		v, keptErr := s.SaveKept(ctx, source, as)
		if !errors.Is(keptErr, volume.ErrNotFound) {
			return v, keptErr
		}
	}
	return volume.Volume{}, err
}

func (g *globals) restoreVolume(ctx context.Context, s *volume.Store, args []string) error {
	name, snapshot := args[0], args[1]
	was, err := s.Find(name)
	if err != nil {
		return err
	}
	if err := s.Tag(ctx, snapshot, name); err != nil {
		return err
	}
	v, err := s.Find(name)
	if err != nil {
		return err
	}
	return g.tellVolume("restore", name, v, map[string]any{"was": was.ID})
}

func removeVolumes(ctx context.Context, s *volume.Store, args []string) error {
	for _, ref := range args {
		err := s.Remove(ctx, ref)
		if errors.Is(err, volume.ErrNotFound) {
			if dropped := s.Drop(ref); !errors.Is(dropped, volume.ErrNotFound) {
				err = dropped
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tellVolume prints what a name means now.
func (g *globals) tellVolume(did, name string, v volume.Volume, more map[string]any) error {
	if g.json {
		all := map[string]any{"name": name, "volume": v}
		for key, value := range more {
			all[key] = value
		}
		return printJSON(os.Stdout, all)
	}
	if name == "" {
		name = "volume"
	}
	fmt.Printf("%s: %s is %.14s, %s in %d files\n", did, name, v.ID, bytesText(v.Size), v.Files)
	return nil
}

func (g *globals) pushVolumeCommand() *cobra.Command {
	var tag string
	var insecure bool
	cmd := &cobra.Command{
		Use:   "push VOLUME REPOSITORY",
		Short: "Push a volume as OCI artifact by digest; only what the registry does not have is sent",
		Args:  cobra.ExactArgs(2),
	}
	cmd.Flags().StringVar(&tag, "tag", "", "also put it under this tag, which slipway never reads back")
	cmd.Flags().BoolVar(&insecure, "insecure", false, "allow plain HTTP and unverified TLS")
	cmd.RunE = g.withVolumes(func(ctx context.Context, s *volume.Store, args []string) error {
		all := g.registriesWith(nil, insecure)
		defer all.Close()
		to, err := all.Repository(args[1])
		if err != nil {
			return usageError{err}
		}
		x, err := s.Export(ctx, args[0])
		if err != nil {
			return err
		}
		defer x.Close()
		pushed, err := registry.Push(ctx, x.Open, x.Descriptor, to, registry.CopyOptions{})
		if err == nil && tag != "" {
			err = to.Tag(ctx, tag, x.Descriptor.Digest)
		}
		if err != nil {
			return err
		}
		if g.json {
			return printJSON(os.Stdout, map[string]any{"repository": args[1], "digest": pushed.Digest, "sent_bytes": pushed.Sent, "blobs": pushed.Blobs, "skipped": pushed.Skipped})
		}
		fmt.Printf("pushed oci://%s@%s: %s sent, %d of %d blobs were there\n", args[1], pushed.Digest, bytesText(pushed.Sent), pushed.Skipped, pushed.Blobs)
		return nil
	})
	return cmd
}

func (g *globals) pullVolumeCommand() *cobra.Command {
	var as string
	var insecure bool
	cmd := &cobra.Command{
		Use:   "pull REPOSITORY@sha256:… [--as NAME]",
		Short: "Pull what `slipway volumes push` made; only what no volume here has is received",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&as, "as", "", "give the volume this name; without one it goes when it is not used for 30 days")
	cmd.Flags().BoolVar(&insecure, "insecure", false, "allow plain HTTP and unverified TLS")
	cmd.RunE = g.withVolumes(func(ctx context.Context, s *volume.Store, args []string) error {
		all := g.registriesWith(nil, insecure)
		defer all.Close()
		v, received, err := pullVolume(ctx, s, as, strings.TrimPrefix(args[0], "oci://"), all)
		if err != nil {
			return err
		}
		if g.json {
			return g.tellVolume("pull", as, v, map[string]any{"received_bytes": received})
		}
		fmt.Printf("pulled %.14s, %s in %d files: %s received\n", v.ID, bytesText(v.Size), v.Files, bytesText(received))
		return nil
	})
	return cmd
}
