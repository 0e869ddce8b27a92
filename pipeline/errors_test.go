package pipeline_test

import (
	"errors"
	"strings"
	"testing"

	"slipway/pipeline"
)

// wrong is a .ci.yml that is refused, with all that is said about it. file is
// the whole file; app is the body of an image named app, at column 5 from line 4 on.
type wrong struct {
	name      string
	file, app string
	want      []string
	schema    bool // the JSON Schema sees it too: it is about form, not about meaning
}

func (w wrong) text() string {
	if w.app == "" {
		return w.file
	}
	return "version: 1\nimages:\n  app:\n    " + strings.ReplaceAll(w.app, "\n", "\n    ") + "\n" + w.file
}

const form, meaning = true, false

var wrongFiles = []wrong{
	// The file itself.
	{"empty", "", "", []string{"1:1: the file is empty; `slipway init` writes a first one"}, meaning},
	{"comment only", "# nothing\n", "", []string{"1:1: the file is empty; `slipway init` writes a first one"}, meaning},
	{"a document without a value", "---", "", []string{"1:4: nothing where a map with the keys of pipeline belongs; known: environments, images, services, version, volumes, when"}, form},
	{"a list", "- 1\n", "", []string{"1:1: a list where a map with the keys of pipeline belongs; known: environments, images, services, version, volumes, when"}, form},
	{"text", "hello\n", "", []string{`1:1: the text "hello" where a map with the keys of pipeline belongs; known: environments, images, services, version, volumes, when`}, form},
	{"tab", "version: 1\nimages:\n\tapp: {build: .}\n", "", []string{"3:1: not YAML: found character that cannot start any token; YAML wants spaces, not tabs, for indentation"}, meaning},
	{"colon in text", "version: 1\nimages:\n  app: {build: .}\n  a: b: c\n", "", []string{`4:1: not YAML: mapping values are not allowed in this context; put quotes around text that has ": " in it, or check the indentation`}, meaning},
	{"not UTF-8", "version: 1\n# caf\xe9\n", "", []string{"2:6: a byte that is not UTF-8; save the file as UTF-8 text"}, meaning},
	{"control character", "version: 1\nimages: \x01\n", "", []string{`2:9: a control character ('\x01'); save the file as UTF-8 text`}, meaning},
	{"lone carriage return", "version: 1\r\nimages:\r  app: {build: .}\n", "", []string{"2:8: a line end that is neither LF nor CRLF (U+000D); save the file as UTF-8 text"}, meaning},
	{"byte order mark and CRLF", "\ufeffversion: 2\r\nimages:\r\n  app: {biuld: .}\r\n", "", []string{
		`1:10: version: "2" is not a version; this slipway reads version 1`,
		`3:8: images.app: "build" is missing: How it is built; text alone is the context.`,
		`3:9: images.app: unknown key "biuld"; did you mean "build"?`,
	}, form},
	{"two documents", "version: 1\nimages: {app: {build: .}}\n---\nversion: 1\n", "", []string{"3:1: a second YAML document begins here; one file holds one document"}, meaning},
	{"unknown anchor", "version: 1\nimages: *nowhere\n", "", []string{"1:1: not YAML: unknown anchor 'nowhere' referenced; an anchor (&name) stands before its alias (*name)"}, meaning},
	{"anchor in itself", "version: 1\nx-a: &a [*a]\nimages: {app: {build: .}}\n", "", []string{"2:10: the anchor &a stands inside itself; an alias cannot repeat what holds it"}, meaning},
	{"tag", "version: 1\nimages: {app: {build: !env HOME}}\n", "", []string{"2:23: the tag !env is not known here; write the value without a tag"}, meaning},
	{"number tag", "version: !!int \"1\"\nimages: {app: {build: .}}\n", "", []string{"1:10: the tag !!int is not known here; write the value without a tag"}, meaning},
	{"map tag", "version: 1\nimages: !!set {app: {build: .}}\n", "", []string{"2:9: the tag !!set is not known here; write the value without a tag"}, meaning},
	{"key twice", "version: 1\nimages:\n  app: {build: .}\n  app: {build: .}\n", "", []string{`4:3: "app" is given twice, first on line 3; keep one`}, meaning},
	{"key is a list", "version: 1\nimages: {app: {build: .}}\n? [a]\n: 1\n", "", []string{"3:3: a key must be a plain name; put quotes around it if it begins with [, { or ?"}, meaning},
	{"merge of text", "version: 1\nimages:\n  app: {<<: text, build: .}\n", "", []string{`3:13: "<<" takes a map or a list of maps, such as "<<: *defaults"`}, meaning},
	{"merge of lists", "version: 1\nimages:\n  app: {<<: [[]], build: .}\n", "", []string{`3:14: "<<" takes a map or a list of maps`}, meaning},

	// Top level.
	{"nothing needed is there", "x-a: 1\n", "", []string{`1:1: "version" is missing: The version of this format: 1.`, `1:1: "images" is missing: The images to build and test, by name.`}, form},
	{"version 2", "version: 2\nimages: {app: {build: .}}\n", "", []string{`1:10: version: "2" is not a version; this slipway reads version 1`}, form},
	{"version as text", "version: \"1\"\nimages: {app: {build: .}}\n", "", []string{`1:10: version: the text "1" where a version belongs`}, form},
	{"no image", "version: 1\nimages: {}\n", "", []string{"2:9: images: empty; name at least one"}, form},
	{"images without a value", "version: 1\nimages:\n", "", []string{"2:8: images: nothing where a map from names to image belongs"}, form},
	{"slip", "version: 1\nimagse: {app: {build: .}}\n", "", []string{`1:1: "images" is missing: The images to build and test, by name.`, `2:1: unknown key "imagse"; did you mean "images"?`}, form},
	{"another tool's word", "version: 1\njobs: {}\nimages: {app: {build: .}}\n", "", []string{`2:1: unknown key "jobs"; images hold the work: each has a build and tests`}, form},
	{"bad name", "version: 1\nimages: {\"a b\": {build: .}, -c: {build: .}}\n", "", []string{
		`2:10: images: "a b" cannot be a name; use letters, digits, _ . and -, beginning with a letter or digit`,
		`2:29: images: "-c" cannot be a name; use letters, digits, _ . and -, beginning with a letter or digit`,
	}, form},
	{"environment twice", "environments: [a.yml, ./a.yml]\n", "build: .", []string{"5:23: environments: a.yml is given twice; keep one"}, meaning},

	// Images and builds.
	{"no build", "", "needs: []", []string{`4:5: images.app: "build" is missing: How it is built; text alone is the context.`}, form},
	{"image without a value", "version: 1\nimages:\n  app:\n", "", []string{"3:7: images.app: nothing where a map with the keys of image belongs; known: build, matrix, needs, paths, services, tests, when"}, form},
	{"env on an image", "", "build: .\nenvironment: {A: b}", []string{`5:5: images.app: unknown key "environment"; it belongs to a test, a service, or ENV in the Dockerfile`}, form},
	{"context outside", "", "build: ../other", []string{`4:12: images.app.build: "../other" is not a path in the repository; it leaves the repository; move what is needed below the pipeline file`}, meaning},
	{"context absolute", "", "build: {context: /src}", []string{`4:22: images.app.build.context: "/src" is not a path in the repository; it lies outside the repository; write a path relative to the pipeline file`}, form},
	{"context at home", "", "build: ~/src", []string{`4:12: images.app.build: "~/src" is not a path in the repository; it lies outside the repository; write a path relative to the pipeline file`}, form},
	{"context is an address", "", "build: https://example.com/a.git", []string{`4:12: images.app.build: "https://example.com/a.git" is not a path in the repository; a pipeline builds what is in its own repository; an address cannot stand here`}, meaning},
	{"Dockerfile outside", "", "build: {context: a, dockerfile: ../../Dockerfile}", []string{`4:37: images.app.build.dockerfile: "../../Dockerfile" is not a path in the repository; it leaves the repository; move what is needed below the pipeline file`}, meaning},
	{"build is a list", "", "build: [.]", []string{"4:12: images.app.build: a list where a map with the keys of build belongs; known: additional_contexts, args, cache, context, dockerfile, labels, platforms, secrets, ssh, target"}, form},
	{"argument from the machine", "", "build: {args: {VERSION: }}", []string{"4:29: images.app.build.args: VERSION has no value; slipway passes nothing on from the machine it runs on, so that a commit means the same everywhere; write a value (\"\" for empty), or use secrets"}, form},
	{"platform", "", "build: {platforms: [arm64]}", []string{`4:25: images.app.build.platforms: "arm64" is not a platform; write os/architecture, such as linux/amd64 or linux/arm64`}, form},
	{"no_cache", "", "build: {no_cache: true}", []string{`4:13: images.app.build: unknown key "no_cache"; write cache: false`}, form},
	{"cache as text", "", "build: {cache: \"no\"}", []string{`4:20: images.app.build.cache: the text "no" where a boolean belongs`}, form},
	{"entitlements", "", "build: {privileged: true}", []string{`4:13: images.app.build: unknown key "privileged"; a sandbox gives no privileges, and no key asks for them`}, form},
	{"context of another kind", "", "build: {additional_contexts: {a: \"docker-image://UPPER case\", b: /abs, c: \"image:nope\", d: \"image:app\", e: \"image:app:/x\"}}", []string{
		`4:38: images.app.build.additional_contexts.a: "UPPER case" is not an image reference`,
		`4:70: images.app.build.additional_contexts.b: "/abs" is not image:NAME, docker-image://REFERENCE or a path in the repository; it lies outside the repository; write a path relative to the pipeline file`,
		`4:79: images.app.build.additional_contexts.c: no image "nope" in this pipeline; known: app`,
		`4:96: images.app.build.additional_contexts.d: app would be built from itself`,
		`4:112: images.app.build.additional_contexts.e: "image:app:/x": a context is a whole image; write image:app`,
	}, meaning},
	{"needs nothing known", "", "build: .\nneeds: [app, bse]", []string{"5:13: images.app.needs: app needs itself", `5:18: images.app.needs: no image "bse" in this pipeline; known: app`}, meaning},
	{"expression in a name", "", "build: .\nneeds: [\"${{ matrix.a }}\"]", []string{"5:14: images.app.needs: ${{ matrix.a }} cannot stand here: it shapes the plan itself, before any value is known"}, form},
	{"cycle", "version: 1\nimages:\n  a: {build: ., needs: [b]}\n  b: {build: ., needs: [c]}\n  c: {build: {additional_contexts: {x: \"image:a\"}}}\n", "", []string{"3:3: a cycle, so none can run first: a → b → c → a"}, meaning},

	// Tests.
	{"no command", "", "build: .\ntests: {unit: {}}", []string{`5:19: images.app.tests.unit: "command" is missing: What to run. Text runs in the image's /bin/sh; a list runs as it is.`}, form},
	{"empty command", "", "build: .\ntests: {a: {command: \" \"}, b: {command: []}, c: {command: 3}, d: {command: [[a]]}}", []string{
		`5:26: images.app.tests.a.command: " ": an empty command; write a list of words instead`,
		`5:45: images.app.tests.b.command: an empty command`,
		`5:63: images.app.tests.c.command: the number 3 where a command (text for /bin/sh, or a list of words) belongs`,
		`5:81: images.app.tests.d.command: a list where a string, number or boolean belongs`,
	}, form},
	{"script", "", "build: .\ntests: {unit: {script: make}}", []string{
		`5:19: images.app.tests.unit: "command" is missing: What to run. Text runs in the image's /bin/sh; a list runs as it is.`,
		`5:20: images.app.tests.unit: unknown key "script"; write command`,
	}, form},
	{"privileges", "", "build: .\ntests: {unit: {command: a, privileged: true, cap_add: [SYS_ADMIN], devices: [/dev/kvm], network_mode: host}}", []string{
		`5:32: images.app.tests.unit: unknown key "privileged"; a sandbox gives no privileges, and no key asks for them`,
		`5:50: images.app.tests.unit: unknown key "cap_add"; a sandbox gives no privileges, and no key asks for them`,
		`5:72: images.app.tests.unit: unknown key "devices"; a sandbox gives no privileges, and no key asks for them`,
		`5:93: images.app.tests.unit: unknown key "network_mode"; a sandbox gives no privileges, and no key asks for them`,
	}, form},
	{"slips in a test", "", "build: .\ntests: {unit: {command: a, timout: 5m, enviroment: {A: b}, workingDir: /}}", []string{
		`5:32: images.app.tests.unit: unknown key "timout"; did you mean "timeout"?`,
		`5:44: images.app.tests.unit: unknown key "enviroment"; did you mean "environment"?`,
		`5:64: images.app.tests.unit: unknown key "workingDir"; did you mean "working_dir"?`,
	}, form},
	{"durations", "", "build: .\ntests: {a: {command: x, timeout: 5}, b: {command: x, timeout: 5 min}, c: {command: x, timeout: -5m}, d: {command: x, timeout: 999999999h}}", []string{
		`5:38: images.app.tests.a.timeout: "5" is not a duration; write numbers with units us, ms, s, m, h, such as 500ms, 90s or 1h30m`,
		`5:67: images.app.tests.b.timeout: "5 min" is not a duration; write numbers with units us, ms, s, m, h, such as 500ms, 90s or 1h30m`,
		`5:100: images.app.tests.c.timeout: "-5m" is not a duration; write numbers with units us, ms, s, m, h, such as 500ms, 90s or 1h30m`,
		`5:131: images.app.tests.d.timeout: "999999999h" is not a duration; it must be more than nothing and less than 290 years`,
	}, form},
	{"no time at all", "", "build: .\ntests: {a: {command: x, timeout: 0s}}", []string{`5:38: images.app.tests.a.timeout: "0s" is not a duration; it must be more than nothing and less than 290 years`}, meaning},
	{"resources", "", "build: .\ntests: {a: {command: x, resources: {memory: 512, cpus: 0, pids: -1, disk: 10X}}, b: {command: x, mem_limit: 1g, resources: {cpus: many, memory: 1k}}}", []string{
		`5:49: images.app.tests.a.resources.memory: "512" is not a size; it is less than 1m; is a unit missing, as in 512m?`,
		`5:60: images.app.tests.a.resources.cpus: "0" is not a number of cores; write a number from 0.01 to 4096, such as 1.5`,
		`5:69: images.app.tests.a.resources.pids: "-1" is not a whole number; write one from 1 to 4194304`,
		`5:79: images.app.tests.a.resources.disk: "10X" is not a size; write a number and k, m, g or t (of 1024), such as 512m or 1.5g`,
		`5:102: images.app.tests.b: unknown key "mem_limit"; write resources: {memory: ...}`,
		`5:135: images.app.tests.b.resources.cpus: "many" is not a number of cores; write a number from 0.01 to 4096, such as 1.5`,
		`5:149: images.app.tests.b.resources.memory: "1k" is not a size; it is less than 1m; is a unit missing, as in 512m?`,
	}, form},
	{"retry", "", "build: .\ntests: {a: {command: x, retry: 11}, b: {command: x, retry: \"1\"}, c: {command: x, retry: yes}}", []string{
		`5:36: images.app.tests.a.retry: "11" is not a whole number; write one from 0 to 10`,
		`5:64: images.app.tests.b.retry: the text "1" where a whole number belongs`,
		`5:93: images.app.tests.c.retry: the text "yes" where a whole number belongs`,
	}, form},
	{"network", "", "build: .\ntests: {a: {command: x, network: nnoe}}", []string{`5:38: images.app.tests.a.network: "nnoe" is not a reach; write none, services, internet, did you mean "none"?`}, form},
	{"network none with services", "services: {db: {image: redis}}\n", "build: .\ntests: {a: {command: x, network: none, services: [db]}}", []string{"5:54: images.app.tests.a.services: a test with network: none reaches no service; leave network out"}, meaning},
	{"report elsewhere", "", "build: .\ntests: {a: {command: x, reports: {junit: junit.xml}}, b: {command: x, reports: {junit: [/out/../etc/x, /out]}}}", []string{
		`5:46: images.app.tests.a.reports.junit: "junit.xml" is not a path under /out; only /out leaves the sandbox; have the test write to /out/…`,
		`5:93: images.app.tests.b.reports.junit: "/out/../etc/x" is not a path under /out; only /out leaves the sandbox; have the test write to /out/…`,
		`5:108: images.app.tests.b.reports.junit: "/out" is not a path under /out; only /out leaves the sandbox; have the test write to /out/…`,
	}, form},
	{"variables", "", "build: .\ntests: {a: {command: x, environment: [A=1, HOME, =x, A=2, 3]}, b: {command: x, environment: {A: }}, c: {command: x, environment: A=b}, d: {command: x, environment: {A: [b]}}}", []string{
		`5:48: images.app.tests.a.environment: HOME has no value; slipway passes nothing on from the machine it runs on, so that a commit means the same everywhere; write a value ("" for empty), or use secrets`,
		`5:54: images.app.tests.a.environment: "=x" has no name before the =`,
		`5:58: images.app.tests.a.environment: A is given twice; keep one`,
		`5:63: images.app.tests.a.environment: the number 3 where KEY=VALUE belongs`,
		`5:101: images.app.tests.b.environment: A has no value; slipway passes nothing on from the machine it runs on, so that a commit means the same everywhere; write a value ("" for empty), or use secrets`,
		`5:134: images.app.tests.c.environment: the text "A=b" where a map or a list of KEY=VALUE belongs`,
		`5:173: images.app.tests.d.environment.A: a list where a string, number or boolean belongs`,
	}, form},
	{"volumes", "volumes: {data: {}}\n", "build: .\ntests: {a: {command: x, volumes: [\"/host:/x\", \"./../x:/x\", \"src/x:/x\", \"/x\", \"dta:/d\", \"./a:b\", \"./a:/proc\", \"./a:/b:z\", \"./a:/out\", \"./a:/dev/shm\", \"data:/d\", \"./c:/d/\", {type: bind}]}}", []string{
		`5:176: images.app.tests.a.volumes: volumes have the short form here: ./directory:/target[:ro|rw] or name:/target`,
	}, form},
	{"volumes, short", "volumes: {data: {}}\n", "build: .\ntests:\n  a:\n    command: x\n    volumes:\n    - /host:/x\n    - ./../x:/x\n    - src/x:/x\n    - /x\n    - dta:/q\n    - ./a:b\n    - ./a:/proc\n    - ./a:/b:z\n    - ./a:/out\n    - ./a:/dev/shm\n    - data:/d\n    - ./c:/d/", []string{
		`9:11: images.app.tests.a.volumes: "/host:/x" is not a volume (./src:/dst[:ro|rw] or name:/dst); it lies outside the repository; write a path relative to the pipeline file`,
		`10:11: images.app.tests.a.volumes: "./../x:/x" is not a volume (./src:/dst[:ro|rw] or name:/dst); it leaves the repository; move what is needed below the pipeline file`,
		`11:11: images.app.tests.a.volumes: "src/x:/x" is not a volume (./src:/dst[:ro|rw] or name:/dst); a directory begins with "./"; a volume's name has no slash`,
		`12:11: images.app.tests.a.volumes: "/x" is not a volume (./src:/dst[:ro|rw] or name:/dst); write ./directory:/target or name:/target; a volume without a name would hold nothing`,
		`13:11: images.app.tests.a.volumes: no volume "dta" in this pipeline; did you mean "data"?`,
		`14:11: images.app.tests.a.volumes: "./a:b" is not a volume (./src:/dst[:ro|rw] or name:/dst); the target must begin with /`,
		`15:11: images.app.tests.a.volumes: "./a:/proc" is not a volume (./src:/dst[:ro|rw] or name:/dst); the sandbox itself keeps /proc; choose another target`,
		`16:11: images.app.tests.a.volumes: "./a:/b:z" is not a volume (./src:/dst[:ro|rw] or name:/dst); after the target comes ro or rw`,
		`17:11: images.app.tests.a.volumes: "./a:/out" is not a volume (./src:/dst[:ro|rw] or name:/dst); the sandbox itself keeps /out; choose another target`,
		`18:11: images.app.tests.a.volumes: "./a:/dev/shm" is not a volume (./src:/dst[:ro|rw] or name:/dst); the sandbox itself keeps /dev/shm; choose another target`,
		`20:11: images.app.tests.a.volumes: /d is mounted twice; keep one`,
	}, form},
	{"tmpfs", "services: {db: {image: redis, volumes: [\"d:/data\"], tmpfs: /data}}\nvolumes: {d: {}}\n", "build: .\nservices: db\ntests:\n  a:\n    command: x\n    volumes: [\"./a:/a\"]\n    tmpfs:\n    - a\n    - /proc/x\n    - /t:size=64k\n    - /t:mode=9\n    - /t:uid=70000\n    - /t:suid\n    - /a\n    - /b\n    - /b:exec\n    - /out", []string{
		`11:11: images.app.tests.a.tmpfs: "a" is not a tmpfs (/path[:options]); it must begin with /`,
		`12:11: images.app.tests.a.tmpfs: "/proc/x" is not a tmpfs (/path[:options]); the sandbox itself keeps /proc/x; choose another path`,
		`13:11: images.app.tests.a.tmpfs: "/t:size=64k" is not a tmpfs (/path[:options]); size: it is less than 1m; is a unit missing, as in 512m?`,
		`14:11: images.app.tests.a.tmpfs: "/t:mode=9" is not a tmpfs (/path[:options]); mode: write a number up to 7777`,
		`15:11: images.app.tests.a.tmpfs: "/t:uid=70000" is not a tmpfs (/path[:options]); uid: write a number up to 65535`,
		`16:11: images.app.tests.a.tmpfs: "/t:suid" is not a tmpfs (/path[:options]); the options are size, mode, uid, gid and exec; "suid" is none of them`,
		`17:11: images.app.tests.a.tmpfs: /a is a volume already; keep one`,
		`19:11: images.app.tests.a.tmpfs: /b is mounted twice; keep one`,
		`20:11: images.app.tests.a.tmpfs: "/out" is not a tmpfs (/path[:options]); the sandbox itself keeps /out; choose another path`,
		`21:60: services.db.tmpfs: /data is a volume already; keep one`,
	}, form},
	{"test needs", "", "build: .\ntests: {a: {command: x, needs: [b, a, app, c]}, bb: {command: x}}", []string{
		`5:37: images.app.tests.a.needs: no test "b" in image app; known: a, bb`,
		`5:40: images.app.tests.a.needs: a needs itself`,
		`5:43: images.app.tests.a.needs: app is an image; a test needs other tests of its image, and its image is always built before`,
		`5:48: images.app.tests.a.needs: no test "c" in image app; known: a, bb`,
	}, meaning},
	{"cycle of tests", "", "build: .\ntests: {a: {command: x, needs: b}, b: {command: x, needs: a}}", []string{"5:13: a cycle, so none can run first: app/a → app/b → app/a"}, meaning},
	{"user", "", "build: .\ntests: {a: {command: x, user: }, b: {command: x, user: [a]}}", []string{
		"5:35: images.app.tests.a.user: nothing where a string, number or boolean belongs",
		"5:60: images.app.tests.b.user: a list where a string, number or boolean belongs",
	}, form},

	// Expressions.
	{"expressions", "", `build: {target: "${{ github.ref }}", args: ["A=${{ secrets.TOKEN }}", "B=${{ evnt.ref }}", "C=${{ event.reff }}", "D=${{ matrix.a }}", "E=${{ 1 + 2 }}", "F=${{ open"]}`, []string{
		`4:22: images.app.build.target: "github" is not known here; expressions see matrix and event only`,
		`4:52: images.app.build.args: secrets are never text of the pipeline; list the name under secrets and read it in the test`,
		`4:78: images.app.build.args: "evnt" is not known here; expressions see matrix and event only; did you mean "event"?`,
		`4:99: images.app.build.args: event has no "reff"; did you mean "ref"?`,
		`4:122: images.app.build.args: matrix.a has no value: app has no matrix; give its image one with that key`,
		`4:143: images.app.build.args: ${{ 1 + 2 }} is not an expression; write ${{ matrix.NAME }} or ${{ event.ref|commit|branch|tag|kind }}`,
		`4:161: images.app.build.args: "${{ open" has no "}}"; close the expression, or write $${{ for the text itself`,
	}, meaning},
	{"empty expression", "", "build: {target: \"${{}}\"}", []string{`4:22: images.app.build.target: ${{}} is not an expression; write ${{ matrix.NAME }} or ${{ event.ref|commit|branch|tag|kind }}`}, meaning},
	{"expression in a block", "", "build: .\ntests:\n  a:\n    command: |\n      first\n      second ${{ matrix.x }}", []string{`9:18: images.app.tests.a.command: matrix.x has no value: app has no matrix; give its image one with that key`}, meaning},
	{"matrix key", "", "build: {target: \"${{ matrix.pyhton }}\"}\nmatrix: {python: [a]}", []string{`4:22: images.app.build.target: matrix.pyhton has no value in app[python=a]; did you mean "python"?`}, meaning},
	{"value of a matrix", "", "build: .\nmatrix: {n: [1, two]}\ntests: {a: {command: x, retry: \"${{ matrix.n }}\"}}", []string{`6:36: images.app.tests.a.retry: "two" is not a whole number; write one from 0 to 10`}, meaning},

	// Matrices.
	{"matrix shapes", "", "build: .\nmatrix: {a: [], b: x, c: [x, x], d: [[x]], e: [\"a,b\"], \"1x\": [a], include: {a: b}}", []string{
		"5:17: images.app.matrix.a: an empty list; give at least one item",
		`5:24: images.app.matrix.b: the text "x" where a list belongs`,
		`5:34: images.app.matrix.c: "x" is given twice; keep one`,
		"5:42: images.app.matrix.d: a list where a matrix value belongs",
		`5:52: images.app.matrix.e: "a,b" is not a matrix value; it names tasks: write 1 to 128 characters, without [ ] , and line ends`,
		`5:60: images.app.matrix: "1x" cannot be a matrix key; use letters, digits, _ and -`,
		"5:80: images.app.matrix.include: a map where a list belongs",
	}, form},
	{"matrix is empty", "", "build: .\nmatrix: {}", []string{"5:13: images.app.matrix: a map where a map from names to lists of values belongs"}, form},
	{"exclude slips", "", "build: .\nmatrix: {python: [\"2.7\", \"3.12\"], exclude: [{python: \"3.13\"}, {pyton: \"2.7\"}]}", []string{
		`5:49: images.app.matrix: python has no value "3.13" to exclude; did you mean "3.12"?`,
		`5:67: images.app.matrix: exclude names "pyton", which is no list of this matrix; did you mean "python"?`,
	}, meaning},
	{"all excluded", "", "build: .\nmatrix: {python: [\"2.7\"], exclude: [{python: \"2.7\"}]}", []string{"5:13: images.app.matrix: no combination is left; exclude less, or drop the matrix"}, meaning},
	{"many combinations", "", "build: .\nmatrix: {a: [1,2,3,4,5,6,7,8], b: [1,2,3,4,5,6,7,8], c: [1,2,3,4,5]}", []string{"5:13: images.app.matrix: more than 256 combinations; split the image"}, meaning},
	{"no variant fits", "version: 1\nimages:\n  base: {build: ., matrix: {py: [2, 3]}}\n  app: {build: ., matrix: {py: [3, 4]}, needs: base}\n", "", []string{"4:48: images.app.needs: app[py=4] needs base, and no base has the same values of the matrix keys they share"}, meaning},
	{"image means several", "version: 1\nimages:\n  base: {build: ., matrix: {py: [2, 3]}}\n  app: {build: {additional_contexts: {b: \"image:base\", c: \"image:base[py=4]\"}}}\n", "", []string{
		"4:42: images.app.build.additional_contexts.b: image:base means several images here; write one of image:base[py=2], image:base[py=3]",
		"4:59: images.app.build.additional_contexts.c: no image base[py=4] goes with an image without a matrix; there are image:base[py=2], image:base[py=3]",
	}, meaning},

	// When.
	{"when", "when: {branches: [main], push: {branches: []}, pull_request: {forks: maybe}, paths: [\"!a\"]}\n", "build: .", []string{
		`5:8: when: unknown key "branches"; it belongs under push or pull_request`,
		`5:70: when.pull_request.forks: "maybe" is not an answer to forks; write hold, allow, deny`,
		`5:85: when.paths: the first glob takes away and nothing is in yet; begin with "**"`,
	}, form},
	{"globs", "when: {push: {branches: [\"[a\", \"!\", \"\"]}}\n", "build: .", []string{
		`5:26: when.push.branches: "[a" is not a glob; its brackets do not close; write [a-z], or \[ for the character`,
		`5:32: when.push.branches: "!" is not a glob; write a pattern such as main, v* or api/**`,
		`5:37: when.push.branches: "" is not a glob; write a pattern such as main, v* or api/**`,
	}, form},

	// Services and volumes.
	{"unknown service", "services: {db: {image: redis}, cache: {image: redis}}\n", "build: .\nservices: [bd]\ntests: {a: {command: x}, b: {command: x, services: [cahce]}}", []string{
		`5:16: images.app.services: no service "bd" in this pipeline; did you mean "db"?`,
		`6:57: images.app.tests.b.services: no service "cahce" in this pipeline; did you mean "cache"?`,
	}, meaning},
	{"service keys", "services: {db: {build: ., ports: [\"80:80\"], privileged: true, restart: always}}\n", "build: .", []string{
		`5:16: services.db: "image" is missing: Reference, or ` + "`image:NAME`" + ` of this pipeline.`,
		`5:17: services.db: unknown key "build"; build it under images and write image: image:NAME`,
		`5:27: services.db: unknown key "ports"; tests reach a service by its name; no port is published`,
		`5:45: services.db: unknown key "privileged"; a sandbox gives no privileges, and no key asks for them`,
		`5:63: services.db: unknown key "restart"; a service that ends is a failure`,
	}, form},
	{"healthchecks", "services:\n  a: {image: a, healthcheck: {test: [curl, x]}}\n  b: {image: a, healthcheck: {test: [NONE, x], interval: 5}}\n  c: {image: a, healthcheck: {disable: true, test: [CMD, x]}}\n  d: {image: a, healthcheck: {test: []}}\n", "build: .", []string{
		"6:37: services.a.healthcheck.test: begin with CMD and its words, with CMD-SHELL and one text, or write [NONE]",
		"7:37: services.b.healthcheck.test: begin with CMD and its words, with CMD-SHELL and one text, or write [NONE]",
		`7:58: services.b.healthcheck.interval: "5" is not a duration; write numbers with units us, ms, s, m, h, such as 500ms, 90s or 1h30m`,
		"8:30: services.c.healthcheck: disable and test are both given; keep one",
		"9:37: services.d.healthcheck.test: an empty list; give at least one item",
	}, form},
	{"depends_on", "services:\n  a: {image: a, depends_on: [bb]}\n  b: {image: a, depends_on: {c: {condition: healthy}, a: {}}}\n  c: {image: a, depends_on: [b]}\n", "build: .", []string{
		`6:30: services.a.depends_on: no service "bb" in this pipeline; did you mean "b"?`,
		"7:3: services: a cycle, so none can start first: b → c → b",
		`7:45: services.b.depends_on.c.condition: "healthy" is not a condition; write service_started, service_healthy, service_completed_successfully`,
		`7:58: services.b.depends_on.a: "condition" is missing: service_started, service_healthy or service_completed_successfully.`,
	}, form},
	{"command of a service", "services: {a: {image: a, command: \"sh 'open\"}}\n", "build: .", []string{`5:35: services.a.command: "sh 'open": a quote or backslash is left open; write a list of words instead`}, meaning},
	{"service of an image", "services: {a: {image: \"image:ap\"}, b: {image: \"a b\"}}\n", "build: .\nservices: [a]\ntests: {t: {command: x}}", []string{
		`7:23: services.a.image: no image "ap" in this pipeline; did you mean "app"?`,
		`7:47: services.b.image: "a b" is not an image reference; write one such as mysql:8.4, registry.example/team/db@sha256:…, or image:NAME of this pipeline`,
	}, meaning},
	{"service needs a matrix", "services: {a: {image: \"a:${{ matrix.v }}\"}}\n", "build: .\nservices: [a]\ntests: {t: {command: x}}", []string{
		"7:26: services.a.image: matrix.v has no value: app has no matrix; give its image one with that key",
	}, meaning},
	{"volume sources", "volumes: {a: {from: data}, b: {from: ../x}, c: {from: \"image:app\"}, d: {from: \"oci://r.example/a:1\"}, e: x, f: {driver: local}, g: {from: \"image:nope:/x\"}}\n", "build: .\ntests: {t: {command: x, volumes: [\"g:/g\"]}}", []string{
		`6:21: volumes.a.from: "data" is not a source of a volume; write ./directory, image:NAME:/path or oci://REGISTRY/NAME@sha256:…`,
		`6:38: volumes.b.from: "../x" is not a source of a volume; it leaves the repository; move what is needed below the pipeline file`,
		`6:55: volumes.c.from: "image:app" is not a source of a volume; the path in the image is missing: image:app:/path`,
		`6:79: volumes.d.from: "oci://r.example/a:1" is not a source of a volume; name it by digest: a tag can move, and the same commit would test other data`,
		`6:106: volumes.e: the text "x" where a map with the keys of volume belongs; known: from`,
		`6:113: volumes.f: unknown key "driver"; volumes are slipway's own snapshots`,
		`6:139: volumes.g.from: no image "nope" in this pipeline; known: app`,
	}, form},
}

func TestWrongFiles(t *testing.T) {
	for _, w := range wrongFiles {
		t.Run(w.name, func(t *testing.T) {
			_, err := pipeline.Parse(".ci.yml", []byte(w.text()))
			var got pipeline.Errors
			if !errors.As(err, &got) {
				t.Fatalf("got %v, want Errors", err)
			}
			want := ".ci.yml:" + strings.Join(w.want, "\n.ci.yml:")
			if err.Error() != want {
				t.Errorf("got\n%s\nwant\n%s\nof\n%s", err, want, w.text())
			}
		})
	}
}
