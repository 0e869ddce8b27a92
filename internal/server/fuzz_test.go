package server

import (
	"testing"
)

// FuzzPosition: what is a place in a log says the same again.
func FuzzPosition(f *testing.F) {
	for _, s := range []string{"", "1-1", "3-99999999999", "-1-2", "1-", "01-1", "1-+1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePosition(s)
		if err != nil {
			return
		}
		if p.attempt < 0 || p.seq < 0 {
			t.Errorf("%q: %v", s, p)
		}
		if again, err := parsePosition(p.String()); err != nil || again != p {
			t.Errorf("%q: %v, then %v, %v", s, p, again, err)
		}
	})
}
