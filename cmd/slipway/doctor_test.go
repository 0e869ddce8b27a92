package main

import (
	"strings"
	"testing"
)

// What only some commands need is a warning, not the doctor's own failure.
func TestDoctorOnAMachineWithoutPrograms(t *testing.T) {
	p := newPlace(t)
	p.env = append(p.env, "PATH="+t.TempDir())
	if out := string(p.must(t, "doctor")); !strings.Contains(out, "git: not found") {
		t.Error(out)
	}
}
