package git

import "bytes"

// conversion is what becomes of a file's bytes when it is checked out.
type conversion struct {
	crlf   bool   // ends of lines become CR LF
	guess  bool   // but not of what does not look like text
	ident  bool   // $Id$ would become the blob's ID
	refuse string // why slipway cannot check it out as git would; empty: it can
}

// conversionOf reads what git's convert.c does of a file's attributes on a system
// where lines end in LF, with git's own settings.
func conversionOf(states map[string]string) (c conversion) {
	set := func(name string) bool { s := states[name]; return s != "" && s != "unset" && s != "unspecified" }
	if set("working-tree-encoding") && states["working-tree-encoding"] != "=UTF-8" {
		c.refuse = "its .gitattributes asks for another encoding (working-tree-encoding), which slipway does not write; commit the file as it is to be"
	}
	if set("filter") && states["filter"] != "=lfs" { // pointers of LFS are told by what is in them
		c.refuse = "its .gitattributes sends it through a filter of whoever checks it out (filter" + states["filter"] + "), which would give each another file; remove the attribute, or commit the file as it is to be"
	}
	c.ident = states["ident"] == "set"
	text := states["text"]
	if text == "" || text == "unspecified" {
		text = states["crlf"] // as it was called before
	}
	c.crlf = text != "unset" && states["eol"] == "=crlf"
	c.guess = text == "=auto"
	return c
}

// convert gives what git writes of a blob's bytes.
func (c conversion) convert(blob []byte) []byte {
	if !c.crlf || !c.converts(blob) {
		return blob
	}
	out := make([]byte, 0, len(blob)+bytes.Count(blob, []byte("\n")))
	for i, b := range blob {
		if b == '\n' && (i == 0 || blob[i-1] != '\r') {
			out = append(out, '\r')
		}
		out = append(out, b)
	}
	return out
}

// converts is will_convert_lf_to_crlf of convert.c.
func (c conversion) converts(blob []byte) bool {
	if !c.guess {
		return true // where every LF has its CR nothing changes
	}
	if bytes.IndexByte(blob, '\r') >= 0 || bytes.IndexByte(blob, 0) >= 0 {
		return false
	}
	printable, other := 0, 0
	for _, b := range blob {
		switch {
		case b == '\n':
		case b == '\b', b == '\t', b == 0x1b, b == '\f', b >= ' ' && b != 0x7f:
			printable++
		default:
			other++
		}
	}
	if len(blob) > 0 && blob[len(blob)-1] == 0x1a { // the end of a file of old
		other--
	}
	return printable>>7 >= other
}
