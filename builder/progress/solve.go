package progress

import (
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// FromSolve turns one of BuildKit's status messages into slipway's words. task
// is the ID of the build task; it becomes part of every step ID, because two
// builds of one run may share a vertex (the same FROM, say) and each must be
// seen to end. The log data is not copied.
func FromSolve(task string, s *client.SolveStatus) pipeline.Progress {
	p := pipeline.Progress{Task: task}
	if s == nil {
		return p
	}
	grouped := map[digest.Digest]string{}
	for _, v := range s.Vertexes {
		p.Steps = append(p.Steps, fromVertex(task, v, grouped))
	}
	step := func(d digest.Digest) string {
		if id, ok := grouped[d]; ok {
			return id
		}
		return stepID(task, d.String())
	}
	for _, t := range s.Statuses {
		p.Transfers = append(p.Transfers, pipeline.Transfer{
			ID: t.ID, Step: step(t.Vertex), Name: t.Name,
			Current: t.Current, Total: t.Total, Started: t.Started, Completed: t.Completed,
		})
	}
	for _, l := range s.Logs {
		p.Logs = append(p.Logs, pipeline.StepLog{Step: step(l.Vertex), Stream: l.Stream, Data: l.Data, Time: l.Timestamp})
	}
	for _, w := range s.Warnings {
		p.Warnings = append(p.Warnings, fromWarning(step(w.Vertex), w))
	}
	return p
}

// fromVertex folds the members of a progress group (the two halves of a
// COPY --link) into one step, as BuildKit's own display does.
func fromVertex(task string, v *client.Vertex, grouped map[digest.Digest]string) pipeline.Step {
	s := pipeline.Step{
		ID: stepID(task, v.Digest.String()), Name: v.Name,
		Started: v.Started, Completed: v.Completed, Cached: v.Cached, Error: v.Error,
	}
	if v.ProgressGroup != nil {
		s.ID, s.Name = stepID(task, v.ProgressGroup.Id), v.ProgressGroup.Name
		grouped[v.Digest] = s.ID
	}
	for _, in := range v.Inputs {
		s.Inputs = append(s.Inputs, stepID(task, in.String()))
	}
	return s
}

func fromWarning(step string, w *client.VertexWarning) pipeline.Warning {
	out := pipeline.Warning{Step: step, Short: string(w.Short), URL: w.URL, Line: firstLine(w.Range)}
	for _, d := range w.Detail {
		out.Detail = append(out.Detail, string(d))
	}
	if w.SourceInfo != nil {
		out.File = w.SourceInfo.Filename
	}
	return out
}

func firstLine(ranges []*pb.Range) int {
	for _, r := range ranges {
		if r.GetStart() != nil {
			return int(r.GetStart().GetLine())
		}
	}
	return 0
}

func stepID(task, id string) string { return task + "@" + id }
