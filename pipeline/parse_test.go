package pipeline_test

import (
	"encoding/json"
	"testing"

	"slipway/pipeline"
)

func TestX(t *testing.T) {
	p, err := pipeline.Parse(".ci.yml", []byte(`version: 1
when: {push: {branches: [main], tags: ["v*"]}, pull_request: {forks: hold}}   # hold: needs
images:
  base: {build: {context: ., dockerfile: base.Dockerfile}}
  api:
    needs: [base]
    paths: ["api/**", base.Dockerfile]          # monorepo: skipped images still report success
    matrix: {python: ["2.7", "3.12"]}
    build: {context: api, args: {PYTHON: "${{ matrix.python }}"}, additional_contexts: {base: "image:base"}, target: prod, platforms: [linux/amd64], secrets: [pip_token]}
    services: [db, cache]
    tests:
      unit: {command: [pytest, -q, --junitxml=/out/junit.xml], network: none, reports: {junit: /out/junit.xml}}
      integration:
        needs: [unit]
        command: ./it.sh
        environment: {DATABASE_URL: "mysql://root@db/test"}
        volumes: ["./fixtures:/data:ro"]
        secrets: [stripe_sandbox]
        timeout: 5m
        retry: 1
        resources: {cpus: 2, memory: 512M, pids: 256}
services:
  db: {image: "mysql:8.4", environment: {A: b}, volumes: ["testdata:/var/lib/mysql"], healthcheck: {test: [CMD, mysqladmin, ping], interval: 500ms, retries: 60}}
  cache: {image: "redis:8"}
volumes: {testdata: {from: ./testdata}}          # a seed; every run gets its own copy-on-write snapshot
environments: [environments/test.yml, environments/prod.yml]   # templates, copied by
`))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := p.Expand(pipeline.Event{})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.MarshalIndent(plan, "", " ")
	t.Log(string(b))
}
