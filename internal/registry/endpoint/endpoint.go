// Package endpoint serves a local store as a registry: the OCI distribution
// spec 1.1 over HTTP, for slipway, docker, podman and every other client.
//
// It holds no state of its own: several processes may serve one store, and a
// killed one loses nothing but the connections. It reads and writes blobs as
// they pass, in constant memory, and gives up on clients that stall.
//
// It refuses to fetch anything from anywhere: what a client names in a request
// is looked for in the store alone. Deleting is refused unless it is switched on.
package endpoint

import (
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"slipway/internal/registry/local"
)

// Options says what is served, and to whom.
type Options struct {
	Store    *local.Store
	ReadOnly bool           // refuse whatever changes the store
	Delete   bool           // let clients delete manifests, tags and blobs
	Accounts *Accounts      // who may do what; nil: everyone may
	Log      zerolog.Logger // a line for each request (debug), and for each that failed here (error)

	stall time.Duration // how long a client may take for a megabyte; zero means two minutes
}

// New gives the handler of /v2/.
func New(o Options) http.Handler {
	if o.stall == 0 {
		o.stall = 2 * time.Minute
	}
	return &endpoint{o}
}

type endpoint struct{ Options }

// call is one request, taken apart.
type call struct {
	*endpoint
	w    http.ResponseWriter
	r    *http.Request
	repo *local.Repository
	ref  string // tag, digest or upload
}

// do answers a call, or says why not.
type do func(*call) error

// ServeHTTP implements http.Handler.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	status := &statusWriter{ResponseWriter: w, stall: e.stall, control: http.NewResponseController(w)}
	c := &call{endpoint: e, w: status, r: r}
	err := c.serve()
	if err != nil {
		c.fail(err)
	}
	status.extend()
	level := zerolog.DebugLevel
	if status.status >= http.StatusInternalServerError {
		level = zerolog.ErrorLevel
	}
	e.Log.WithLevel(level).Err(err).Str("method", r.Method).Str("path", r.URL.Path).Int("status", status.status).
		Dur("took_ms", time.Since(began)).Str("from", r.RemoteAddr).Msg("registry")
}

func (c *call) serve() error {
	c.w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0") // clients before OCI look for it
	c.w.Header().Set("X-Content-Type-Options", "nosniff")
	account, err := c.authenticate()
	if err != nil {
		return err
	}
	f, needs, err := c.route()
	if err != nil {
		return err
	}
	if !account.may(needs) {
		return denied("account %q may not %s here", account.Name, needs)
	}
	switch {
	case needs != Read && c.ReadOnly:
		return unsupported("this registry is read-only")
	case needs == Delete && !c.Options.Delete:
		return unsupported("this registry does not let clients delete; whoever runs it can, with --allow-delete")
	}
	return f(c)
}

// route finds what a request asks for, and which right it needs. A name may
// have parts such as "blobs" of its own, so paths are read from their end.
func (c *call) route() (do, Right, error) {
	rest, ok := strings.CutPrefix(c.r.URL.Path, "/v2/")
	if !ok {
		return nil, "", notFound("UNSUPPORTED", "nothing but /v2/ is here")
	}
	switch rest {
	case "":
		return c.only(methods{http.MethodGet: {ping, Read}})
	case "_catalog":
		return c.only(methods{http.MethodGet: {catalog, Read}})
	}
	name, m := c.resource(strings.Split(rest, "/"))
	if m == nil {
		return nil, "", notFound("UNSUPPORTED", "the distribution spec has no such path")
	}
	repo, err := c.Store.Repository(name)
	if err != nil {
		return nil, "", err
	}
	c.repo = repo
	return c.only(m)
}

// methods are what can be done with a resource.
type methods map[string]struct {
	do    do
	needs Right
}

func (c *call) only(m methods) (do, Right, error) {
	method := c.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	found, ok := m[method]
	if !ok {
		return nil, "", unsupported("%s is not a method of this path", c.r.Method)
	}
	return found.do, found.needs, nil
}

// resource reads a path from its end, and keeps what it names in ref.
func (c *call) resource(parts []string) (name string, m methods) {
	n := len(parts)
	at := func(i int) string {
		if i > n {
			return ""
		}
		return parts[n-i]
	}
	join := func(tail int) string { return strings.Join(parts[:max(0, n-tail)], "/") }
	switch {
	case at(3) == "blobs" && at(2) == "uploads" && at(1) == "":
		return join(3), methods{http.MethodPost: {beginUpload, Write}}
	case at(2) == "blobs" && at(1) == "uploads":
		return join(2), methods{http.MethodPost: {beginUpload, Write}}
	case at(3) == "blobs" && at(2) == "uploads":
		c.ref = at(1)
		return join(3), methods{
			http.MethodGet: {uploadStatus, Write}, http.MethodPatch: {appendUpload, Write},
			http.MethodPut: {finishUpload, Write}, http.MethodDelete: {cancelUpload, Write},
		}
	case at(2) == "blobs":
		c.ref = at(1)
		return join(2), methods{http.MethodGet: {getBlob, Read}, http.MethodDelete: {deleteBlob, Delete}}
	case at(2) == "manifests":
		c.ref = at(1)
		return join(2), methods{http.MethodGet: {getManifest, Read}, http.MethodPut: {putManifest, Write}, http.MethodDelete: {deleteManifest, Delete}}
	case at(2) == "referrers":
		c.ref = at(1)
		return join(2), methods{http.MethodGet: {listReferrers, Read}}
	case at(2) == "tags" && at(1) == "list":
		return join(2), methods{http.MethodGet: {listTags, Read}}
	}
	return "", nil
}

func ping(c *call) error {
	return c.json(http.StatusOK, "application/json", struct{}{})
}
