package pipeline

import (
	"strings"
	"time"
)

var serviceCodec = object("service", "A container beside a test. Keys and meaning are Compose's.", nil, map[string]string{
	"build": "build it under images and write image: image:NAME", "ports": "tests reach a service by its name; no port is published", "expose": "every port of a service is open to its test",
	"env": "write environment", "restart": "a service that ends is a failure", "container_name": "the name under services is the host name", "hostname": "the name under services is the host name",
	"links": "services reach each other by name", "networks": "a test and its services have a network of their own", "mem_limit": "write resources: {memory: ...}", "cpus": "write resources: {cpus: ...}",
	"pids_limit": "write resources: {pids: ...}", "deploy": "write resources", "secrets": "secrets belong to tests", "workdir": "write working_dir", "extra_hosts": "a sandbox has no hosts of its own",
	"dns": "names are slipway's", "logging": "output is kept with the test", "platform": "a service runs on the machine's own platform", "pull_policy": "an image is fetched once, by digest",
	"profiles": "a service runs where a test names it", "stop_grace_period": "a service ends with its test", "init": "a sandbox always has one", "configs": "mount a directory as a volume",
},
	at("image", serviceImage, "Reference, or `image:NAME` of this pipeline.", func(s *Service) *string { return &s.Image }).must(),
	at("command", words, "Over the image's own. Text is split into words; no shell runs.", func(s *Service) *[]string { return &s.Command }),
	at("entrypoint", words, "Over the image's own.", func(s *Service) *[]string { return &s.Entrypoint }),
	at("environment", keyValues, "Variables, over the image's own.", func(s *Service) *map[string]string { return &s.Environment }),
	at("env_file", oneOrMore(repositoryPath), "Files of KEY=VALUE lines in the repository; environment wins.", func(s *Service) *[]string { return &s.EnvFile }),
	at("volumes", volumes, "`./directory:/target` (read-only unless `:rw`) or `name:/target`.", func(s *Service) *[]Volume { return &s.Volumes }),
	at("tmpfs", tmpfs, tmpfsDoc, func(s *Service) *[]Tmpfs { return &s.Tmpfs }),
	at("user", anyText, "User, or user:group.", func(s *Service) *string { return &s.User }),
	at("working_dir", sandboxPath, "Directory it starts in.", func(s *Service) *string { return &s.WorkingDir }),
	at("healthcheck", healthcheck, "How to see that it is ready. Tests wait for it.", func(s *Service) **Healthcheck { return &s.Healthcheck }),
	at("depends_on", fixed(dependsOn), "Services that start before it: a list, or a map with conditions.", func(s *Service) *map[string]string { return &s.DependsOn }),
	at("resources", resources, "Limits of the sandbox.", func(s *Service) *Resources { return &s.Resources }),
)

var serviceImage = scalar(shape{kind: "string", says: "image reference"}, isText, func(text string) (string, string) {
	if _, ours := cutImage(text); !ours && !referenceRegexp().MatchString(text) {
		return "", "write one such as mysql:8.4, registry.example/team/db@sha256:…, or image:NAME of this pipeline"
	}
	return text, ""
})

// healthFile is a healthcheck as written.
type healthFile struct {
	Healthcheck
	disable bool
}

var healthObject = object("healthcheck", "Compose's healthcheck.", nil, nil,
	at("test", healthTest, "`[CMD, words…]`, `[CMD-SHELL, text]`, `[NONE]`, or text for the shell.", func(h *healthFile) *[]string { return &h.Test }),
	at("interval", durationOrZero, "Between two checks.", func(h *healthFile) *time.Duration { return &h.Interval }),
	at("timeout", durationOrZero, "Of one check.", func(h *healthFile) *time.Duration { return &h.Timeout }),
	at("retries", integer(0, 10000), "Failures in a row that make it unhealthy.", func(h *healthFile) *int { return &h.Retries }),
	at("start_period", durationOrZero, "Failures in this time do not count.", func(h *healthFile) *time.Duration { return &h.StartPeriod }),
	at("start_interval", durationOrZero, "Between two checks in the start period.", func(h *healthFile) *time.Duration { return &h.StartInterval }),
	at("disable", boolean, "`true` turns the image's own off.", func(h *healthFile) *bool { return &h.disable }),
)

var healthcheck = codec[*Healthcheck]{healthObject.shape, func(d *decoder, n *node) *Healthcheck {
	h := healthObject.decode(d, n)
	if h.disable {
		if len(h.Test) > 0 {
			d.report(n.at, "disable and test are both given; keep one")
		}
		h.Test = []string{"NONE"}
	}
	return &h.Healthcheck
}}

var healthTest = codec[[]string]{
	&shape{kind: "either", says: "check", either: []*shape{{kind: "string", expression: true}, {kind: "list", items: anyText.shape, atLeast: 1}}},
	func(d *decoder, n *node) []string {
		if n.kind != listNode {
			if text := textCodec.decode(d, n); text != "" {
				return []string{"CMD-SHELL", text}
			}
			return nil
		}
		argv := list(anyText, 1).decode(d, n)
		switch {
		case len(argv) == 0:
		case argv[0] == "NONE" && len(argv) == 1, argv[0] == "CMD" && len(argv) > 1, argv[0] == "CMD-SHELL" && len(argv) == 2:
		default:
			d.report(n.at, "begin with CMD and its words, with CMD-SHELL and one text, or write [NONE]")
		}
		return argv
	},
}

// The conditions of depends_on, in Compose's words.
const (
	serviceStarted   = "service_started"
	serviceHealthy   = "service_healthy"
	serviceCompleted = "service_completed_successfully"
)

var dependency = object("dependency", "When the service may start.", nil, map[string]string{"restart": "a service that ends is a failure", "required": "every dependency is required"},
	at("condition", oneOf("condition", serviceStarted, serviceHealthy, serviceCompleted), "service_started, service_healthy or service_completed_successfully.", func(s *string) *string { return s }).must(),
)

var (
	dependencyList = list(nameCodec, 0)
	dependencyMap  = named(dependency, 0)
)

var dependsOn = codec[map[string]string]{
	&shape{kind: "either", says: "list or map of services", either: []*shape{dependencyList.shape, dependencyMap.shape}},
	func(d *decoder, n *node) map[string]string {
		out := map[string]string{}
		if n.kind == mapNode {
			for _, e := range dependencyMap.decode(d, n) {
				out[e.name] = e.value
			}
		} else {
			for _, name := range dependencyList.decode(d, n) {
				out[name] = serviceStarted
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	},
}

// volumeFile is a named volume as written.
type volumeFile struct{ from placed[string] }

var volumeObject = object("volume", "A named volume; every run gets its own copy of what is in it.", nil, map[string]string{
	"driver": "volumes are slipway's own snapshots", "driver_opts": "volumes are slipway's own snapshots", "external": "give the data by from", "name": "the key is the name",
},
	at("from", fixed(withPlace(volumeSource)), "What is in it: `./directory`, `image:NAME:/path` of this pipeline, or `oci://REGISTRY/NAME@sha256:…`. Default: nothing.",
		func(v *volumeFile) *placed[string] { return &v.from }),
)

// volumeCodec takes `testdata:` with nothing after it as an empty volume.
var volumeCodec = codec[volumeFile]{
	&shape{kind: "either", says: "volume", either: []*shape{volumeObject.shape, {kind: "null"}}},
	func(d *decoder, n *node) volumeFile {
		if n.null() {
			return volumeFile{}
		}
		return volumeObject.decode(d, n)
	},
}

var volumeSource = scalar(shape{kind: "string", says: "source of a volume", pattern: `^(\.|image:|oci://)`}, isText, func(text string) (string, string) {
	const forms = "write ./directory, image:NAME:/path or oci://REGISTRY/NAME@sha256:…"
	if ref, ours := cutImage(text); ours {
		if ref.path == "" {
			return "", "the path in the image is missing: image:" + ref.name + ":/path"
		}
		return text, ""
	}
	if artifact, found := strings.CutPrefix(text, "oci://"); found {
		if !referenceRegexp().MatchString(artifact) || !strings.Contains(artifact, "@sha256:") {
			return "", "name it by digest: a tag can move, and the same commit would test other data"
		}
		return text, ""
	}
	if text != "." && !strings.HasPrefix(text, "./") && !strings.HasPrefix(text, "../") {
		return "", forms
	}
	clean, problem := insidePath(text)
	if problem != "" {
		return "", problem
	}
	return "./" + clean, ""
})
