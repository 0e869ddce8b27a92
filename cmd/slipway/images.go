//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"slipway/builder"
	"slipway/internal/registry"
)

func imagesCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List, show, import, export, push, copy and remove images",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := imageList.run(cmd.Context(), g, struct{}{}, os.Stderr)
			if err != nil {
				return err
			}
			return g.listImages(images)
		},
	}
	show := &cobra.Command{
		Use: "show IMAGE", Short: "Show layers with their sizes and commands, and which images share them", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			image, err := imageShow.run(cmd.Context(), g, args[0], os.Stderr)
			if err != nil {
				return err
			}
			return g.showImage(image)
		},
	}
	rm := &cobra.Command{
		Use: "rm IMAGE...", Short: "Remove images; their layers go with the next `slipway gc`", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := imageRemove.run(cmd.Context(), g, args, os.Stderr)
			return err
		},
	}
	ls := &cobra.Command{Use: "ls", Short: "List images", Args: cobra.NoArgs, RunE: cmd.RunE}
	cmd.AddCommand(ls, show, rm, importCommand(g), exportCommand(g), pushCommand(g), copyCommand(g))
	return cmd
}

var imageList = chore[struct{}, []builder.ImageInfo]{
	name: "images", open: openOptions{command: "slipway images"},
	do: func(ctx context.Context, _ *globals, s *stack, _ struct{}, _ io.Writer) ([]builder.ImageInfo, error) {
		return s.builder.Images(ctx)
	},
}

var imageRemove = chore[[]string, struct{}]{
	name: "images-rm", open: openOptions{command: "slipway images rm"},
	do: func(ctx context.Context, _ *globals, s *stack, names []string, _ io.Writer) (none struct{}, err error) {
		for _, name := range names {
			if err := s.builder.Remove(ctx, name); err != nil {
				return none, usageError{err}
			}
			if err := s.store.DropBase(name); err != nil {
				return none, err
			}
		}
		return none, nil
	},
}

func (g *globals) listImages(images []builder.ImageInfo) error {
	if g.json {
		return printJSON(os.Stdout, imagesJSON(images))
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tDIGEST\tLAYERS\tSIZE\tPLATFORMS\tORIGIN")
	for _, im := range images {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\n", im.Name, im.Descriptor.Digest, len(im.Layers), bytesText(im.Size), strings.Join(im.Platforms, ","), origin(im))
	}
	return t.Flush()
}

func origin(im builder.ImageInfo) string {
	if im.Imported {
		return "imported"
	}
	return "built"
}

var imageShow = chore[string, builder.ImageInfo]{
	name: "images-show", open: openOptions{command: "slipway images show"},
	do: func(ctx context.Context, _ *globals, s *stack, name string, _ io.Writer) (builder.ImageInfo, error) {
		image, err := s.builder.Lookup(ctx, name)
		if err != nil {
			return builder.ImageInfo{}, usageError{err}
		}
		images, err := s.builder.Images(ctx)
		if err != nil {
			return builder.ImageInfo{}, err
		}
		i := slices.IndexFunc(images, func(im builder.ImageInfo) bool { return im.Descriptor.Digest == image.Descriptor.Digest })
		if i < 0 {
			return builder.ImageInfo{}, fmt.Errorf("image %s is in the store under no name; `slipway images` lists the named ones", name)
		}
		return images[i], nil
	},
}

func (g *globals) showImage(im builder.ImageInfo) error {
	if g.json {
		return printJSON(os.Stdout, imagesJSON([]builder.ImageInfo{im})[0])
	}
	fmt.Printf("%s@%s\n%s, %s in %d layers, %s\n", im.Name, im.Descriptor.Digest, origin(im), bytesText(im.Size), len(im.Layers), strings.Join(im.Platforms, ", "))
	for i, l := range im.Layers {
		fmt.Printf("\n%2d  %s  %s\n    %s\n", i+1, l.Digest, bytesText(l.Size), l.Command)
		if len(l.SharedWith) > 0 {
			fmt.Printf("    shared with %s\n", strings.Join(l.SharedWith, ", "))
		}
	}
	return nil
}

func importCommand(g *globals) *cobra.Command {
	var q importing
	cmd := &cobra.Command{
		Use:   "import FILE --name REF",
		Short: "Take a rootfs tar, an OCI layout or a docker-save archive, so that `FROM REF` works without a network",
		Args:  cobra.ExactArgs(1),
	}
	fs := cmd.Flags()
	fs.StringVar(&q.Name, "name", "", "the reference that Dockerfiles name, e.g. debian:12 (required)")
	fs.StringVar(&q.Image, "image", "", "which image of a file that holds several: reference, tag or digest")
	fs.StringVar(&q.Platform, "platform", "", "pick or set the platform, e.g. linux/arm64")
	fs.StringArrayVar(&q.Config.Env, "env", nil, "for a rootfs tar: NAME=VALUE (repeatable)")
	fs.StringArrayVar(&q.Config.Cmd, "cmd", nil, "for a rootfs tar: an argument of the default command (repeatable)")
	fs.StringArrayVar(&q.Config.Entrypoint, "entrypoint", nil, "for a rootfs tar: an argument of the entrypoint (repeatable)")
	fs.StringVar(&q.Config.WorkingDir, "workdir", "", "for a rootfs tar: the working directory")
	fs.StringVar(&q.Config.User, "user", "", "for a rootfs tar: the user")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if q.Name == "" {
			return usagef("images import needs --name REF: the name that Dockerfiles use after FROM")
		}
		var err error
		if q.File, err = filepath.Abs(args[0]); err != nil {
			return usageError{err}
		}
		done, err := imageImport.run(cmd.Context(), g, q, os.Stderr)
		if err != nil {
			return err
		}
		return g.tellImported(done)
	}
	return cmd
}

// importing is what is to be imported, and how.
type importing struct {
	File     string // absolute
	Name     string
	Image    string
	Platform string
	Config   registry.Config
}

// imported is what came of it.
type imported struct {
	Name   string        `json:"name"`
	Kind   registry.Kind `json:"kind"`
	Digest digest.Digest `json:"digest"`
}

func (g *globals) tellImported(i imported) error {
	if g.json {
		return printJSON(os.Stdout, i)
	}
	fmt.Printf("imported %s as %s@%s\n", i.Kind, i.Name, i.Digest)
	return nil
}

var imageImport = chore[importing, imported]{name: "images-import", open: openOptions{command: "slipway images import"}, do: importImage}

func importImage(ctx context.Context, g *globals, s *stack, q importing, _ io.Writer) (done imported, err error) {
	want, err := parsePlatform(q.Platform)
	if err != nil {
		return done, err
	}
	if done.Name, err = normalName(q.Name); err != nil {
		return done, usageError{err}
	}
	temp := tempDir(g.root)
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return done, fmt.Errorf("make a directory for the import: %w", err)
	}
	if q.Image == "" {
		q.Image = q.Name
	}
	archive, err := registry.OpenFile(ctx, q.File, registry.OpenOptions{TempDir: temp, Image: q.Image, Platform: want, Config: q.Config})
	if err != nil {
		return done, usageError{err}
	}
	got, err := s.builder.Ingest(ctx, done.Name, archive.Target, archive.Blobs)
	if err = errors.Join(err, archive.Close()); err != nil {
		return done, err
	}
	done.Kind, done.Digest = archive.Kind, got.Descriptor.Digest
	return done, s.recordBase(ctx, done.Name, got)
}

func exportCommand(g *globals) *cobra.Command {
	var q exporting
	cmd := &cobra.Command{
		Use:   "export IMAGE --output PATH",
		Short: "Write an image as OCI layout (a directory, or a tar) or as docker archive",
		Args:  cobra.ExactArgs(1),
	}
	fs := cmd.Flags()
	fs.StringVarP(&q.Output, "output", "o", "", "where to (required)")
	fs.StringVar(&q.Format, "format", "", "oci, oci-tar or docker (default: oci; oci-tar when PATH ends in .tar)")
	fs.StringVar(&q.Name, "name", "", "reference to write beside the digest (docker load shows it)")
	fs.StringVar(&q.Platform, "platform", "", "which platform a docker archive shows (default: this machine's)")
	fs.BoolVar(&q.Overwrite, "overwrite", false, "replace what is at PATH")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if q.Output == "" {
			return usagef("images export needs --output PATH")
		}
		told := q.Output
		if q.Output, err = filepath.Abs(told); err != nil {
			return usageError{err}
		}
		q.Image = args[0]
		exported, err := imageExport.run(cmd.Context(), g, q, os.Stderr)
		if err != nil {
			return err
		}
		if g.json {
			return printJSON(os.Stdout, map[string]string{"path": told, "digest": exported.String()})
		}
		fmt.Printf("exported %s to %s\n", exported, told)
		return nil
	}
	return cmd
}

// exporting is what is to be exported, and how.
type exporting struct {
	Image, Output, Format, Name, Platform string
	Overwrite                             bool
}

var imageExport = chore[exporting, digest.Digest]{name: "images-export", open: openOptions{command: "slipway images export"}, do: exportImage}

func exportImage(ctx context.Context, _ *globals, s *stack, q exporting, _ io.Writer) (digest.Digest, error) {
	if q.Format == "" {
		q.Format = map[bool]string{true: "oci-tar", false: "oci"}[strings.HasSuffix(q.Output, ".tar")]
	}
	want, err := parsePlatform(q.Platform)
	if err != nil {
		return "", err
	}
	im, err := s.builder.Lookup(ctx, q.Image)
	if err != nil {
		return "", usageError{err}
	}
	opt := registry.ExportOptions{Name: q.Name, Overwrite: q.Overwrite, Tar: q.Format == "oci-tar", Platform: want}
	switch q.Format {
	case "oci", "oci-tar":
		err = registry.ExportLayout(ctx, s.builder.Blob, im.Descriptor, q.Output, opt)
	case "docker":
		if opt.Name == "" {
			opt.Name = im.Repository
		}
		err = registry.ExportArchive(ctx, s.builder.Blob, im.Descriptor, q.Output, opt)
	default:
		err = usagef("--format %s: use oci, oci-tar or docker", q.Format)
	}
	return im.Descriptor.Digest, err
}

func parsePlatform(s string) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return nil, usagef("--platform %s: %w; write it as linux/amd64", s, err)
	}
	return &p, nil
}

// imageJSON is one image of `slipway images --json`.
type imageJSON struct {
	Name      string      `json:"name"`
	Digest    string      `json:"digest"`
	Imported  bool        `json:"imported"`
	Platforms []string    `json:"platforms"`
	Size      int64       `json:"size_bytes"`
	Created   *time.Time  `json:"created,omitempty"`
	Layers    []layerJSON `json:"layers"`
}

type layerJSON struct {
	Digest     string   `json:"digest"`
	DiffID     string   `json:"diff_id"`
	Size       int64    `json:"size_bytes"`
	Command    string   `json:"command,omitempty"`
	SharedWith []string `json:"shared_with,omitempty"`
}

func imagesJSON(images []builder.ImageInfo) []imageJSON {
	out := make([]imageJSON, len(images))
	for i, im := range images {
		out[i] = imageJSON{Name: im.Name, Digest: im.Descriptor.Digest.String(), Imported: im.Imported, Platforms: im.Platforms, Size: im.Size, Layers: make([]layerJSON, len(im.Layers))}
		if !im.Created.IsZero() {
			out[i].Created = &im.Created
		}
		for j, l := range im.Layers {
			out[i].Layers[j] = layerJSON{Digest: l.Digest.String(), DiffID: l.DiffID.String(), Size: l.Size, Command: l.Command, SharedWith: l.SharedWith}
		}
	}
	return out
}

// bytesText gives a size with a unit of 1000s, as df -H does.
func bytesText(n int64) string {
	const units = "kMGTP"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1000, 0
	for ; f >= 999.95 && i < len(units)-1; i++ {
		f /= 1000
	}
	return fmt.Sprintf("%.1f %cB", f, units[i])
}
