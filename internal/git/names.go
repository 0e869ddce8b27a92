package git

import "strings"

// badName says what is wrong with a name in a directory of a commit; empty where
// nothing is. git refuses the same (verify_path, core.protectHFS and
// core.protectNTFS in git-config(1)): whoever checks such a commit out on another
// system would have git run what the name hides.
func badName(name string) string {
	switch {
	case name == "" || name == "." || name == "..":
		return "it is no name of a file"
	case strings.ContainsAny(name, "/\x00"):
		return "its name has a slash or a zero byte"
	case len(name) > 255:
		return "its name is longer than 255 bytes"
	case isDotGit(name):
		return "git keeps a repository under that name"
	}
	return ""
}

// isDotGit finds .git as file systems without case see it, as NTFS does (with
// what it ignores at the end, a stream, or by its short name), and as HFS+ does
// (with characters in it that it ignores).
func isDotGit(name string) bool {
	plain := strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	if strings.EqualFold(plain, ".git") {
		return true
	}
	first, _, _ := strings.Cut(name, ":")
	first, _, _ = strings.Cut(first, `\`)
	first = strings.ToLower(strings.TrimRight(first, ". "))
	return first == ".git" || first == "git~1"
}
