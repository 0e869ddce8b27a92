package pipeline

import "time"

var gatesCodec = object("gates", "What an image must pass before it runs here.", nil, map[string]string{
	"reviewers": "write approvals", "approval": "write approvals", "signer": "write signers", "keys": "write signers", "wait": "write soak",
},
	at("branch", textCodec, "The commit that was tested must be on this branch.", func(g *Gates) *string { return &g.Branch }),
	at("signers", oneOrMore(repositoryPath), "Public keys whose attestations count, relative to the environment file.", func(g *Gates) *[]string { return &g.Signers }),
	at("tests", oneOrMore(gateTest), "Tests that must have passed on exactly the promoted image: `TEST` of every image, `IMAGE/TEST` of one.", func(g *Gates) *[]string { return &g.Tests }),
	at("evidence", oneOrMore(oneOf("kind of evidence", TestResult, Provenance)), "Attestations that must be there.", func(g *Gates) *[]Evidence { return &g.Evidence }),
	at("approvals", pointer(approvalsCodec), "People who must agree.", func(g *Gates) **Approvals { return &g.Approvals }),
	at("soak", duration, "How long it must have run where it comes from.", func(g *Gates) *time.Duration { return &g.Soak }),
	at("freeze", list(freezeCodec, 0), "Weekly times in which nothing is promoted.", func(g *Gates) *[]Freeze { return &g.Freeze }),
	at("flaky", oneOf("answer to flaky tests", FlakyDeny, FlakyAllow), "What a pass after a failure is worth: `deny` (default) or `allow`.", func(g *Gates) *Flaky { return &g.Flaky }),
)

var gateTest = matching("test", `^[a-zA-Z0-9][a-zA-Z0-9_.-]*(/[a-zA-Z0-9][a-zA-Z0-9_.-]*)?$`, "write the name of a test, or IMAGE/TEST for the test of one image")

var approvalsCodec = object("approvals", "People who must agree.", func() Approvals { return Approvals{Count: 1} }, nil,
	at("count", integer(1, 100), "How many. Default: 1.", func(a *Approvals) *int { return &a.Count }),
	at("from", oneOrMore(textCodec), "Who may approve: `NAME` is the public key NAME.pub beside the environment file, or each key in the directory NAME.", func(a *Approvals) *[]string { return &a.From }).must(),
	at("not", oneOf("person who does not count", "author"), "`author`: whoever wrote the commit does not count.", func(a *Approvals) *string { return &a.Not }),
)

const weekTimePattern = `^(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([01][0-9]|2[0-3]):[0-5][0-9]$`

var weekTime = matching("time of the week", weekTimePattern, "write a day and a time, such as Fri 17:00")

var freezeCodec = object("freeze", "A weekly time in which nothing is promoted.", func() Freeze { return Freeze{TZ: "UTC"} }, nil,
	at("start", weekTime, "From this time, such as `Fri 17:00`.", func(f *Freeze) *string { return &f.Start }).must(),
	at("end", weekTime, "To this time.", func(f *Freeze) *string { return &f.End }).must(),
	at("tz", matching("time zone", `^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$`, "write one of the time zone database, such as Europe/Berlin"),
		"Time zone. Default: UTC.", func(f *Freeze) *string { return &f.TZ }),
)
