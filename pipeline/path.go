package pipeline

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// insidePath cleans a slash-separated path and says why it may not be used.
func insidePath(text string) (clean, problem string) {
	switch {
	case text == "":
		return "", `write a path, "." for the pipeline's own directory`
	case strings.ContainsAny(text, "\\\x00"):
		return "", "paths have forward slashes"
	case strings.Contains(text, "://") || strings.HasPrefix(text, "git@"):
		return "", "a pipeline builds what is in its own repository; an address cannot stand here"
	case path.IsAbs(text) || strings.HasPrefix(text, "~"):
		return "", "it lies outside the repository; write a path relative to the pipeline file"
	}
	clean = path.Clean(text)
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", "it leaves the repository; move what is needed below the pipeline file"
	}
	return clean, ""
}

// repositoryPath is a path inside the repository, relative to the pipeline file.
var repositoryPath = scalar(shape{kind: "string", says: "path in the repository", pattern: `^[^/~\\]`}, isText, insidePath)

// sandboxPath is an absolute path inside a sandbox.
var sandboxPath = scalar(shape{kind: "string", says: "path in the sandbox", pattern: `^/`}, isText, func(text string) (string, string) {
	if !path.IsAbs(text) || strings.ContainsRune(text, 0) {
		return "", "it must begin with /"
	}
	return path.Clean(text), ""
})

// reportPath lies under /out, the one directory that leaves the sandbox.
var reportPath = scalar(shape{kind: "string", says: "path under /out", pattern: `^/out/.`}, isText, func(text string) (string, string) {
	clean := path.Clean(text)
	if !strings.HasPrefix(clean, "/out/") {
		return "", "only /out leaves the sandbox; have the test write to /out/…"
	}
	if _, err := path.Match(clean, ""); err != nil {
		return "", "its brackets do not close"
	}
	return clean, ""
})

// volumeShort is Compose's short form of a mount.
var volumeShort = scalar(shape{kind: "string", says: "volume (./src:/dst[:ro|rw] or name:/dst)", pattern: `^[^:]+:/[^:]*(:(ro|rw))?$`}, isText, parseVolume)

var reservedTargets = []string{"/", "/proc", "/sys", "/dev", "/out"}

// reserved paths are the sandbox's own.
func reserved(target string) bool {
	return slices.Contains(reservedTargets, target) || reservedBelow.MatchString(target)
}

func parseVolume(text string) (v Volume, problem string) {
	source, rest, found := strings.Cut(text, ":")
	if !found {
		return v, "write ./directory:/target or name:/target; a volume without a name would hold nothing"
	}
	target, mode, withMode := strings.Cut(rest, ":")
	if !path.IsAbs(target) {
		return v, "the target must begin with /"
	}
	v.Target = path.Clean(target)
	if reserved(v.Target) {
		return v, "the sandbox itself keeps " + v.Target + "; choose another target"
	}
	bind := !nameRegexp.MatchString(source)
	v.Source, v.ReadOnly = source, bind
	if bind {
		if !strings.HasPrefix(source, ".") && source != "" && !strings.HasPrefix(source, "/") && !strings.HasPrefix(source, "~") {
			return v, `a directory begins with "./"; a volume's name has no slash`
		}
		clean, problem := insidePath(source)
		if problem != "" {
			return v, problem
		}
		v.Source = "./" + clean
	}
	switch {
	case !withMode:
	case mode == "ro":
		v.ReadOnly = true
	case mode == "rw":
		v.ReadOnly = false
	default:
		return v, "after the target comes ro or rw"
	}
	return v, ""
}

var reservedBelow = regexp.MustCompile(`^/(proc|sys|dev)/`)

// volumes is a list of mounts with no target twice.
var volumes = codec[[]Volume]{list(volumeShort, 0).shape, func(d *decoder, n *node) []Volume {
	if n.kind == listNode {
		for _, item := range n.items {
			if item.kind == mapNode {
				d.report(item.at, "volumes have the short form here: ./directory:/target[:ro|rw] or name:/target")
				return nil
			}
		}
	}
	mounts := list(volumeShort, 0).decode(d, n)
	seen := map[string]bool{}
	for i, v := range mounts {
		if v.Target != "" && seen[v.Target] {
			d.report(n.items[i].at, "%s is mounted twice; keep one", v.Target)
		}
		seen[v.Target] = true
	}
	return mounts
}}
