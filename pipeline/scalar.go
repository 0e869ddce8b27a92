package pipeline

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// scalar makes the codec of one plain value. read gets the text with its
// expressions filled in, and whether YAML or an expression may type it freely;
// it returns what to write instead when the text does not fit.
func scalar[V any](s shape, fits func(n *node) bool, read func(text string) (v V, problem string)) codec[V] {
	s.expression = true
	shape := &s
	return codec[V]{shape, func(d *decoder, n *node) V {
		var zero V
		if !d.spend(n) {
			return zero
		}
		if n.kind != scalarNode || n.null() {
			d.report(n.at, "%s where %s belongs", n.what(), article(s.says))
			return zero
		}
		text, filled, known := d.text(n)
		if !known {
			return zero
		}
		if !filled && !fits(n) {
			if s.kind == "string" {
				d.report(n.at, "%s where %s belongs; put quotes around it", n.what(), article(s.says))
			} else {
				d.report(n.at, "%s where %s belongs", n.what(), article(s.says))
			}
			return zero
		}
		v, problem := read(text)
		if problem != "" {
			d.report(n.at, "%q is not %s; %s", shorten(text), article(s.says), problem)
			return zero
		}
		return v
	}}
}

// article puts "a" or "an" before a noun.
func article(noun string) string {
	if strings.ContainsAny(noun[:1], "aeiou") {
		return "an " + noun
	}
	return "a " + noun
}

func isText(n *node) bool { return n.tag == "!!str" }
func isAny(*node) bool    { return true }

// lazily compiles a pattern when it is first asked for: most commands ask for
// few of them, and all would wait for all.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// matching is text of a pattern.
func matching(says, pattern, instead string) codec[string] {
	re := lazily(pattern)
	return scalar(shape{kind: "string", says: says, pattern: pattern}, isText, func(text string) (string, string) {
		if !re().MatchString(text) {
			return "", instead
		}
		return text, ""
	})
}

// oneOf is text of a fixed choice.
func oneOf[S ~string](says string, choice ...S) codec[S] {
	words := make([]string, len(choice))
	for i, c := range choice {
		words[i] = string(c)
	}
	return scalar(shape{kind: "string", says: says, enum: words}, isText, func(text string) (S, string) {
		if !slices.Contains(words, text) {
			return "", "write " + strings.Join(words, ", ") + strings.Replace(nearestHint(text, words), ";", ",", 1)
		}
		return S(text), ""
	})
}

func nearestHint(text string, words []string) string {
	if best := nearest(text, words); best != "" {
		return `; did you mean "` + best + `"?`
	}
	return ""
}

var (
	textCodec = matching("string", `^[^\x00]+$`, "it is empty; leave the key out instead")
	nameCodec = matching("name", namePattern, "use letters, digits, _ . and -, beginning with a letter or digit")

	// anyText is a string, number or boolean, taken as it is written: 3.10 stays 3.10.
	anyText = scalar(shape{kind: "either", says: "string, number or boolean", either: []*shape{
		{kind: "string"}, {kind: "number"}, {kind: "boolean"},
	}}, isAny, func(text string) (string, string) { return text, "" })

	boolean = scalar(shape{kind: "boolean", says: "boolean"}, func(n *node) bool { return n.tag == "!!bool" },
		func(text string) (bool, string) {
			switch text {
			case "true", "True", "TRUE":
				return true, ""
			case "false", "False", "FALSE":
				return false, ""
			}
			return false, "write true or false"
		})
)

// inverse makes "cache: false" a NoCache.
func inverse(c codec[bool]) codec[bool] {
	return codec[bool]{c.shape, func(d *decoder, n *node) bool { return !c.decode(d, n) }}
}

// wide makes an int64 of an int.
func wide(c codec[int]) codec[int64] {
	return codec[int64]{c.shape, func(d *decoder, n *node) int64 { return int64(c.decode(d, n)) }}
}

// versionCodec takes the only version there is.
var versionCodec = scalar(shape{kind: "integer", says: "version", low: 1, high: 1}, func(n *node) bool { return n.tag == "!!int" },
	func(text string) (int, string) {
		if text != "1" {
			return 0, "this slipway reads version 1"
		}
		return 1, ""
	})

// integer takes whole numbers from low to high.
func integer(low, high int) codec[int] {
	s := shape{kind: "integer", says: "whole number", low: float64(low), high: float64(high)}
	return scalar(s, func(n *node) bool { return n.tag == "!!int" }, func(text string) (int, string) {
		v, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 0, 64)
		if err != nil || v < int64(low) || v > int64(high) {
			return 0, "write one from " + strconv.Itoa(low) + " to " + strconv.Itoa(high)
		}
		return int(v), ""
	})
}

const durationPattern = `^([0-9]+(\.[0-9]+)?(us|ms|s|m|h))+$`

var (
	durationRegexp = lazily(durationPattern)

	duration       = durations(1)
	durationOrZero = durations(0)
)

func durations(low time.Duration) codec[time.Duration] {
	return scalar(shape{kind: "string", says: "duration", pattern: durationPattern}, isAny, func(text string) (time.Duration, string) {
		if !durationRegexp().MatchString(text) {
			return 0, "write numbers with units us, ms, s, m, h, such as 500ms, 90s or 1h30m"
		}
		v, err := time.ParseDuration(text)
		if err != nil || v < low {
			return 0, "it must be more than nothing and less than 290 years"
		}
		return v, ""
	})
}

const sizePattern = `^([0-9]+(\.[0-9]+)?)([bB]|[kKmMgGtT]([iI]?[bB])?)?$`

var sizeRegexp = lazily(sizePattern)

// size is Compose's byte value: b, k, m, g, t, each times 1024, with or without a "b".
var size = codec[int64]{
	&shape{kind: "either", says: "size", expression: true, either: []*shape{{kind: "string", pattern: sizePattern}, {kind: "integer", low: minSize}}},
	scalar(shape{kind: "number", says: "size"}, isAny, parseSize).decode,
}

// minSize is a limit nobody means: a forgotten unit.
const minSize = 1 << 20

func parseSize(text string) (int64, string) {
	match := sizeRegexp().FindStringSubmatch(text)
	if match == nil {
		return 0, "write a number and k, m, g or t (of 1024), such as 512m or 1.5g"
	}
	v, err := strconv.ParseFloat(match[1], 64)
	if err != nil {
		return 0, "write a smaller number"
	}
	if unit := strings.ToLower(match[3]); unit != "" {
		v *= math.Pow(1024, float64(strings.Index("bkmgt", unit[:1])))
	}
	if v < minSize {
		return 0, "it is less than 1m; is a unit missing, as in 512m?"
	}
	if v > 1<<60 {
		return 0, "it is more than any machine has"
	}
	return int64(v), ""
}

// cpus is a number of cores, or text of one as Compose allows.
var cpus = codec[float64]{
	&shape{kind: "either", says: "number of cores", expression: true, either: []*shape{{kind: "number", low: 0.01}, {kind: "string", pattern: `^[0-9]+(\.[0-9]+)?$`}}},
	scalar(shape{kind: "number", says: "number of cores"}, isAny, func(text string) (float64, string) {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v >= 0.01 && v <= 4096) {
			return 0, "write a number from 0.01 to 4096, such as 1.5"
		}
		return v, ""
	}).decode,
}
