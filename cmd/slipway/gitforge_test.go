package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// gitForge is what a server sees of a forge: git over HTTP, by git's own
// http-backend, and an API that takes the statuses of commits as Gitea's does
// (/api/swagger, repoCreateStatus). Its repositories are pushed to as directories.
type gitForge struct {
	dir, address string
	backend      string
	server       *http.Server
	deny         atomic.Bool // nobody may fetch

	mu    sync.Mutex
	said  []toldStatus
	onSay func(toldStatus) // before it is kept; nil: nothing
}

type toldStatus struct {
	Commit      string `json:"-"`
	State       string `json:"state"`
	Description string `json:"description"`
	Context     string `json:"context"`
	URL         string `json:"target_url"`
}

func newGitForge(t *testing.T, dir string) *gitForge {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	f := &gitForge{dir: dir, backend: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")}
	if f.address, err = freeAddress(); err != nil {
		t.Fatal(err)
	}
	f.up(t)
	t.Cleanup(f.down)
	return f
}

func (f *gitForge) up(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/repos/example/web/statuses/{commit}", f.status)
	backend := &cgi.Handler{Path: f.backend, Env: []string{"GIT_PROJECT_ROOT=" + f.dir, "GIT_HTTP_EXPORT_ALL=1"}, InheritEnv: []string{"PATH", "HOME"}}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if f.deny.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	})
	f.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = f.server.Serve(l) }() // until down
}

// down lets every connection to the forge be refused.
func (f *gitForge) down() { _ = f.server.Shutdown(context.Background()) }

func (f *gitForge) status(w http.ResponseWriter, r *http.Request) {
	s := toldStatus{Commit: r.PathValue("commit")}
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	do := f.onSay
	f.mu.Unlock()
	if do != nil {
		do(s)
	}
	f.mu.Lock()
	f.said = append(f.said, s)
	f.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write([]byte("{}")) // whoever asked may have been killed
}

func (f *gitForge) when(do func(toldStatus)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onSay = do
}

// states are what was said of a commit, in order.
func (f *gitForge) states(commit string) (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.said {
		if s.Commit == commit {
			all = append(all, s.State)
		}
	}
	return all
}
