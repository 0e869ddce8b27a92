package pipeline

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

const tmpfsDoc = "Directories kept in memory, which counts for the memory limit: `/path` or `/path:size=64m,mode=755,uid=1000,gid=1000,exec`. Default: mode 1777, no exec."

var tmpfsShort = scalar(shape{kind: "string", says: "tmpfs (/path[:options])", pattern: `^/`}, isText, parseTmpfs)

// parseTmpfs reads Compose's short form. Its options are mount's, less those
// that a sandbox decides.
func parseTmpfs(text string) (t Tmpfs, problem string) {
	target, options, _ := strings.Cut(text, ":")
	if !path.IsAbs(target) || strings.ContainsRune(target, 0) {
		return t, "it must begin with /"
	}
	t.Target = path.Clean(target)
	if t.Target != "/dev/shm" && reserved(t.Target) {
		return t, "the sandbox itself keeps " + t.Target + "; choose another path"
	}
	for option := range strings.SplitSeq(options, ",") {
		if problem := t.option(strings.TrimSpace(option)); problem != "" {
			return Tmpfs{}, problem
		}
	}
	return t, ""
}

func (t *Tmpfs) option(text string) (problem string) {
	key, value, _ := strings.Cut(text, "=")
	switch {
	case text == "", slices.Contains([]string{"rw", "noexec", "nosuid", "nodev"}, text): // as it is anyway
		return ""
	case text == "exec":
		t.Exec = true
		return ""
	case key == "size":
		t.Size, problem = parseSize(value)
	case key == "mode":
		t.Mode, problem = number(value, 8, 0o7777)
	case key == "uid":
		t.UID, problem = number(value, 10, maxID)
	case key == "gid":
		t.GID, problem = number(value, 10, maxID)
	default:
		return "the options are size, mode, uid, gid and exec; " + strconv.Quote(shorten(text)) + " is none of them"
	}
	if problem != "" {
		problem = key + ": " + problem
	}
	return problem
}

// maxID is the last user or group that a sandbox has.
const maxID = 65535

func number(text string, base int, most uint64) (uint32, string) {
	n, err := strconv.ParseUint(text, base, 32)
	if err != nil || n > most {
		return 0, "write a number up to " + strconv.FormatUint(most, base)
	}
	return uint32(n), ""
}

// tmpfs is one or more, with no path twice.
var tmpfs = codec[[]Tmpfs]{oneOrMore(tmpfsShort).shape, func(d *decoder, n *node) []Tmpfs {
	all := oneOrMore(tmpfsShort).decode(d, n)
	seen := map[string]bool{}
	for i, t := range all {
		if t.Target != "" && seen[t.Target] {
			d.report(n.items[i].at, "%s is mounted twice; keep one", t.Target)
		}
		seen[t.Target] = true
	}
	return all
}}

// mountedTwice reports a path that n makes both a volume and a tmpfs.
func mountedTwice(d *decoder, n *node, mounts []Volume, memory []Tmpfs) {
	for i, t := range memory {
		if t.Target == "" || !slices.ContainsFunc(mounts, func(v Volume) bool { return v.Target == t.Target }) {
			continue
		}
		at := n.get("tmpfs").orAt(n)
		if at.kind == listNode && i < len(at.items) {
			at = at.items[i]
		}
		d.under("tmpfs").report(at.at, "%s is a volume already; keep one", t.Target)
	}
}
