// Package deliverytest holds what every kind of delivery must keep. A kind's own
// test calls Run with real parts; what only that kind can do it tests itself. It
// refuses to be imported by anything but tests.
package deliverytest

import (
	"bytes"
	"maps"
	"testing"

	"github.com/opencontainers/go-digest"

	"slipway/promote"
)

// Subject is a kind of delivery and an environment that it can reach.
type Subject struct {
	Deliverer promote.Deliverer
	// Again opens the same kind once more, as the next process does.
	Again func() promote.Deliverer
	// Delivery has the configuration and two images at least; digests are given by Run.
	Delivery promote.Delivery
	// Old and New are the digests of two versions of each image, by its name.
	Old, New map[string]digest.Digest
	// Wrong is a configuration that Check must refuse.
	Wrong map[string]any
}

// Run holds a kind to promote.Deliverer.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for name, try := range map[string]func(*testing.T, Subject){
		"check refuses and changes nothing": checkRefuses,
		"the last delivery counts":          lastCounts,
		"the same again changes nothing":    sameAgain,
		"the next process sees it":          nextProcess,
		"one image changes alone":           oneAlone,
	} {
		t.Run(name, func(t *testing.T) { try(t, open(t)) })
	}
}

// version is the delivery of some digests.
func version(s Subject, digests, before map[string]digest.Digest) promote.Delivery {
	d := s.Delivery
	d.Images = nil
	for _, im := range s.Delivery.Images {
		im.Digest, im.Previous = digests[im.Name], before[im.Name]
		d.Images = append(d.Images, im)
	}
	return d
}

func deliver(t *testing.T, to promote.Deliverer, d promote.Delivery) string {
	t.Helper()
	if err := to.Check(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := to.Deliver(t.Context(), d, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// runs asks the place what runs.
func runs(t *testing.T, from promote.Deliverer, d promote.Delivery, want map[string]digest.Digest) {
	t.Helper()
	status, err := from.Status(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]digest.Digest{}
	for _, im := range status.Images {
		got[im.Name] = im.Digest
	}
	if status.Known && !maps.Equal(got, want) {
		t.Errorf("%v runs, want %v", got, want)
	}
	if !status.Known && len(status.Images) > 0 {
		t.Error("what is not known was told")
	}
}

func checkRefuses(t *testing.T, s Subject) {
	deliver(t, s.Deliverer, version(s, s.Old, nil))
	d := version(s, s.New, s.Old)
	d.Config = s.Wrong
	if err := s.Deliverer.Check(t.Context(), d); err == nil {
		t.Errorf("%v was let through", s.Wrong)
	}
	if err := s.Deliverer.Check(t.Context(), version(s, s.New, s.Old)); err != nil {
		t.Error(err)
	}
	runs(t, s.Deliverer, version(s, s.New, s.Old), s.Old)
}

func lastCounts(t *testing.T, s Subject) {
	for _, digests := range []map[string]digest.Digest{s.Old, s.New, s.Old} {
		d := version(s, digests, nil)
		deliver(t, s.Deliverer, d)
		runs(t, s.Deliverer, d, digests)
	}
}

func sameAgain(t *testing.T, s Subject) {
	d := version(s, s.New, s.Old)
	deliver(t, s.Deliverer, d)
	if said := deliver(t, s.Deliverer, d); said != "" {
		t.Errorf("the second time it said %q", said)
	}
	runs(t, s.Deliverer, d, s.New)
}

func nextProcess(t *testing.T, s Subject) {
	d := version(s, s.New, nil)
	deliver(t, s.Deliverer, d)
	next := s.Again()
	runs(t, next, d, s.New)
	deliver(t, next, version(s, s.Old, s.New))
	runs(t, s.Deliverer, d, s.Old)
}

func oneAlone(t *testing.T, s Subject) {
	deliver(t, s.Deliverer, version(s, s.Old, nil))
	mixed := maps.Clone(s.Old)
	one := s.Delivery.Images[0].Name
	mixed[one] = s.New[one]
	d := version(s, mixed, s.Old)
	deliver(t, s.Deliverer, d)
	runs(t, s.Deliverer, d, mixed)
}
