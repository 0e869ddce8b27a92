package main

import (
	"testing"

	"slipway/pipeline"
)

func TestWhoseTestsReachTheInternet(t *testing.T) {
	reaches := pipeline.Task{ID: "web/load", Test: &pipeline.Test{Network: pipeline.NetworkInternet}}
	skipped := reaches
	skipped.Skip = "paths"
	plan := func(more ...pipeline.Task) pipeline.Plan {
		return pipeline.Plan{Tasks: append([]pipeline.Task{{ID: "web"}, {ID: "web/unit", Test: &pipeline.Test{Network: pipeline.NetworkServices}}}, more...)}
	}
	for _, c := range []struct {
		internet string
		trusted  bool
		plan     pipeline.Plan
		refused  bool
	}{
		{internetAll, false, plan(reaches), false},
		{internetTrusted, true, plan(reaches), false},
		{internetTrusted, false, plan(reaches), true},
		{internetTrusted, false, plan(skipped), false},
		{internetTrusted, false, plan(), false},
		{internetNone, true, plan(reaches), true},
		{internetNone, true, plan(), false},
	} {
		if err := (serveFlags{internet: c.internet}).mayReach(c.plan, c.trusted); (err != nil) != c.refused {
			t.Errorf("--internet %s, trusted %v, %d tasks: %v", c.internet, c.trusted, len(c.plan.Tasks), err)
		}
	}
}
