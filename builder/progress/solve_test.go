package progress

import (
	"reflect"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/pb"

	"slipway/pipeline"
)

func TestFromSolve(t *testing.T) {
	link := &pb.ProgressGroup{Id: "g1", Name: "[2/2] COPY --link a b"}
	got := FromSolve("api", &client.SolveStatus{
		Vertexes: []*client.Vertex{
			{Digest: "sha256:a", Name: "[1/2] FROM x", Started: at(1), Completed: at(2), Cached: true},
			{Digest: "sha256:b", Name: "LINK", Inputs: nil, Started: at(3), ProgressGroup: link},
			{Digest: "sha256:c", Name: "export", Error: "no space"},
		},
		Statuses: []*client.VertexStatus{{ID: "layer", Vertex: "sha256:a", Name: "pulling", Current: 1, Total: 2}},
		Logs:     []*client.VertexLog{{Vertex: "sha256:b", Stream: 2, Data: []byte("hi"), Timestamp: *at(4)}},
		Warnings: []*client.VertexWarning{{
			Vertex: "sha256:a", Short: []byte("s"), Detail: [][]byte{[]byte("d")}, URL: "u",
			SourceInfo: &pb.SourceInfo{Filename: "Dockerfile"}, Range: []*pb.Range{{Start: &pb.Position{Line: 7}}},
		}},
	})
	want := pipeline.Progress{
		Task: "api",
		Steps: []pipeline.Step{
			{ID: "api@sha256:a", Name: "[1/2] FROM x", Started: at(1), Completed: at(2), Cached: true},
			{ID: "api@g1", Name: "[2/2] COPY --link a b", Started: at(3)},
			{ID: "api@sha256:c", Name: "export", Error: "no space"},
		},
		Transfers: []pipeline.Transfer{{ID: "layer", Step: "api@sha256:a", Name: "pulling", Current: 1, Total: 2}},
		Logs:      []pipeline.StepLog{{Step: "api@g1", Stream: 2, Data: []byte("hi"), Time: *at(4)}},
		Warnings:  []pipeline.Warning{{Step: "api@sha256:a", Short: "s", Detail: []string{"d"}, URL: "u", File: "Dockerfile", Line: 7}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := FromSolve("api", nil); !reflect.DeepEqual(got, pipeline.Progress{Task: "api"}) {
		t.Errorf("of nothing: %+v", got)
	}
}
