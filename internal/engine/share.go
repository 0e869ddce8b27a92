package engine

import (
	"slipway/internal/schedule"
	"slipway/pipeline"
)

// What a task is counted with that does not say what it needs. These are no
// limits. A test without `resources` may use every core and gigabytes, but most
// use little, and the machine would stand idle if each were believed to need all
// that it may have. A service waits for its test most of the time. Limits that
// are written down are believed: memory that the sum of them exceeds would be
// taken from the machine.
var (
	buildShare   = schedule.Share{CPUs: 1, Memory: 512 << 20}
	testShare    = schedule.Share{CPUs: 1, Memory: 512 << 20}
	serviceShare = schedule.Share{CPUs: 0.25, Memory: 256 << 20}
)

// share is what a task asks of the machine, its services included.
func share(plan pipeline.Plan, task pipeline.Task) schedule.Share {
	if task.Kind == pipeline.BuildTask {
		return buildShare
	}
	sum := asked(task.Test.Resources, testShare)
	for _, s := range plan.ServicesOf(task) {
		own := asked(s.Resources, serviceShare)
		sum.CPUs += own.CPUs
		sum.Memory += own.Memory
	}
	return sum
}

func asked(r pipeline.Resources, otherwise schedule.Share) schedule.Share {
	if r.CPUs > 0 {
		otherwise.CPUs = r.CPUs
	}
	if r.Memory > 0 {
		otherwise.Memory = r.Memory
	}
	return otherwise
}
