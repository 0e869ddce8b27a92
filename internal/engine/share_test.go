package engine

import (
	"testing"

	"slipway/internal/schedule"
	"slipway/pipeline"
)

func TestShare(t *testing.T) {
	plan := pipeline.Plan{Services: map[string]pipeline.Service{
		"db":    {DependsOn: map[string]string{"disk": "service_started"}, Resources: pipeline.Resources{Memory: 1 << 30}},
		"disk":  {},
		"other": {Resources: pipeline.Resources{CPUs: 64}},
	}}
	test := func(services []string, r pipeline.Resources) pipeline.Task {
		return pipeline.Task{Kind: pipeline.TestTask, Test: &pipeline.Test{Services: services, Resources: r}}
	}
	for name, c := range map[string]struct {
		task pipeline.Task
		want schedule.Share
	}{
		"build":             {pipeline.Task{Kind: pipeline.BuildTask, Build: &pipeline.Build{}}, schedule.Share{CPUs: 1, Memory: 512 << 20}},
		"test":              {test(nil, pipeline.Resources{}), schedule.Share{CPUs: 1, Memory: 512 << 20}},
		"its own word":      {test(nil, pipeline.Resources{CPUs: 4, Memory: 8 << 30}), schedule.Share{CPUs: 4, Memory: 8 << 30}},
		"half a word":       {test(nil, pipeline.Resources{CPUs: 0.5}), schedule.Share{CPUs: 0.5, Memory: 512 << 20}},
		"with its services": {test([]string{"db"}, pipeline.Resources{CPUs: 2, Memory: 1 << 30}), schedule.Share{CPUs: 2.5, Memory: 2<<30 + 256<<20}},
	} {
		if got := share(plan, c.task); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
