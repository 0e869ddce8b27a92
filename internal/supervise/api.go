package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The supervisor is spoken to in HTTP on a socket that root alone can open:
//
//	GET    /projects                     all ProjectStatus
//	PUT    /projects/NAME                a Spec; answered by lines of JSON as it goes, the last says how it ended
//	DELETE /projects/NAME?volumes=1      stop and forget
//	POST   /projects/NAME/restart?c=…    start anew
//	GET    /projects/NAME/logs/C?follow=1
//	POST   /stop                         end the supervisor and all containers

// news is one line of an answer that takes time.
type news struct {
	Step  string `json:"step,omitempty"`
	Done  bool   `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
}

const maxSpec = 16 << 20 // bytes

// Serve answers on the state directory's socket until ctx ends or somebody asks
// the supervisor to stop.
func (s *Supervisor) Serve(ctx context.Context) error {
	path := s.state.socket()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen for commands: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server := &http.Server{Handler: s.handler(stop), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if server.Shutdown(late) != nil {
			_ = server.Close() // a follower of a log, say
		}
		err = <-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Supervisor) handler(stop func()) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /projects", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Status()) })
	mux.HandleFunc("PUT /projects/{name}", func(w http.ResponseWriter, r *http.Request) {
		var spec Spec
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSpec)).Decode(&spec); err != nil || spec.Project != r.PathValue("name") {
			refuse(w, http.StatusBadRequest, fmt.Errorf("this is no spec of %s: %w", r.PathValue("name"), err))
			return
		}
		tell(w, func(step func(string)) error { return s.Apply(r.Context(), spec, step) })
	})
	mux.HandleFunc("DELETE /projects/{name}", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Remove(r.PathValue("name"), r.URL.Query().Get("volumes") != ""); err != nil {
			refuse(w, status(err), err)
		}
	})
	mux.HandleFunc("POST /projects/{name}/restart", func(w http.ResponseWriter, r *http.Request) {
		tell(w, func(step func(string)) error {
			return s.Restart(r.Context(), r.PathValue("name"), r.URL.Query()["c"], step)
		})
	})
	mux.HandleFunc("GET /projects/{name}/logs/{container}", s.logs)
	mux.HandleFunc("POST /stop", func(http.ResponseWriter, *http.Request) { stop() })
	return mux
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the caller is gone
}

func refuse(w http.ResponseWriter, code int, err error) {
	w.WriteHeader(code)
	answer(w, news{Error: err.Error()})
}

func status(err error) int {
	if errors.Is(err, fs.ErrNotExist) {
		return http.StatusNotFound
	}
	return http.StatusInternalServerError
}

// tell answers with a line for each step of work, and one for its end.
func tell(w http.ResponseWriter, work func(step func(string)) error) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := func() {}
	if f, ok := w.(http.Flusher); ok {
		flush = f.Flush
	}
	line := func(n news) {
		_ = json.NewEncoder(w).Encode(n) // the caller is gone; its context ends the work
		flush()
	}
	if err := work(func(step string) { line(news{Step: step}) }); err != nil {
		line(news{Error: err.Error()})
		return
	}
	line(news{Done: true})
}

// shownLog is how much of the end of a log is sent first.
const shownLog = 1 << 20

// logs sends the end of a container's log, and follows it where asked to.
func (s *Supervisor) logs(w http.ResponseWriter, r *http.Request) {
	project, container := r.PathValue("name"), r.PathValue("container")
	if !projectName.MatchString(project) || !projectName.MatchString(container) {
		refuse(w, http.StatusBadRequest, errors.New("no such name"))
		return
	}
	path := s.state.logs(project, container)
	text, offset, err := readLog(path, shownLog)
	if err != nil {
		refuse(w, status(err), err)
		return
	}
	if n, err := strconv.Atoi(r.URL.Query().Get("tail")); err == nil && n >= 0 {
		lines := strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
		text = []byte(strings.Join(lines[max(0, len(lines)-n):], "") + "\n")
	}
	_, _ = w.Write(text)
	if r.URL.Query().Get("follow") == "" {
		return
	}
	f, _ := w.(http.Flusher)
	for r.Context().Err() == nil {
		if f != nil {
			f.Flush()
		}
		if !pause(r.Context(), 200*time.Millisecond) {
			return
		}
		offset = follow(w, path, offset)
	}
}

// follow sends what was written to a file since offset. One that has become
// shorter is a new one.
func follow(w io.Writer, path string, offset int64) int64 {
	f, err := os.Open(path)
	if err != nil {
		return offset
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() < offset {
		offset = 0
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return offset
	}
	n, _ := io.Copy(w, f)
	return offset + n
}

// Client speaks to the supervisor of a root, from any process.
type Client struct {
	http   *http.Client
	socket string
}

// ErrNotRunning is a root whose supervisor does not run.
var ErrNotRunning = errors.New("the supervisor of this root does not run")

// Dial gives a client for the supervisor with that state directory. Nothing is
// connected yet.
func Dial(dir string) *Client {
	path := state(dir).socket()
	return &Client{socket: path, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
			if err != nil {
				return nil, fmt.Errorf("%w (%w)", ErrNotRunning, err)
			}
			return conn, nil
		},
	}}}
}

// LayersDir is where layers.Keep must put what a spec's containers run on.
func LayersDir(dir string) string { return state(dir).layers() }

// VolumeDir is where a volume of a project is, for whoever fills it before its
// first container starts.
func VolumeDir(dir, project, name string) string { return state(dir).volume(project, name) }

// Saved reads what a project is to run, whether the supervisor runs or not.
func Saved(dir, project string) (Spec, error) { return state(dir).read(project) }

func (c *Client) call(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the supervisor: %w", err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	var n news
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&n) != nil || n.Error == "" {
		n.Error = resp.Status
	}
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s: %w", n.Error, fs.ErrNotExist)
	}
	return nil, errors.New(n.Error)
}

// Status gives every project.
func (c *Client) Status(ctx context.Context) ([]ProjectStatus, error) {
	resp, err := c.call(ctx, http.MethodGet, "/projects", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var all []ProjectStatus
	return all, json.NewDecoder(resp.Body).Decode(&all)
}

// Apply is Supervisor.Apply.
func (c *Client) Apply(ctx context.Context, spec Spec, tell func(string)) error {
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return c.told(ctx, http.MethodPut, "/projects/"+spec.Project, strings.NewReader(string(data)), tell)
}

// Restart is Supervisor.Restart.
func (c *Client) Restart(ctx context.Context, project string, containers []string, tell func(string)) error {
	query := ""
	for _, name := range containers {
		query += "&c=" + name
	}
	return c.told(ctx, http.MethodPost, "/projects/"+project+"/restart?"+strings.TrimPrefix(query, "&"), nil, tell)
}

func (c *Client) told(ctx context.Context, method, path string, body io.Reader, tell func(string)) error {
	resp, err := c.call(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var n news
		if err := lines.Decode(&n); err != nil {
			return fmt.Errorf("the supervisor ended in the middle of it (%w); see what runs with `slipway ps`, and try again", err)
		}
		switch {
		case n.Done:
			return nil
		case n.Error != "":
			return errors.New(n.Error)
		}
		tell(n.Step)
	}
}

// Remove is Supervisor.Remove.
func (c *Client) Remove(ctx context.Context, project string, volumes bool) error {
	path := "/projects/" + project
	if volumes {
		path += "?volumes=1"
	}
	resp, err := c.call(ctx, http.MethodDelete, path, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Logs copies a container's log to out: the last lines of it (all that is kept
// where tail is negative), and what follows until ctx ends where follow is set.
func (c *Client) Logs(ctx context.Context, project, container string, tail int, follow bool, out io.Writer) error {
	path := fmt.Sprintf("/projects/%s/logs/%s?tail=%d", project, container, tail)
	if follow {
		path += "&follow=1"
	}
	resp, err := c.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(out, resp.Body)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // whoever followed has seen enough
	}
	return err
}

// Process is a file of the supervisor's process, pidfd_open(2): it can be read once that
// has ended. ErrNotRunning: there is none.
func (c *Client) Process() (*os.File, error) {
	conn, err := net.Dial("unix", c.socket)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNotRunning, err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn() //nolint:forcetypeassert // of a unix socket
	if err != nil {
		return nil, err
	}
	pidfd := -1
	cerr := raw.Control(func(fd uintptr) {
		var peer *unix.Ucred
		if peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && peer.Pid == 0 {
			err = errors.New("it is in another PID namespace; ask there")
		} else if err == nil {
			pidfd, err = unix.PidfdOpen(int(peer.Pid), 0)
		}
	})
	if err := errors.Join(err, cerr); err != nil {
		return nil, fmt.Errorf("find the supervisor's process: %w", err)
	}
	return os.NewFile(uintptr(pidfd), "supervisor"), nil
}

// Stop ends the supervisor and all containers. What was to run is started by the next one.
func (c *Client) Stop(ctx context.Context) error {
	resp, err := c.call(ctx, http.MethodPost, "/stop", nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
