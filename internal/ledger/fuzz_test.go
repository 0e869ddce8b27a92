package ledger_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/ledger"
)

// FuzzReadKey: a key is all of a file or none of it, and reading changes nothing.
func FuzzReadKey(f *testing.F) {
	f.Add(make([]byte, 32))
	f.Add(make([]byte, 31))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "ledger.key")
		must(t, os.WriteFile(file, data, 0o600))
		k, err := ledger.ReadKey(file)
		if (err == nil) != (len(data) == len(k)) || err == nil && !bytes.Equal(k[:], data) {
			t.Errorf("%d bytes: %v", len(data), err)
		}
		if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, data) {
			t.Errorf("the key has become %x, %v", now, err)
		}
	})
}

// FuzzCron: what is taken for times has a next one, later than the last, to the minute.
func FuzzCron(f *testing.F) {
	for _, cron := range []string{"0 3 * * *", "*/5 1-3,7 1 JAN MON-FRI", "@daily", "0 0 29 2 *", "0 0 31 2 *", "59 23 L * *", "* * * * 5#2", "0 0 15W * *"} {
		f.Add(cron, "Europe/Berlin", int64(1764374400))
		f.Add(cron, "UTC", int64(1774746000))
	}
	f.Fuzz(func(t *testing.T, cron, zone string, at int64) {
		if at < 0 || at > 4e9 || strings.Contains(zone, "/") && len(zone) > 100 {
			t.Skip()
		}
		s, last := ledger.Schedule{Cron: cron, Zone: zone}, time.Unix(at, 0)
		for range 3 {
			next, err := s.Next(last)
			if err != nil {
				return
			}
			if !next.After(last) || next.Second() != 0 || next.Nanosecond() != 0 {
				t.Fatalf("%q in %q: after %s comes %s", cron, zone, last, next)
			}
			last = next
		}
	})
}

// FuzzRestore brings a backup back of which some bytes are others, or that ends too
// soon, or that is something else: it becomes a ledger that can be read to its end,
// or none and nothing is left.
func FuzzRestore(f *testing.F) {
	dir := f.TempDir()
	l := open(f, filepath.Join(dir, "ledger.db"), "here")
	must(f, l.AddRepo(f.Context(), ledger.Repo{ID: "shop", Name: "example/shop", URL: "https://example.com/shop.git", Forge: "gitea", Secret: []byte("s"), Created: time.Now()}))
	for n := range 50 {
		d, changes := push("d", "main", n)
		_, err := l.Accept(f.Context(), d, changes)
		must(f, err)
	}
	backup := filepath.Join(dir, "backup")
	must(f, l.Backup(f.Context(), backup))
	whole, err := os.ReadFile(backup)
	must(f, err)
	f.Add(uint(0), uint(len(whole)), []byte{})
	f.Add(uint(0), uint(0), []byte("no ledger"))
	f.Add(uint(100), uint(len(whole)), []byte{0, 1, 2})
	f.Add(uint(5000), uint(len(whole)), []byte{0xff, 0xff})
	f.Add(uint(0), uint(len(whole)/2), []byte{})
	f.Fuzz(func(t *testing.T, at, length uint, put []byte) {
		data := bytes.Clone(whole[:min(length, uint(len(whole)))])
		at %= uint(len(data)) + 1
		data = append(data[:at], append(put, data[min(at+uint(len(put)), uint(len(data))):]...)...)
		file, to := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "ledger.db")
		must(t, os.WriteFile(file, data, 0o600))
		o := ledger.Options{Database: to, Owner: "here", Key: ledger.Key{1}}
		err := ledger.Restore(t.Context(), o, file)
		left, globErr := filepath.Glob(to + "*")
		must(t, globErr)
		if err != nil {
			if len(left) > 0 {
				t.Errorf("left of what is no ledger: %v", left)
			}
			return
		}
		if len(left) != 1 {
			t.Errorf("left: %v", left)
		}
		restored := open(t, to, "here")
		if _, err := restored.Repos(t.Context()); err != nil {
			t.Errorf("repositories: %v", err)
		}
		runs, err := restored.Runs(t.Context(), ledger.Filter{Limit: 1000})
		if err != nil {
			t.Errorf("runs: %v", err)
		}
		for _, r := range runs {
			if _, err := restored.Run(t.Context(), r.ID); err != nil && !errors.Is(err, ledger.ErrNone) {
				t.Errorf("run %s: %v", r.ID, err)
			}
		}
	})
}
