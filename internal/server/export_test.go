package server

import (
	"context"
	"net/netip"
	"time"
)

// LookForSpace does what a server does each minute, where space was to be freed at a time.
func (s *Server) LookForSpace(ctx context.Context, due time.Time) (next time.Time, err error) {
	c := collector{Server: s, due: due}
	err = c.look(ctx)
	return c.due, err
}

// Use is what a run does with the root.
func (s *Server) Use(ctx context.Context) (release func()) { return s.use(ctx) }

// MaxBuckets bounds what Buckets holds.
const MaxBuckets = maxBuckets

// Buckets takes a token of each of some addresses at a time, and says how many are held then.
func (s *Server) Buckets(from, to int, now time.Time) int {
	for i := from; i < to; i++ {
		s.strangers.take(network(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})), now)
	}
	return len(s.strangers.all)
}

// Patterns are those of all routes.
func (s *Server) Patterns() (all []string) {
	for _, r := range s.api() {
		all = append(all, r.pattern)
	}
	return all
}
