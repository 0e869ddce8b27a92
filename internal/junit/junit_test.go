package junit_test

import (
	"reflect"
	"strings"
	"testing"

	"slipway/internal/junit"
)

func TestRead(t *testing.T) {
	tests := []struct {
		name, in string
		want     junit.Report
	}{
		{
			"pytest", `<?xml version="1.0"?><testsuites><testsuite name="pytest" tests="99">
			<properties><property name="a" value="b"/></properties>
			<testcase classname="test_app" name="test_ok" time="0.1"/>
			<testcase classname="test_app" name="test_sum"><failure message="assert 1 == 2&#10;more">trace</failure></testcase>
			<testcase classname="test_app" name="test_db"><error>
 no database
 trace</error></testcase>
			<testcase name="test_later"><skipped/></testcase></testsuite></testsuites>`,
			junit.Report{Tests: 4, Failures: 1, Errors: 1, Skipped: 1, Failed: []junit.Case{{Name: "test_app.test_sum", Message: "assert 1 == 2"}, {Name: "test_app.test_db", Message: "no database"}}},
		},
		{"bare suite, nested", `<testsuite><testsuite><testcase name="a"/></testsuite><testcase name="b"/></testsuite>`, junit.Report{Tests: 2}},
		{"empty suite", `<testsuites/>`, junit.Report{}},
	}
	for _, tt := range tests {
		got, err := junit.Read(strings.NewReader(tt.in))
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"nothing": "", "text": "hello", "html": "<html><body/></html>", "torn": `<testsuite><testcase name="a">`,
		"deep": strings.Repeat("<testsuite>", 100),
	} {
		if r, err := junit.Read(strings.NewReader(in)); err == nil {
			t.Errorf("%s was read as %+v", name, r)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`<testsuites><testsuite><testcase name="a"><failure message="m"/></testcase></testsuite></testsuites>`)
	f.Fuzz(func(t *testing.T, in string) {
		r, err := junit.Read(strings.NewReader(in))
		if err == nil && len(r.Failed) != r.Failures+r.Errors {
			t.Errorf("%d failed cases, %d failures and %d errors", len(r.Failed), r.Failures, r.Errors)
		}
	})
}
