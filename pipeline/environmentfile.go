package pipeline

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// The tables below are an environment file: environments/prod.yml.

// environmentFile is an environment as written.
type environmentFile struct {
	Environment
	version int
	images  []entry[EnvironmentImage]
	secrets []entry[Secret]
}

func (f environmentFile) environment() *Environment {
	e := f.Environment
	if len(f.images) > 0 {
		e.Images = make(map[string]EnvironmentImage, len(f.images))
	}
	for _, i := range f.images {
		e.Images[i.name] = i.value
	}
	if len(f.secrets) > 0 {
		e.Secrets = make(map[string]Secret, len(f.secrets))
	}
	for _, s := range f.secrets {
		e.Secrets[s.name] = s.value
	}
	return &e
}

// checkEnvironment reports what one value alone does not show.
func checkEnvironment(d *decoder, root *node, f environmentFile) {
	if f.Name != "" && slices.Contains(f.From, f.Name) {
		d.under("from").report(root.get("from").at, "%s cannot come from itself", f.Name)
	}
	for _, test := range f.Gates.Tests {
		image, _, one := strings.Cut(test, "/")
		if one && !slices.ContainsFunc(f.images, func(e entry[EnvironmentImage]) bool { return e.name == image }) {
			d.under("gates").under("tests").report(root.get("gates").get("tests").at, "%s: the environment has no image %s", test, image)
		}
	}
	for _, s := range f.secrets {
		if _, plain := f.Environment.Environment[s.name]; plain {
			d.under("secrets").report(s.at, "%s stands under environment too; keep one", s.name)
		}
	}
}

var environmentCodec = object("environment", "What runs in one place, and what an image must prove to run there.", nil, map[string]string{
	"env": "write environment", "variables": "write environment", "services": "they belong to the pipeline's tests", "replicas": "it belongs to deliver",
},
	at("version", versionCodec, "The version of this format: 1.", func(f *environmentFile) *int { return &f.version }).must(),
	at("name", nameCodec, "The environment's name.", func(f *environmentFile) *string { return &f.Name }).must(),
	at("source", sourceCodec, "Which pipeline makes its images. `slipway env init` fills it in.", func(f *environmentFile) *Source { return &f.Source }),
	at("from", oneOrMore(nameCodec), "Environments that images come from.", func(f *environmentFile) *[]string { return &f.From }),
	at("images", named(environmentImage, 0), "The images that run here, by their name in the pipeline.", func(f *environmentFile) *[]entry[EnvironmentImage] { return &f.images }),
	at("environment", keyValues, "Configuration: the same image, other plugs.", func(f *environmentFile) *map[string]string { return &f.Environment.Environment }),
	at("secrets", named(secretCodec, 0), "Where secrets are found, by variable. Never their values.", func(f *environmentFile) *[]entry[Secret] { return &f.secrets }),
	at("gates", gatesCodec, "What an image must pass.", func(f *environmentFile) *Gates { return &f.Gates }),
	at("auto", pointer(autoCodec), "Promote by itself after a green run.", func(f *environmentFile) **Auto { return &f.Auto }),
	at("deliver", deliverCodec, "How the images get here: exactly one of local, compose, swarm, git, kubernetes.", func(f *environmentFile) *Deliver { return &f.Deliver }),
	at("verify", pointer(verifyCodec), "A check after delivery.", func(f *environmentFile) **Verify { return &f.Verify }),
)

var sourceCodec = object("source", "Which pipeline makes an environment's images.", func() Source { return Source{Pipeline: ".ci.yml"} }, map[string]string{
	"url": "write repository", "branch": "it belongs to gates", "path": "write pipeline, with the file's name", "file": "write pipeline",
},
	at("repository", textCodec, "Where it is cloned from, without credentials; a directory begins with file://.", func(s *Source) *string { return &s.Repository }).must(),
	at("pipeline", repositoryPath, "The pipeline file in it. Default: `.ci.yml`.", func(s *Source) *string { return &s.Pipeline }),
)

var environmentImage = object("environment image", "One image of an environment.", nil, map[string]string{
	"tag": "a tag can move; the digest is slipway's to write", "image": "write repository; the digest is slipway's to write", "build": "an environment runs what a pipeline has built",
},
	at("matrix", matrixChoice, "Which of the pipeline's combinations runs here.", func(i *EnvironmentImage) *map[string]string { return &i.Matrix }),
	at("repository", repository, "Where it is pushed to, without a tag.", func(i *EnvironmentImage) *string { return &i.Repository }),
	at("digest", imageDigest, "What runs here. slipway writes it.", func(i *EnvironmentImage) *digest.Digest { return &i.Digest }),
)

var matrixChoice = codec[map[string]string]{combinationCodec.shape, func(d *decoder, n *node) map[string]string {
	return combinationCodec.decode(d, n).value
}}

var repository = matching("repository", `^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+$`,
	"write registry.example.com/team/name, in small letters, without a tag")

var imageDigest = scalar(shape{kind: "string", says: "digest", pattern: `^sha256:[0-9a-f]{64}$`}, isText, func(text string) (digest.Digest, string) {
	d := digest.Digest(text)
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return "", "write sha256: and 64 hexadecimal digits, or leave it to slipway"
	}
	return d, ""
})

var secretObject = choice(object("secret", "Where one secret is found; exactly one key.", nil, map[string]string{
	"value": "a secret's value never stands in a file of the repository", "external": "write file, env, command or age", "vault": "write command", "from": "write file, env, command or age",
},
	at("file", textCodec, "A file on the machine that delivers.", func(s *Secret) *string { return &s.File }),
	at("env", textCodec, "A variable of the process that delivers.", func(s *Secret) *string { return &s.Env }),
	at("command", shellCommand, "A command that prints it.", func(s *Secret) *[]string { return &s.Command }),
	at("age", repositoryPath, "An age-encrypted file, relative to the environment file.", func(s *Secret) *string { return &s.Age }),
))

var secretCodec = codec[Secret]{secretObject.shape, func(d *decoder, n *node) Secret {
	if n.kind == scalarNode && !n.null() {
		d.report(n.at, "a secret's value never stands in a file of the repository; write {file: PATH}, {env: NAME}, {command: …} or {age: PATH}")
		return Secret{}
	}
	return secretObject.decode(d, n)
}}

var autoCodec = object("auto", "Promotion without a person.", nil, nil,
	at("branch", textCodec, "The branch whose green runs are promoted.", func(a *Auto) *string { return &a.Branch }).must(),
)

var verifyCodec = object("verify", "A check after delivery.", func() Verify { return Verify{Timeout: 2 * time.Minute, OnFailure: "rollback"} }, nil,
	at("command", shellCommand, "Must succeed within the timeout; it is tried until then.", func(v *Verify) *[]string { return &v.Command }).must(),
	at("timeout", duration, "How long it is tried. Default: 2m.", func(v *Verify) *time.Duration { return &v.Timeout }),
	at("on_failure", oneOf("answer to a failure", "rollback", "keep"), "rollback (default), or keep.", func(v *Verify) *string { return &v.OnFailure }),
)

var deliverCodec = choice(object("deliver", "How images get to the environment; exactly one key.", nil, map[string]string{
	"k8s": "write kubernetes", "docker": "write local or compose", "argocd": "write git; Argo CD follows the commit", "flux": "write git; Flux follows the commit",
}, deliverFields()...))

// deliverFields are the ways to deliver. Each takes a map whose keys the
// delivery itself checks.
func deliverFields() []field[Deliver] {
	var fields []field[Deliver]
	for _, kind := range [][2]string{
		{"local", "Containers on this machine, kept up by slipway."},
		{"compose", "A Compose project."},
		{"swarm", "A Swarm stack."},
		{"git", "The commit alone; Argo CD or Flux take over."},
		{"kubernetes", "A cluster."},
	} {
		fields = append(fields, field[Deliver]{
			fieldShape: fieldShape{key: kind[0], doc: kind[1], shape: anyMap.shape},
			decode: func(d *decoder, n *node, into *Deliver) {
				into.Kind, into.Config = kind[0], anyMap.decode(d, n)
			},
		})
	}
	return fields
}

// anyMap keeps a map as it is; nothing after the colon is an empty one.
var anyMap = codec[map[string]any]{
	&shape{kind: "either", says: "map", either: []*shape{{kind: "map", items: &shape{kind: "any"}}, {kind: "null"}}},
	func(d *decoder, n *node) map[string]any {
		if n.null() {
			return nil
		}
		if n.kind != mapNode {
			d.report(n.at, "%s where a map belongs", n.what())
			return nil
		}
		v, _ := d.plain(n).(map[string]any)
		return v
	},
}

// plain is n as Go values.
func (d *decoder) plain(n *node) any {
	if !d.spend(n) {
		return nil
	}
	switch n.kind {
	case mapNode:
		m := make(map[string]any, len(n.pairs))
		for _, p := range n.pairs {
			m[p.key] = d.under(p.key).plain(p.value)
		}
		return m
	case listNode:
		l := make([]any, 0, len(n.items))
		for _, item := range n.items {
			l = append(l, d.plain(item))
		}
		return l
	default:
		return d.plainScalar(n)
	}
}

func (d *decoder) plainScalar(n *node) any {
	text, _, known := d.text(n)
	if !known || n.null() {
		return nil
	}
	switch n.tag {
	case "!!bool":
		return strings.EqualFold(text, "true")
	case "!!int":
		if v, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 0, 64); err == nil {
			return v
		}
	case "!!float":
		if v, err := strconv.ParseFloat(text, 64); err == nil {
			return v
		}
	}
	return text
}
