package promote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/git"
)

// GitDelivery delivers by a commit alone: the digests are written where an env
// file, a Compose file, a Kubernetes manifest or a Kustomization names the
// image, and whoever follows that file (Argo CD, Flux, a cron job) does the rest.
//
//	deliver: {git: {path: deploy/prod.yaml}}                          # beside the environments, in the same commit
//	deliver: {git: {repository: https://…, branch: main, path: […]}}  # elsewhere, in a commit of its own
type GitDelivery struct {
	Home string // address of the environments' repository
	Line string // and their branch
	Git  func(address string) (*git.Repository, error)
	Now  func() time.Time
	Sign git.Person
}

// gitPlace is where a delivery's files lie.
type gitPlace struct {
	repository, branch string
	paths              []string
	same               bool // they are in the commit that promotes
}

func (g *GitDelivery) place(d Delivery) (gitPlace, error) {
	at := gitPlace{repository: g.Home, branch: g.Line}
	for _, key := range slices.Sorted(maps.Keys(d.Config)) {
		text, isText := d.Config[key].(string)
		switch {
		case key == "repository" && isText && text != "":
			at.repository = text
		case key == "branch" && isText && text != "":
			at.branch = text
		case key == "path" && isText:
			at.paths = []string{text}
		case key == "path":
			list, _ := d.Config[key].([]any)
			for _, item := range list {
				text, ok := item.(string)
				if !ok {
					return at, fmt.Errorf("git: path: %v is not a path", item)
				}
				at.paths = append(at.paths, text)
			}
		default:
			return at, fmt.Errorf("git: %s: known are repository, branch and path, each a text", key)
		}
	}
	for _, p := range at.paths {
		if p == "" || path.IsAbs(p) || path.Clean(p) != p || strings.HasPrefix(p, "..") {
			return at, fmt.Errorf("git: path: %q is not a path in the repository", p)
		}
	}
	at.same = at.repository == g.Home && at.branch == g.Line
	return at, nil
}

// Check implements Deliverer: every image must stand somewhere in the files.
func (g *GitDelivery) Check(ctx context.Context, d Delivery) error {
	at, err := g.place(d)
	if err != nil || at.same || len(at.paths) == 0 {
		return err
	}
	repo, head, err := g.read(ctx, at)
	if err != nil {
		return err
	}
	_, err = g.edit(at, d, func(name string) ([]byte, error) { return repo.File(head, name) })
	return err
}

// sameCommit gives the files that change together with the environment's own.
func (g *GitDelivery) sameCommit(d Delivery, read func(string) ([]byte, error)) (map[string][]byte, error) {
	at, err := g.place(d)
	if err != nil || !at.same {
		return nil, err
	}
	return g.edit(at, d, read)
}

func (g *GitDelivery) read(ctx context.Context, at gitPlace) (*git.Repository, string, error) {
	repo, err := g.Git(at.repository)
	if err != nil {
		return nil, "", err
	}
	head, err := repo.Head(ctx, at.branch)
	return repo, head, err
}

// edit writes the digests into the files, and fails where an image stands in none.
func (g *GitDelivery) edit(at gitPlace, d Delivery, read func(string) ([]byte, error)) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range at.paths {
		data, err := read(name)
		if err != nil {
			return nil, fmt.Errorf("git: %w; commit the file first", err)
		}
		files[name] = data
	}
	if len(files) == 0 {
		return files, nil
	}
	for _, im := range d.Images {
		if im.Digest == "" {
			continue // what named it before is not known any more; the file stays
		}
		places := 0
		for _, name := range at.paths {
			edited, n, err := setImage(name, files[name], im.Repository, im.Digest)
			if err != nil {
				return nil, err
			}
			files[name] = edited
			places += n
		}
		if places == 0 {
			return nil, fmt.Errorf("git: %s names no image of %s; write it there once, as image: %s", strings.Join(at.paths, ", "), im.Repository, im.Repository)
		}
	}
	return files, nil
}

// Deliver implements Deliverer. What lies beside the environments was in the
// commit that promoted.
func (g *GitDelivery) Deliver(ctx context.Context, d Delivery, out io.Writer) error {
	at, err := g.place(d)
	if err != nil || at.same || len(at.paths) == 0 {
		return err
	}
	for range attempts {
		repo, head, err := g.read(ctx, at)
		if err != nil {
			return err
		}
		files, err := g.edit(at, d, func(name string) ([]byte, error) { return repo.File(head, name) })
		if err != nil {
			return err
		}
		p, err := repo.Propose(git.Draft{
			Base: head, Files: files, Author: g.Sign, When: g.Now().UTC().Truncate(time.Second),
			Message: fmt.Sprintf("Deliver to %s\n\n%s: %s\n%s: %s\n%s: %s\n", d.Environment, keyPromotion, d.Promotion, keyEnvironment, d.Environment, keyConfig, d.Commit),
		})
		if err != nil || p == nil {
			return err
		}
		err = repo.Push(ctx, at.branch, p)
		var moved *git.Moved
		if errors.As(err, &moved) {
			continue
		}
		if err == nil {
			fmt.Fprintf(out, "delivered to %s of %s as commit %.12s\n", at.branch, repo, p.ID)
		}
		return err
	}
	return fmt.Errorf("%s of %s moves on faster than slipway can follow; promote again", at.branch, at.repository)
}

// Status implements Deliverer: what the files declare. Whether it runs is known
// to whoever follows them.
func (g *GitDelivery) Status(ctx context.Context, d Delivery) (Status, error) {
	at, err := g.place(d)
	if err != nil || len(at.paths) == 0 {
		return Status{}, err
	}
	repo, head, err := g.read(ctx, at)
	if err != nil {
		return Status{}, err
	}
	s := Status{Known: true}
	for _, im := range d.Images {
		declared := ImageStatus{Name: im.Name, State: "declared", Detail: "in " + strings.Join(at.paths, ", ")}
		var all []digest.Digest
		for _, name := range at.paths {
			data, err := repo.File(head, name)
			if err != nil {
				return Status{}, err
			}
			found, err := imagesIn(name, data, im.Repository)
			if err != nil {
				return Status{}, err
			}
			all = append(all, found...)
		}
		slices.Sort(all)
		if all = slices.Compact(all); len(all) == 1 {
			declared.Digest = all[0]
		} else if len(all) > 1 {
			declared.Detail = fmt.Sprintf("%d different digests %s", len(all), declared.Detail)
		}
		s.Images = append(s.Images, declared)
	}
	return s, nil
}
