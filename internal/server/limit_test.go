package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/internal/server"
)

// Whoever fails too often is told to come later; others, and he himself before that, are not.
func TestStrangersAreLimited(t *testing.T) {
	w := newWorld(t)
	w.serve(t, server.Options{Limits: server.Limits{Strangers: 0.5, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16")}}}, nil)
	token := w.token(t, ledger.Viewer)
	ask := func(path, token, from string) (int, http.Header) {
		req, err := http.NewRequest(http.MethodGet, w.http.URL+path, nil)
		must(t, err)
		req.Header.Set("X-Forwarded-For", from)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		must(t, resp.Body.Close())
		return resp.StatusCode, resp.Header
	}
	limited := func(path, from string) (n int) {
		for n < 20 {
			code, header := ask(path, "wrong", from)
			if code == http.StatusTooManyRequests {
				if after := header.Get("Retry-After"); after != "1" && after != "2" {
					t.Errorf("Retry-After: %s", after)
				}
				return n
			}
			n++
		}
		return n
	}
	for range 20 {
		if code, _ := ask("/api/v1/runs", token, "192.0.2.1"); code != http.StatusOK {
			t.Fatalf("with a token: %d", code)
		}
	}
	if n := limited("/api/v1/runs", "192.0.2.1"); n < 5 || n > 6 { // a token may have come back meanwhile
		t.Errorf("limited after %d failures", n)
	}
	for from, want := range map[string]int{
		"192.0.2.1":                        http.StatusTooManyRequests, // also for what is not secret, and to nobody that is known there
		"192.0.2.9, 192.0.2.1":             http.StatusTooManyRequests, // what he makes up stands before him
		"192.0.2.1, 10.1.2.3":              http.StatusTooManyRequests, // by two proxies
		"192.0.2.2":                        http.StatusOK,
		"192.0.2.1, 192.0.2.2":             http.StatusOK,
		"":                                 http.StatusOK,
		"192.0.2.1, what is no address":    http.StatusOK, // the proxy itself
		"192.0.2.1, 10.2.0.1":              http.StatusOK, // a proxy nobody trusts
		"2001:db8::1":                      http.StatusOK,
		"::ffff:192.0.2.1":                 http.StatusTooManyRequests,
		"2001:db8:0:1::1, ::ffff:10.1.2.3": http.StatusOK,
	} {
		if code, _ := ask("/healthz", "", from); code != want {
			t.Errorf("from %s: %d, want %d", from, code, want)
		}
	}
	if n := limited("/none", "2001:db8:7::1"); n < 5 || n > 6 {
		t.Errorf("limited after %d failures", n)
	}
	if code, _ := ask("/healthz", "", "2001:db8:7::2"); code != http.StatusTooManyRequests {
		t.Errorf("another address of the same subscriber: %d", code)
	}
	_, metrics := w.request(t, http.MethodGet, "/metrics", token)
	if !strings.Contains(metrics, `slipway_limited_total{by="address"}`) {
		t.Error("it is not counted")
	}
}

// Webhooks that are signed are not a stranger's, however many; those of one
// repository have a limit of their own. Badly signed ones are a stranger's.
func TestWebhooksAreLimited(t *testing.T) {
	w := newWorld(t)
	w.serve(t, server.Options{Limits: server.Limits{Strangers: 0.1, Webhooks: 0.5}}, func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
		return ledger.End{State: ledger.Passed}, nil
	})
	codes := map[int]int{}
	for n := range 10 {
		code, _ := w.deliver(t, http.DefaultClient, fmt.Sprint("d", n), push(n))
		codes[code]++
	}
	if ok, late := codes[http.StatusAccepted], codes[http.StatusTooManyRequests]; ok < 5 || ok > 6 || ok+late != 10 {
		t.Errorf("%v", codes)
	}
	if runs, err := w.ledger.Runs(t.Context(), ledger.Filter{}); err != nil || len(runs) != codes[http.StatusAccepted] {
		t.Errorf("%d runs, %v", len(runs), err)
	}
	w.secret = []byte(forge.NewSecret())
	if code, _ := w.deliver(t, http.DefaultClient, "bad", push(1)); code != http.StatusForbidden {
		t.Errorf("badly signed: %d", code)
	}
	if code, _ := w.deliver(t, http.DefaultClient, "bad", push(1)); code != http.StatusTooManyRequests {
		t.Errorf("badly signed again: %d", code)
	}
}

// However many addresses ask, what is kept of them is bounded, and those that have
// asked nothing for long are forgotten.
func TestAddressesAreForgotten(t *testing.T) {
	s := server.New(server.Options{Limits: server.Limits{Strangers: 1}})
	now := time.Now()
	if n := s.Buckets(0, server.MaxBuckets+50_000, now); n != server.MaxBuckets {
		t.Errorf("%d are held", n)
	}
	if n := s.Buckets(server.MaxBuckets, server.MaxBuckets+3, now.Add(time.Minute)); n != 3 {
		t.Errorf("%d are held a minute later", n)
	}
}
