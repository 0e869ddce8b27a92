package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// minLine is the length in bytes of the shortest line of a secret that is hidden
// by itself: "{" is a line of many.
const minLine = 8

// forms lists what a secret may look like in a log.
func forms(secret []byte) []pattern {
	all := encodings(secret)
	if bytes.ContainsRune(secret, '\n') {
		for line := range bytes.Lines(secret) {
			line = bytes.TrimSpace(line)
			if len(line) >= minLine && !bytes.HasPrefix(line, []byte("-----")) { // the frame of PEM is no secret
				all = append(all, encodings(line)...)
			}
		}
		all = append(all, encodings(bytes.ReplaceAll(secret, []byte("\n"), []byte("\r\n")))...) // as a terminal shows it
	}
	return all
}

// kept is what programs leave as it is in URLs, besides letters and digits: Go
// (query, segment of a path, path), Python, JavaScript (component, whole), forms of
// HTML, and those that leave nothing.
var kept = [...]string{"-_.~", "-_.~$&+=:@", "-_.~$&+,/:;=@", "-_.~/", "-_.~!'()*", "-_.~!'()*;/?:@&=+$,#", "-_.*", "-_.", ""}

func encodings(s []byte) []pattern {
	text, inHex := string(s), hex.EncodeToString(s)
	all := []string{text}
	for _, keep := range kept {
		upper := percent(text, keep)
		all = append(all, upper, strings.ReplaceAll(upper, "%20", "+"), lowerPercent(upper))
	}
	every := everyPercent(inHex)
	all = append(all, every, strings.ToUpper(every))
	all = append(all, quoted(text)...)
	out := []pattern{{[]byte(inHex), true}, {[]byte(strings.ToUpper(inHex)), true}}
	for _, text := range all {
		out = append(out, pattern{[]byte(text), false})
	}
	return append(out, base64s(s)...)
}

// everyPercent encodes every byte as URLs do, as a few programs and shell scripts do.
func everyPercent(inHex string) string {
	var out strings.Builder
	for i := 0; i < len(inHex); i += 2 {
		out.WriteString("%" + inHex[i:i+2])
	}
	return out.String()
}

// base64s gives what a secret becomes in both alphabets (RFC 4648), wherever it
// stands in what is encoded: the characters that depend on nothing else, and, for
// a secret that stands at the end, those that follow. Lines may be broken in it
// anywhere, also near its beginning.
func base64s(s []byte) (all []pattern) {
	for before := range 3 {
		// A character holds six bits; the first ones depend on what stands before.
		skip := (before*8 + 5) / 6
		full := (before + len(s)) * 8 / 6
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			padded := enc.EncodeToString(append(make([]byte, before), s...))
			for _, text := range []string{padded[skip:full], strings.TrimRight(padded, "=")[skip:], padded[skip:]} {
				all = append(all, pattern{[]byte(text), true})
			}
			if core := padded[skip:full]; len(core) >= minLine {
				// Nobody waits for a secret at every end of a line: what stands before a
				// break that comes so early is left, two bytes at the most.
				for at := 1; at < MinLength; at++ {
					all = append(all, pattern{[]byte(core[at:]), true})
				}
				for at := MinLength; at < min(len(core), widest); at++ {
					all = append(all, pattern{[]byte(core[:at] + "\n" + core[at:]), true}, pattern{[]byte(core[:at] + "\r\n" + core[at:]), true})
				}
			}
			if before == 0 {
				for _, width := range []int{64, 76} { // a line of openssl or base64(1), by itself
					for _, line := range wrapped(padded[:full], width) {
						all = append(all, pattern{[]byte(line), false})
					}
				}
			}
		}
	}
	return all
}

// wrapped gives the lines of a text that is broken at a width.
func wrapped(text string, width int) (lines []string) {
	if len(text) <= width {
		return nil
	}
	for len(text) > width {
		lines = append(lines, text[:width])
		text = text[width:]
	}
	if len(text) >= minLine {
		lines = append(lines, text)
	}
	return lines
}

// percent encodes as URLs do (RFC 3986, section 2.1), but for letters, digits and
// what programs differ in keeping.
func percent(text, keep string) string {
	var out strings.Builder
	for i := range len(text) {
		c := text[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(keep, c) >= 0 {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}

// lowerPercent turns the digits of an encoded text into small ones.
func lowerPercent(text string) string {
	out := []byte(text)
	for i := 0; i+2 < len(out); i++ {
		if out[i] == '%' {
			copy(out[i:], bytes.ToLower(out[i:i+3]))
			i += 2
		}
	}
	return string(out)
}

// quoted gives what a secret becomes inside the strings of JSON (RFC 8259,
// section 7) as programs differ in writing them, of Go, and of a shell.
func quoted(text string) []string {
	marshaled, _ := json.Marshal(text) // a string always can
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text) // into memory
	minimal := strings.TrimSuffix(plain.String(), "\n")
	all := []string{inner(string(marshaled)), inner(minimal), strings.ReplaceAll(inner(minimal), "/", `\/`), inner(strconv.Quote(text)), inner(strconv.QuoteToASCII(text))}
	ascii := escapeWide(inner(minimal))
	return append(all, ascii, strings.ReplaceAll(ascii, "/", `\/`), strings.ReplaceAll(text, "'", `'\''`), strings.ReplaceAll(text, "'", `'"'"'`))
}

func inner(quoted string) string { return quoted[1 : len(quoted)-1] }

// escapeWide writes what is not ASCII as \uXXXX.
func escapeWide(text string) string {
	var out strings.Builder
	for _, r := range text {
		switch {
		case r < utf8.RuneSelf:
			out.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}
