package progress

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// step is what the display remembers of one.
type step struct {
	*client.Vertex           // as last told
	assumed        bool      // its start is that of its first output
	unannounced    bool      // known only by its output
	latest         time.Time // of its output
	thinner                  // for a live display
	lines                    // for one that writes lines
}

// translate puts p into BuildKit's words and remembers the state of its steps.
// The caller holds d.mu.
func (d *Display) translate(p pipeline.Progress) *client.SolveStatus {
	s := &client.SolveStatus{}
	for i := range p.Steps {
		d.announce(p.Task, &p.Steps[i], s)
	}
	for _, t := range p.Transfers {
		st := d.begun(p.Task, t.Step, t.Started, s)
		s.Statuses = append(s.Statuses, transfer(st.Digest, t))
	}
	for _, l := range p.Logs {
		st := d.begun(p.Task, l.Step, &l.Time, s)
		st.latest = l.Time
		var data []byte
		if d.live {
			data = st.thin(l.Data, l.Time)
		} else {
			data = st.whole(l.Data)
		}
		if len(data) > 0 {
			s.Logs = append(s.Logs, &client.VertexLog{Vertex: st.Digest, Data: bytes.Clone(data), Timestamp: l.Time})
		}
	}
	for _, w := range p.Warnings {
		st := d.begun(p.Task, w.Step, nil, s)
		s.Warnings = append(s.Warnings, &client.VertexWarning{Vertex: st.Digest, Short: []byte(short(w)), URL: w.URL})
	}
	return s
}

func (d *Display) announce(task string, ps *pipeline.Step, s *client.SolveStatus) {
	st := d.steps[ps.ID]
	if st == nil {
		st = &step{}
		d.steps[ps.ID] = st
	}
	v := &client.Vertex{
		Digest: vertexDigest(ps.ID), Name: title(task, ps.Name),
		Started: ps.Started, Completed: ps.Completed, Cached: ps.Cached, Error: ps.Error,
	}
	for _, in := range ps.Inputs {
		v.Inputs = append(v.Inputs, vertexDigest(in))
	}
	// BuildKit's display counts a step as begun only with a start.
	if v.Started == nil && v.Completed != nil {
		v.Started = v.Completed
	}
	if st.assumed && st.Completed == nil && v.Started != nil {
		v.Started = st.Started // or the assumed start would never be seen to end
	}
	if v.Completed != nil {
		s.Logs = append(s.Logs, st.rest()...)
	}
	st.Vertex, st.unannounced = v, false
	s.Vertexes = append(s.Vertexes, v)
}

// begun makes sure that news about a step is drawn even if nobody announced it
// or its start: BuildKit's display drops what belongs to no begun vertex.
func (d *Display) begun(task, id string, at *time.Time, s *client.SolveStatus) *step {
	st := d.steps[id]
	if st == nil {
		st = &step{Vertex: &client.Vertex{Digest: vertexDigest(id), Name: title(task, "output")}, unannounced: true}
		d.steps[id] = st
	} else if st.Started != nil {
		return st
	}
	v := *st.Vertex
	if v.Started = at; at == nil || at.IsZero() {
		now := time.Now()
		v.Started = &now
	}
	st.Vertex, st.assumed = &v, true
	s.Vertexes = append(s.Vertexes, &v)
	return st
}

// rest gives the output still held when a step ends.
func (st *step) rest() []*client.VertexLog {
	var out []*client.VertexLog
	for _, data := range [][]byte{st.thinner.take(), st.lines.take()} {
		if len(data) > 0 {
			out = append(out, &client.VertexLog{Vertex: st.Digest, Data: data, Timestamp: st.latest})
		}
	}
	return out
}

func transfer(vertex digest.Digest, t pipeline.Transfer) *client.VertexStatus {
	v := &client.VertexStatus{
		ID: t.ID, Vertex: vertex, Name: t.Name,
		Current: t.Current, Total: t.Total, Started: t.Started, Completed: t.Completed,
		Timestamp: time.Now(),
	}
	if t.Completed != nil {
		v.Timestamp = *t.Completed
	}
	return v
}

func title(task, name string) string {
	if task == "" {
		return name
	}
	return "[" + task + "] " + name
}

// short names the place unless the checker's words do.
func short(w pipeline.Warning) string {
	if w.Line == 0 || w.File == "" || strings.Contains(w.Short, fmt.Sprintf("line %d", w.Line)) {
		return w.Short
	}
	return fmt.Sprintf("%s:%d: %s", w.File, w.Line, w.Short)
}

func vertexDigest(id string) digest.Digest { return digest.FromString(id) }
