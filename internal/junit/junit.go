// Package junit reads JUnit XML reports and sums them up. It refuses to guess:
// a file that is no such report is an error, never a report without tests.
package junit

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Report is the sum of one file.
type Report struct {
	Tests, Failures, Errors, Skipped int
	Failed                           []Case
}

// Case is one test that failed.
type Case struct {
	Name    string // "class.name" where the report gives a class
	Message string // its first line
}

// maxDepth bounds nested test suites.
const maxDepth = 64

// Read sums up one report. The counts are those of the test cases that stand in
// the file, not those that its attributes claim.
func Read(r io.Reader) (Report, error) {
	var report Report
	dec := xml.NewDecoder(r)
	depth, root := 0, false
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			if !root {
				return Report{}, errors.New("no <testsuites> or <testsuite> in it")
			}
			return report, nil
		}
		if err != nil {
			return Report{}, fmt.Errorf("not well-formed XML: %w", err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return Report{}, fmt.Errorf("test suites nested deeper than %d", maxDepth)
			}
			switch e.Name.Local {
			case "testsuites", "testsuite":
				root = true
			case "testcase":
				if err := report.add(dec, e); err != nil {
					return Report{}, err
				}
				depth--
			default:
				if !root {
					return Report{}, fmt.Errorf("<%s> is not a JUnit report", e.Name.Local)
				}
				if err := dec.Skip(); err != nil {
					return Report{}, fmt.Errorf("not well-formed XML: %w", err)
				}
				depth--
			}
		case xml.EndElement:
			depth--
		}
	}
}

// testcase is the part of a case that a summary needs.
type testcase struct {
	Class    string     `xml:"classname,attr"`
	Name     string     `xml:"name,attr"`
	Failures []complain `xml:"failure"`
	Errors   []complain `xml:"error"`
	Skipped  *struct{}  `xml:"skipped"`
}

type complain struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func (r *Report) add(dec *xml.Decoder, start xml.StartElement) error {
	var c testcase
	if err := dec.DecodeElement(&c, &start); err != nil {
		return fmt.Errorf("not well-formed XML: %w", err)
	}
	r.Tests++
	var why complain
	switch {
	case len(c.Failures) > 0:
		r.Failures++
		why = c.Failures[0]
	case len(c.Errors) > 0:
		r.Errors++
		why = c.Errors[0]
	case c.Skipped != nil:
		r.Skipped++
		return nil
	default:
		return nil
	}
	name := c.Name
	if c.Class != "" {
		name = c.Class + "." + c.Name
	}
	message := why.Message
	if message == "" {
		message = why.Text
	}
	message, _, _ = strings.Cut(strings.TrimSpace(message), "\n")
	r.Failed = append(r.Failed, Case{Name: name, Message: message})
	return nil
}
