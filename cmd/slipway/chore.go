//go:build linux && !client

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"slipway/internal/registry"
	"slipway/internal/supervise"
)

// chore is what a command does in an opened root: in this process, which takes the
// root, or in the server that holds it. What is asked and answered is JSON; what is
// said meanwhile goes to out. Paths that are asked with are absolute.
type chore[Q, A any] struct {
	name string // of its route
	open openOptions
	do   func(ctx context.Context, g *globals, s *stack, q Q, out io.Writer) (A, error)
}

// choreNews is one line of what a server says of a chore. The last has an answer or an error.
type choreNews struct {
	Says   string          `json:"says,omitempty"`
	Answer json.RawMessage `json:"answer,omitempty"`
	Error  string          `json:"error,omitempty"`
	Exit   int             `json:"exit,omitempty"` // the exit code of the error
}

// run does a chore where the root is. What is said goes to out.
func (c chore[Q, A]) run(ctx context.Context, g *globals, q Q, out io.Writer) (a A, err error) {
	server, err := serverFlags{}.client(g)
	if err != nil {
		return a, err
	}
	if server != nil {
		return c.ask(ctx, server, q, out)
	}
	s, err := g.open(ctx, c.open)
	if err != nil {
		return a, err
	}
	a, err = c.do(ctx, g, s, q, out)
	return a, errors.Join(err, s.close())
}

// ask has a server do it.
func (c chore[Q, A]) ask(ctx context.Context, server *client, q Q, out io.Writer) (a A, err error) {
	resp, err := server.send(ctx, http.MethodPost, "/local/"+c.name, q, nil)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	in := json.NewDecoder(resp.Body)
	for {
		var news choreNews
		if err := in.Decode(&news); err != nil {
			if ctx.Err() != nil {
				return a, context.Cause(ctx)
			}
			return a, fmt.Errorf("the connection to %s was lost: %w", server.where(), err)
		}
		switch {
		case news.Says != "":
			fmt.Fprintln(out, news.Says)
		case news.Error != "":
			report(os.Stderr, errors.New(news.Error))
			return a, exitError(news.Exit)
		case news.Answer != nil:
			return a, json.Unmarshal(news.Answer, &a)
		}
	}
}

// served is the chore as the server does it.
func (c chore[Q, A]) served(v *serving) func(context.Context, json.RawMessage, io.Writer) any {
	return func(ctx context.Context, text json.RawMessage, out io.Writer) any {
		var q Q
		var news choreNews
		err := json.Unmarshal(text, &q)
		if err == nil {
			var a A
			if a, err = c.do(ctx, v.globals, v.stack, q, out); err == nil {
				news.Answer, err = json.Marshal(a)
			}
		}
		if err != nil {
			return choreNews{Error: err.Error(), Exit: exitCode(err)}
		}
		return news
	}
}

// chores are those that a server does for commands of its machine.
func (v *serving) chores() map[string]func(context.Context, json.RawMessage, io.Writer) any {
	return map[string]func(context.Context, json.RawMessage, io.Writer) any{
		imageList.name: imageList.served(v), imageShow.name: imageShow.served(v), imageRemove.name: imageRemove.served(v),
		imageImport.name: imageImport.served(v), imageExport.name: imageExport.served(v), imagePush.name: imagePush.served(v),
		setUp.name: setUp.served(v), prepareName: prepareSpec(v.flags.insecure).served(v),
	}
}

const prepareName = "prepare"

// prepareSpec brings what somebody delivers to this machine to where its supervisor finds it.
func prepareSpec(insecure bool) chore[supervise.Spec, struct{}] {
	return chore[supervise.Spec, struct{}]{
		name: prepareName,
		do: func(ctx context.Context, g *globals, _ *stack, spec supervise.Spec, _ io.Writer) (none struct{}, err error) {
			return none, g.withRepositories(insecure, func(all *registry.Registries) error {
				return localDelivery{g, all}.prepareAll(ctx, spec)
			})
		},
	}
}
