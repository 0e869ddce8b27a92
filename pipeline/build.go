package pipeline

import (
	"path"
	"strings"
)

var buildObject = object("build", "How an image is built. Paths are relative to the pipeline file.", defaultBuild, map[string]string{
	"no_cache": "write cache: false", "cache_from": "layers are shared by themselves", "cache_to": "layers are shared by themselves",
	"tags": "an image is named by its digest", "network": "build steps reach the internet, never the host",
	"pull": "bases are looked up by digest", "extra_hosts": "build steps have no hosts of their own",
	"file": "write dockerfile", "dockerfile_inline": "write a Dockerfile", "contexts": "write additional_contexts",
	"entitlements": "build steps get no privileges, and no key asks for them", "shm_size": "write RUN --mount=type=tmpfs in the Dockerfile",
},
	at("context", repositoryPath, "The directory that COPY sees, without a `.git` in it. Default: the pipeline file's own.",
		func(b *Build) *string { return &b.Context }),
	at("dockerfile", dockerfilePath, "The Dockerfile, relative to the context. Default: Dockerfile.",
		func(b *Build) *string { return &b.Dockerfile }),
	at("target", textCodec, "The stage to build. Default: the last.",
		func(b *Build) *string { return &b.Target }),
	at("args", keyValues, "Values for the Dockerfile's ARG. Not for secrets: they stay readable in the image.",
		func(b *Build) *map[string]string { return &b.Args }),
	at("labels", keyValues, "Labels of the image.",
		func(b *Build) *map[string]string { return &b.Labels }),
	at("additional_contexts", additionalContexts, "More sources for FROM and COPY --from, by name: `image:NAME` of this pipeline, a directory, or `docker-image://REFERENCE`.",
		func(b *Build) *map[string]string { return &b.AdditionalContexts }),
	at("platforms", oneOrMore(platform), "Platforms to build for. Default: the machine's own.",
		func(b *Build) *[]string { return &b.Platforms }),
	at("secrets", oneOrMore(nameCodec), "Names of secrets that `RUN --mount=type=secret` may read.",
		func(b *Build) *[]string { return &b.Secrets }),
	at("ssh", oneOrMore(textCodec), "`default`, or `id=path`, for `RUN --mount=type=ssh`.",
		func(b *Build) *[]string { return &b.SSH }),
	at("cache", inverse(boolean), "`false` rebuilds every layer each time.",
		func(b *Build) *bool { return &b.NoCache }),
)

func defaultBuild() Build { return Build{Context: ".", Dockerfile: "Dockerfile"} }

// buildCodec takes the long form, or a context alone as Compose does.
var buildCodec = codec[Build]{
	&shape{kind: "either", says: "context, or build", either: []*shape{repositoryPath.shape, buildObject.shape}},
	func(d *decoder, n *node) Build {
		if n.kind == scalarNode && !n.null() {
			b := defaultBuild()
			b.Context = repositoryPath.decode(d, n)
			return b
		}
		b := buildObject.decode(d, n)
		if _, problem := insidePath(path.Join(b.Context, b.Dockerfile)); problem != "" && b.Context != "" && b.Dockerfile != "" {
			d.under("dockerfile").report(n.get("dockerfile").orAt(n).at, "%q is not a path in the repository; %s", b.Dockerfile, problem)
		}
		return b
	},
}

// orAt is n, or instead where there is no n.
func (n *node) orAt(instead *node) *node {
	if n == nil {
		return instead
	}
	return n
}

// dockerfilePath may climb out of the context; buildCodec keeps it in the repository.
var dockerfilePath = scalar(shape{kind: "string", says: "path from the context", pattern: `^[^/~\\]`}, isText, func(text string) (string, string) {
	if strings.HasPrefix(path.Clean(text), "../") {
		return path.Clean(text), ""
	}
	return insidePath(text)
})

const platformPattern = `^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$`

var platform = matching("platform", platformPattern, "write os/architecture, such as linux/amd64 or linux/arm64")

// imagePrefix names another image of the pipeline where a reference can stand.
const imagePrefix = "image:"

// additionalContexts cleans directories and leaves the rest as it is; that an
// image:NAME exists is checked when all images are known.
var additionalContexts = codec[map[string]string]{keyValues.shape, func(d *decoder, n *node) map[string]string {
	contexts := keyValues.decode(d, n)
	for name, source := range contexts {
		if source == "" || strings.HasPrefix(source, imagePrefix) {
			continue
		}
		at := n.at
		if v := n.get(name); v != nil {
			at = v.at
		}
		if reference, found := strings.CutPrefix(source, "docker-image://"); found {
			if !referenceRegexp().MatchString(reference) {
				d.under(name).report(at, "%q is not an image reference", shorten(reference))
			}
			continue
		}
		clean, problem := insidePath(source)
		if problem != "" {
			d.under(name).report(at, "%q is not image:NAME, docker-image://REFERENCE or a path in the repository; %s", shorten(source), problem)
		}
		contexts[name] = clean
	}
	return contexts
}}

// referencePattern is the grammar of github.com/distribution/reference, a little wider.
const referencePattern = `^[a-zA-Z0-9]([a-zA-Z0-9._:/\[\]-]*[a-zA-Z0-9])?(:[\w][\w.-]{0,127})?(@[a-z0-9+._-]+:[a-fA-F0-9]{32,})?$`

var referenceRegexp = lazily(referencePattern)
