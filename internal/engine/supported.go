package engine

import (
	"fmt"
	"strings"

	"slipway/pipeline"
)

// Supported says whether this version can run every task of the plan that the
// event runs. Its error wraps ErrNotBuiltYet and names the first that it cannot.
func Supported(plan pipeline.Plan) error {
	for _, task := range plan.Tasks {
		if task.Kind != pipeline.TestTask || task.Skip != "" {
			continue
		}
		if len(task.Test.Services) > 0 {
			return fmt.Errorf("test %s needs the service %s: running services beside a test is %w; take the service out of the test, or run the others with --only",
				task.ID, strings.Join(task.Test.Services, ", "), ErrNotBuiltYet)
		}
	}
	return nil
}

// Bind reports whether a volume is a directory of the repository.
func Bind(v pipeline.Volume) bool {
	return v.Source == "." || strings.HasPrefix(v.Source, "./") || strings.HasPrefix(v.Source, "../") || strings.HasPrefix(v.Source, "/")
}
