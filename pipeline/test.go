package pipeline

import "time"

// DefaultTimeout ends a test that does not say how long it may take.
const DefaultTimeout = 30 * time.Minute

// testFile is a test as written: what becomes Test, and what becomes its place in the plan.
type testFile struct {
	Test
	needs    []placed[string]
	services []placed[string]
	when     When
}

func defaultTest() testFile {
	return testFile{Test: Test{Network: NetworkServices, Timeout: DefaultTimeout}}
}

// serviceNames is a list of names under the pipeline's services.
var serviceNames = oneOrMore(withPlace(nameCodec))

var testCodec = object("test", "One command inside the exact image.", defaultTest, map[string]string{
	"script": "write command", "run": "write command", "cmd": "write command", "steps": "write command, or several tests", "env": "write environment",
	"depends_on": "write needs for tests and services for services", "retries": "write retry", "image": "a test runs inside its own image", "build": "a test runs inside its own image",
	"mem_limit": "write resources: {memory: ...}", "memory": "write resources: {memory: ...}", "cpus": "write resources: {cpus: ...}", "pids_limit": "write resources: {pids: ...}",
	"junit": "write reports: {junit: ...}", "artifacts": "write reports: {junit: ...}; /out is kept", "ports": "tests reach services by name; no port is published",
	"networks": "write network: none, services or internet", "workdir": "write working_dir", "allow_failure": "a test that may fail proves nothing; leave it out",
	"matrix": "it belongs to the image",
},
	at("command", shellCommand, "What to run. Text runs in the image's /bin/sh; a list runs as it is.",
		func(t *testFile) *[]string { return &t.Command }).must(),
	at("needs", fixed(oneOrMore(withPlace(nameCodec))), "Tests of the same image that must pass before it.",
		func(t *testFile) *[]placed[string] { return &t.needs }),
	at("when", whenCodec, "Which events it runs for, within the image's. One that is skipped passes no gate that names it.",
		func(t *testFile) *When { return &t.when }),
	at("entrypoint", words, "Goes before the command. Default: nothing, not even the image's own.",
		func(t *testFile) *[]string { return &t.Entrypoint }),
	at("environment", keyValues, "Variables, over the image's own.",
		func(t *testFile) *map[string]string { return &t.Environment }),
	at("network", oneOf("reach", NetworkNone, NetworkServices, NetworkInternet), "`services` (default): its own services only. `none`: nothing. `internet`: services, and out, never the host; its result is not reused.",
		func(t *testFile) *Network { return &t.Network }),
	at("services", serviceNames, "Services it needs, in place of the image's; `[]` for none.",
		func(t *testFile) *[]placed[string] { return &t.services }),
	at("volumes", volumes, "`./directory:/target` (read-only unless `:rw`) or `name:/target`.",
		func(t *testFile) *[]Volume { return &t.Volumes }),
	at("tmpfs", tmpfs, tmpfsDoc,
		func(t *testFile) *[]Tmpfs { return &t.Tmpfs }),
	at("secrets", oneOrMore(nameCodec), "Names of secrets that it may read.",
		func(t *testFile) *[]string { return &t.Secrets }),
	at("user", anyText, "User, or user:group, over the image's own.",
		func(t *testFile) *string { return &t.User }),
	at("working_dir", sandboxPath, "Directory it starts in, over the image's own.",
		func(t *testFile) *string { return &t.WorkingDir }),
	at("timeout", duration, "It is ended after this time. Default: 30m.",
		func(t *testFile) *time.Duration { return &t.Timeout }),
	at("retry", integer(0, 10), "How often a failure is tried again. A pass after a failure is marked flaky.",
		func(t *testFile) *int { return &t.Retry }),
	at("resources", resources, "Limits of the sandbox.",
		func(t *testFile) *Resources { return &t.Resources }),
	at("reports", reports, "What the test writes under /out for slipway to read.",
		func(t *testFile) *[]string { return &t.JUnit }),
	at("cache", inverse(boolean), "`false` runs it each time, even if nothing changed.",
		func(t *testFile) *bool { return &t.NoCache }),
)

var resources = object("resources", "Limits of one sandbox.", nil, map[string]string{
	"limits": "write the limits directly here", "reservations": "a sandbox has limits only", "cpu": "write cpus", "mem": "write memory",
},
	at("cpus", cpus, "Cores.", func(r *Resources) *float64 { return &r.CPUs }),
	at("memory", size, "Memory, swap included.", func(r *Resources) *int64 { return &r.Memory }),
	at("pids", wide(integer(1, 4194304)), "Processes and threads.", func(r *Resources) *int64 { return &r.Pids }),
	at("disk", size, "What it may write outside volumes.", func(r *Resources) *int64 { return &r.Disk }),
)

var reports = object("reports", "Reports of a test.", nil, nil,
	at("junit", oneOrMore(reportPath), "JUnit XML under /out; globs are allowed.", func(r *[]string) *[]string { return r }),
)
