package main

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// digestInto puts the digest of the last command's JSON into a variable: digest NAME
func digestInto(ts *testscript.TestScript, _ bool, args []string) {
	var said struct {
		Digest string `json:"digest"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &said))
	ts.Setenv(args[0], said.Digest)
}

// pipelineWith writes app/.ci.yml from app/template: pipeline REFERENCE
func pipelineWith(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.ReplaceAll(ts.ReadFile("app/template"), "REF", args[0])
	ts.Check(os.WriteFile(ts.MkAbs("app/.ci.yml"), []byte(text), 0o644))
}
