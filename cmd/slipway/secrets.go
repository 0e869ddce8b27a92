//go:build linux && !client

package main

import (
	"bytes"
	"os"
	"slices"
	"strings"

	"slipway/pipeline"
)

// readSecrets reads a file of NAME=VALUE lines (# comments, blank lines), and
// checks that it gives every secret the plan names.
func readSecrets(path string) (map[string][]byte, error) {
	secrets := map[string][]byte{}
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, usagef("read the secrets: %w", err)
		}
		for i, line := range bytes.Split(data, []byte("\n")) {
			line = bytes.TrimSuffix(line, []byte("\r"))
			if len(bytes.TrimSpace(line)) == 0 || line[0] == '#' {
				continue
			}
			name, value, ok := bytes.Cut(line, []byte("="))
			if !ok || len(bytes.TrimSpace(name)) == 0 {
				return nil, usagef("%s:%d: not NAME=VALUE", path, i+1) // the line itself may be a secret
			}
			secrets[string(bytes.TrimSpace(name))] = value
		}
	}
	return secrets, nil
}

// checkSecrets sees that all are given that a plan names.
func checkSecrets(secrets map[string][]byte, plan pipeline.Plan) error {
	var missing []string
	for _, task := range plan.Tasks {
		for _, name := range secretsOf(task) {
			if _, ok := secrets[name]; !ok && task.Skip == "" && !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		return usagef("the pipeline names secrets that are not given: %s; put NAME=VALUE lines into a file and give it with --secrets FILE", strings.Join(missing, ", "))
	}
	return nil
}

func secretsOf(task pipeline.Task) []string {
	if task.Kind == pipeline.BuildTask {
		return task.Build.Secrets
	}
	return task.Test.Secrets
}
