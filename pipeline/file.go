package pipeline

// The tables below are .ci.yml: what each key is called, what it takes and what
// it is for. Parser, JSON Schema and reference are all read from them.

// file is .ci.yml as written.
type file struct {
	version      int
	when         When
	images       []entry[imageFile]
	services     []entry[*node] // of serviceCodec
	volumes      []entry[volumeFile]
	environments []placed[string]
}

type imageFile struct {
	needs    []placed[string]
	paths    []string
	when     When
	matrix   *matrixSpec
	build    *node          // of buildCodec
	services *node          // of serviceNames
	tests    []entry[*node] // of testCodec
}

const noExpression = "it shapes the plan itself, before any value is known"

// fixed takes what c takes, without expressions.
func fixed[V any](c codec[V]) codec[V] {
	s := plainShape(c.shape)
	return codec[V]{s, func(d *decoder, n *node) V {
		plain := *d
		plain.scope = scope{never: noExpression}
		return c.decode(&plain, n)
	}}
}

// plainShape is s without room for expressions.
func plainShape(s *shape) *shape {
	if s == nil {
		return nil
	}
	c := *s
	c.expression = false
	c.items = plainShape(s.items)
	c.either, c.fields = nil, nil
	for _, f := range s.fields {
		f.shape = plainShape(f.shape)
		c.fields = append(c.fields, f)
	}
	for _, e := range s.either {
		c.either = append(c.either, plainShape(e))
	}
	return &c
}

var fileCodec = object("pipeline", "A pipeline: the images of a repository and the tests they must pass.", nil, map[string]string{
	"jobs": "images hold the work: each has a build and tests", "stages": "images and tests order themselves by needs",
	"steps": "images hold the work: each has a build and tests", "pipeline": "images hold the work: each has a build and tests",
	"on": "that is when, here", "networks": "a test reaches its own services by name; no network is named",
	"configs": "mount a directory of the repository as a volume", "secrets": "list secrets by name in a test or build; their values are given to the run",
	"name": "a pipeline has its repository's name",
},
	at("version", fixed(versionCodec), "The version of this format: 1.", func(f *file) *int { return &f.version }).must(),
	at("when", whenCodec, "Which events it runs for. Without it: every event.", func(f *file) *When { return &f.when }),
	at("images", named(imageCodec, 1), "The images to build and test, by name.", func(f *file) *[]entry[imageFile] { return &f.images }).must(),
	at("services", named(deferred(serviceCodec), 0), "Containers that run beside tests, by name, in Compose's words.", func(f *file) *[]entry[*node] { return &f.services }),
	at("volumes", named(volumeCodec, 0), "Named volumes. Every run gets its own copy.", func(f *file) *[]entry[volumeFile] { return &f.volumes }),
	at("environments", list(fixed(withPlace(repositoryPath)), 0), "Environment files that belong to this pipeline.", func(f *file) *[]placed[string] { return &f.environments }),
)

var whenCodec = object("when", "Which events run.", nil, map[string]string{
	"branches": "it belongs under push or pull_request", "tags": "it belongs under push", "tag": "write push: {tags: [...]}",
	"forks": "it belongs under pull_request", "merge_request": "write pull_request", "cron": "`slipway schedules add` on the server says when; write schedule here", "event": "write push, pull_request or schedule",
},
	at("push", orNothing(pushCodec), "Pushes that run. Without it, and with another kind: none.", func(w *When) **PushFilter { return &w.Push }),
	at("pull_request", orNothing(pullRequestCodec), "Pull requests that run. Without it, and with another kind: none.", func(w *When) **PullRequestFilter { return &w.PullRequest }),
	at("schedule", orNothing(scheduleCodec), "Schedules that run (`slipway schedules add`). Without it, and with another kind: none.", func(w *When) **ScheduleFilter { return &w.Schedule }),
	at("paths", fixed(globList), "Globs. Runs only where a changed path matches.", func(w *When) *[]string { return &w.Paths }),
)

var pushCodec = object("push", "Which pushes run.", nil, nil,
	at("branches", fixed(globList), "Globs of branches. With tags alone: no branch.", func(p *PushFilter) *[]string { return &p.Branches }),
	at("tags", fixed(globList), "Globs of tags. With branches alone: no tag.", func(p *PushFilter) *[]string { return &p.Tags }),
)

var scheduleCodec = object("schedule", "Which schedules run.", nil, map[string]string{"cron": "`slipway schedules add` on the server says when"},
	at("names", fixed(globList), "Globs of their names.", func(s *ScheduleFilter) *[]string { return &s.Names }),
)

var pullRequestCodec = object("pull_request", "Which pull requests run.", func() PullRequestFilter { return PullRequestFilter{Forks: ForksHold} }, nil,
	at("branches", fixed(globList), "Globs of the branch it goes to.", func(p *PullRequestFilter) *[]string { return &p.Branches }),
	at("forks", fixed(oneOf("answer to forks", ForksHold, ForksAllow, ForksDeny)),
		"deny: never runs. Between hold (a person must allow the commit) and allow, the server decides (`slipway repos add --forks`): this file comes with the fork.", func(p *PullRequestFilter) *Forks { return &p.Forks }),
)

var imageCodec = object("image", "One image: how it is built, and the tests that exactly this image must pass.", nil, map[string]string{
	"image": "an image here is built; FROM in its Dockerfile names what it stands on", "depends_on": "that is needs, between images",
	"environment": "it belongs to a test, a service, or ENV in the Dockerfile", "env": "it belongs to a test (environment), a service, or ENV in the Dockerfile",
	"context": "write build: {context: ...}", "dockerfile": "write build: {dockerfile: ...}", "target": "write build: {target: ...}", "args": "write build: {args: ...}",
	"platforms": "write build: {platforms: [...]}", "script": "write tests: {NAME: {command: ...}}", "steps": "write tests: {NAME: {command: ...}}", "command": "write tests: {NAME: {command: ...}}",
	"if": "that is when, here", "only": "that is when, here", "strategy": "write matrix directly under the image", "ports": "tests reach services by name; no port is published",
	"volumes": "they belong to a test or a service", "secrets": "they belong to build or to a test",
},
	at("build", deferred(buildCodec), "How it is built; text alone is the context.", func(i *imageFile) **node { return &i.build }).must(),
	at("needs", fixed(oneOrMore(withPlace(nameCodec))), "Images that are built before it. An image:NAME in additional_contexts needs no mention.", func(i *imageFile) *[]placed[string] { return &i.needs }),
	at("paths", fixed(globList), "Globs. The image is skipped, and reported as a success, where no changed path matches. It is still built where another image needs it.", func(i *imageFile) *[]string { return &i.paths }),
	at("when", whenCodec, "Which events it runs for, within the pipeline's.", func(i *imageFile) *When { return &i.when }),
	at("matrix", fixed(matrixCodec), "Lists of values. Every combination is an image of its own, and ${{ matrix.NAME }} is its value.", func(i *imageFile) **matrixSpec { return &i.matrix }),
	at("services", deferred(serviceNames), "Services of all its tests that name none themselves.", func(i *imageFile) **node { return &i.services }),
	at("tests", named(deferred(testCodec), 0), "Commands that must succeed inside the image, by name.", func(i *imageFile) *[]entry[*node] { return &i.tests }),
)
