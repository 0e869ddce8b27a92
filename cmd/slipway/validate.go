package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"slipway/pipeline"
)

func validateCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "validate [DIR]",
		Short: "Check .ci.yml and the environment files it names",
		Long:  "Checks .ci.yml and the environment files it names, and prints every problem with\nits file, line and column.\n\n" + exitHelp,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := dirArg(args)
			abs, p, err := load(dir)
			var problems pipeline.Errors
			if err != nil && !errors.As(err, &problems) {
				return err
			}
			if err == nil {
				problems = append(problems, checkFiles(dir, abs, p)...)
			}
			return g.validated(dir, problems)
		},
	}
}

// checkFiles looks at what the pipeline names outside itself.
func checkFiles(shown, dir string, p *pipeline.Pipeline) pipeline.Errors {
	var problems pipeline.Errors
	plan, err := p.Expand(pipeline.Event{})
	var bad pipeline.Errors
	if errors.As(err, &bad) {
		return bad
	}
	for _, file := range plan.Environments {
		name := filepath.Join(shown, filepath.FromSlash(file))
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(file)))
		if err != nil {
			problems = append(problems, pipeline.Problem{
				File: filepath.Join(shown, pipelineFile), Line: 1, Column: 1,
				Message: fmt.Sprintf("environments names %s, which cannot be read: %v", file, errors.Unwrap(err)),
			})
			continue
		}
		if _, err := pipeline.ParseEnvironment(name, data); errors.As(err, &bad) {
			problems = append(problems, bad...)
		}
	}
	return problems
}

func (g *globals) validated(dir string, problems pipeline.Errors) error {
	if g.json {
		if problems == nil {
			problems = pipeline.Errors{}
		}
		if err := printJSON(os.Stdout, map[string]any{"valid": len(problems) == 0, "problems": problems}); err != nil {
			return err
		}
		if len(problems) > 0 {
			return exitError(exitUsage)
		}
		return nil
	}
	if len(problems) > 0 {
		return problems
	}
	fmt.Printf("%s is valid\n", filepath.Join(dir, pipelineFile))
	return nil
}

func schemaCommand() *cobra.Command {
	var environment bool
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of .ci.yml, for editors",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			schema := pipeline.Schema()
			if environment {
				schema = pipeline.EnvironmentSchema()
			}
			_, err := os.Stdout.Write(schema)
			return err
		},
	}
	cmd.Flags().BoolVar(&environment, "environment", false, "that of environment files instead")
	return cmd
}
