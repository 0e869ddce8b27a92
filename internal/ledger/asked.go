package ledger

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// Asked is how a run is to be carried out where that is not the usual way.
type Asked struct {
	// Upload has the files of the run; empty: they are those of its commit.
	Upload      digest.Digest   `json:"upload,omitzero"`
	Event       *pipeline.Event `json:"event,omitzero"` // of an upload: what its run stands for
	Only        []string        `json:"only,omitzero"`  // tasks, with what they need
	RerunTests  bool            `json:"rerun_tests,omitzero"`
	NoCache     bool            `json:"no_cache,omitzero"`
	KeepSeconds int64           `json:"keep_seconds,omitzero"` // how long its failed tests stay; 0: as those of other runs
	Again       Again           `json:"again,omitzero"`        // of an attempt after the first
}

// Again is how another attempt at a run takes up the one before.
type Again struct {
	FromFailed bool   `json:"from_failed,omitzero"` // only what did not pass
	SamePlan   bool   `json:"same_plan,omitzero"`   // with the same images, none built anew
	Record     string `json:"record,omitzero"`      // of that one
}

func (a Asked) text() string {
	data, err := json.Marshal(a)
	if err != nil {
		panic("ledger: a wish that is no JSON: " + err.Error()) // strings, digests and flags only
	}
	if string(data) == "{}" {
		return ""
	}
	return string(data)
}
