package server

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound how often somebody may ask. Zero rates bound nothing.
type Limits struct {
	// Strangers is how many requests a second an address may send that show no token
	// and bear no good signature; ten seconds' worth of them may come at once.
	Strangers float64
	// Webhooks is the same of the good ones of a repository.
	Webhooks float64
	// Proxies are believed in who they say that they ask for (X-Forwarded-For).
	Proxies []netip.Prefix
}

// maxBuckets bounds the memory that addresses take. Beyond it, new ones are not counted.
const maxBuckets = 100_000

// buckets are token buckets by key. The zero value bounds nothing.
type buckets[K comparable] struct {
	rate float64

	mu    sync.Mutex
	all   map[K]*rate.Limiter
	swept time.Time // when dropFull last looked at all
}

func newBuckets[K comparable](perSecond float64) *buckets[K] {
	return &buckets[K]{rate: perSecond, all: map[K]*rate.Limiter{}}
}

func (b *buckets[K]) burst() int { return max(1, int(10*b.rate)) }

// wait says how long a key has to wait for its next token; 0: there is one.
func (b *buckets[K]) wait(key K, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.all[key]
	if l == nil {
		return 0
	}
	missing := 1 - l.TokensAt(now)
	return max(0, time.Duration(missing/b.rate*float64(time.Second)))
}

// take takes a token; false: there is none.
func (b *buckets[K]) take(key K, now time.Time) bool {
	if b.rate <= 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.all[key]
	if l == nil {
		if len(b.all) >= maxBuckets {
			b.dropFull(now)
		}
		if len(b.all) >= maxBuckets {
			return true
		}
		l = rate.NewLimiter(rate.Limit(b.rate), b.burst())
		b.all[key] = l
	}
	return l.AllowN(now, 1)
}

// dropFull forgets keys that are as good as new. It looks at all at most once a second.
func (b *buckets[K]) dropFull(now time.Time) {
	if now.Sub(b.swept) < time.Second {
		return
	}
	b.swept = now
	for key, l := range b.all {
		if l.TokensAt(now) >= float64(b.burst()) {
			delete(b.all, key)
		}
	}
}

// caller is at the other end of a request.
type caller struct {
	from  netip.Prefix
	known bool // he has shown a token, or signed what he sent
}

type callerKey struct{}

// known notes that a request is of somebody who may ask as often as he likes.
func known(ctx context.Context) {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		c.known = true
	}
}

// limited refuses those who keep asking without showing who they are.
func (s *Server) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &caller{from: network(s.client(r))}
		if wait := s.strangers.wait(c.from, time.Now()); wait > 0 {
			s.tooMany(w, "address", wait)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
		if !c.known {
			s.strangers.take(c.from, time.Now())
		}
	})
}

// tooMany says when to come again.
func (s *Server) tooMany(w http.ResponseWriter, by string, wait time.Duration) {
	s.metrics.limited.WithLabelValues(by).Inc()
	seconds := int(math.Ceil(max(1, wait.Seconds())))
	w.Header().Set("Retry-After", fmt.Sprint(seconds))
	s.say(w, http.StatusTooManyRequests, problem{fmt.Sprintf("too many requests of this %s; ask again in %d s", by, seconds)})
}

// network is what counts as one sender: an address, or of IPv6 the /64 that one
// subscriber has.
func network(a netip.Addr) netip.Prefix {
	bits := 64
	if a = a.Unmap(); a.Is4() {
		bits = 32
	}
	p, _ := a.WithZone("").Prefix(bits) // the zero value for what is no address: all such are one
	return p
}

// client is who sent a request: the other end of the connection, or where that is a
// trusted proxy, whom it names, and so on back.
func (s *Server) client(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr) // the zero value for a socket without addresses
	at := peer.Addr().Unmap()
	named := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(named) - 1; i >= 0 && s.trusts(at); i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(named[i]))
		if err != nil {
			break
		}
		at = a.Unmap()
	}
	return at
}

func (s *Server) trusts(a netip.Addr) bool {
	for _, p := range s.Limits.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
