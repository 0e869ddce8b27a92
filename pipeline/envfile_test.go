package pipeline

import (
	"maps"
	"strings"
	"testing"
)

func TestParseEnvFile(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want map[string]string
	}{
		"plain":          {"A=1\n# B=2\n\n  C = 3 \nexport D=4", map[string]string{"A": "1", "C": "3", "D": "4"}},
		"windows":        {"\ufeffA=1\r\nB=2\r\n", map[string]string{"A": "1", "B": "2"}},
		"comment behind": {"A=1 # one\nB=a#b\n", map[string]string{"A": "1", "B": "a#b"}},
		"empty":          {"A=\nB=''\nC=\"\"\n", map[string]string{"A": "", "B": "", "C": ""}},
		"equals":         {"URL=mysql://x/?a=b\n", map[string]string{"URL": "mysql://x/?a=b"}},
		"quotes":         {`A='$x \n # "' # c` + "\n" + `B="a\tb\"\\\$ # "` + "\nC=it's\n", map[string]string{"A": `$x \n # "`, "B": "a\tb\"\\\\$ # ", "C": "it's"}},
		"lines":          {"A=\"one\ntwo\"\nB=' x\ny'\nC=3", map[string]string{"A": "one\ntwo", "B": " x\ny", "C": "3"}},
		"the last":       {"A=1\nA=2\n", map[string]string{"A": "2"}},
		"no newline":     {"A='1'", map[string]string{"A": "1"}},
	} {
		got, err := ParseEnvFile("x.env", []byte(c.text))
		if err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}

func TestEnvFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"A=1\nsecret\n":           "x.env:2: not NAME=VALUE",
		"A='\n\n'\n=secret":       "x.env:4: not NAME=VALUE",
		"A=\"secret\nB=2\n":       "x.env:1: the value of A begins with \" and does not end",
		"A='secret' secret\n":     "x.env:1: something follows the quoted value of A",
		"1A=secret":               "x.env:1: not NAME=VALUE",
		"A B=secret":              "x.env:1: not NAME=VALUE",
		"A=1\n\n#\nB='x'y secret": "x.env:4: something follows",
	} {
		vars, err := ParseEnvFile("x.env", []byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, %v; want %s", text, vars, err, want)
		}
	}
}

func FuzzParseEnvFile(f *testing.F) {
	f.Add("A=1\nB=\"x\\n\"\nC='\n'\n")
	f.Fuzz(func(t *testing.T, text string) {
		vars, err := ParseEnvFile("x.env", []byte(text))
		if err != nil {
			return
		}
		for name := range vars {
			if !variableName.MatchString(name) {
				t.Errorf("a variable %q", name)
			}
		}
	})
}
