package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/internal/ledger"
)

func receiver(t *testing.T, l *ledger.Ledger, id, repo string, events ...string) {
	t.Helper()
	must(t, l.AddReceiver(t.Context(), ledger.Receiver{ID: id, URL: "https://chat.example.com/" + id, Repo: repo, Events: events, Secret: []byte("secret of " + id), Created: time.Now()}))
}

func TestReceiversHearOfEnds(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		l := opened(t, database)
		must(t, l.AddRepo(t.Context(), ledger.Repo{ID: "other", Name: "example/other", URL: "https://example.com/other.git", Forge: "gitea"}))
		receiver(t, l, "all", "")
		receiver(t, l, "runs", "example/shop", ledger.RunEnded)
		receiver(t, l, "other", "example/other")
		if err := l.AddReceiver(t.Context(), ledger.Receiver{ID: "x", Events: []string{"run.began"}}); err == nil || !strings.Contains(err.Error(), "run.ended") {
			t.Errorf("another event: %v", err)
		}
		if err := l.AddReceiver(t.Context(), ledger.Receiver{ID: "x", Repo: "example/none"}); !errors.Is(err, ledger.ErrNone) {
			t.Errorf("another repository: %v", err)
		}

		d, c := push("d1", "main", 1)
		accept(t, l, d, c)
		if due, err := l.TakeNotices(t.Context(), time.Now(), 10); err != nil || len(due) != 0 {
			t.Errorf("of a run that waits: %+v, %v", due, err)
		}
		must(t, l.Finish(t.Context(), take(t, l, "record"), ledger.End{State: ledger.Passed, Says: "1 image", Promote: true}))
		_, p, err := l.TakePromotion(t.Context(), time.Now())
		must(t, err)
		must(t, l.EndPromotion(t.Context(), p, "test: the registry is down", time.Now().Add(-time.Second))) // once more
		_, p, err = l.TakePromotion(t.Context(), time.Now())
		must(t, err)
		must(t, l.EndPromotion(t.Context(), p, "test: done", time.Time{}))
		d, c = push("d2", "main", 2)
		c[0].State, c[0].Reason = ledger.Skipped, "the policy"
		accept(t, l, d, c)

		due, err := l.TakeNotices(t.Context(), time.Now(), 10)
		must(t, err)
		var got []string
		for _, n := range due {
			got = append(got, fmt.Sprint(n.To.ID, " ", n.Event, " ", n.Run.Ref, " ", n.State, " ", n.Says))
			if string(n.To.Secret) != "secret of "+n.To.ID || !strings.HasSuffix(n.To.URL, n.To.ID) {
				t.Errorf("%+v", n.To)
			}
		}
		want := map[string]bool{
			"all run.ended refs/heads/main passed 1 image": true, "runs run.ended refs/heads/main passed 1 image": true,
			"all promotion.ended refs/heads/main done test: done": true,
			"all run.ended refs/heads/main skipped the policy":    true, "runs run.ended refs/heads/main skipped the policy": true,
		}
		if len(got) != len(want) {
			t.Errorf("%d webhooks: %q", len(got), got)
		}
		for _, g := range got {
			if !want[g] {
				t.Errorf("nobody was to hear %q", g)
			}
		}

		// What somebody sends nobody else does; who is killed while he sends has it sent again.
		if again, err := l.TakeNotices(t.Context(), time.Now(), 10); err != nil || len(again) != 0 {
			t.Errorf("twice taken: %d, %v", len(again), err)
		}
		later, err := l.TakeNotices(t.Context(), time.Now().Add(2*time.Minute), 10)
		must(t, err)
		if len(later) != len(due) {
			t.Errorf("of %d that were not sent %d are left", len(due), len(later))
		}
		// One receiver is away, others are not.
		for _, n := range later {
			if n.To.ID == "runs" {
				must(t, l.NoticeLater(t.Context(), n, time.Now().Add(time.Hour), "it is away"))
			} else {
				must(t, l.Noticed(t.Context(), n, ""))
			}
		}
		if left, err := l.TakeNotices(t.Context(), time.Now().Add(30*time.Minute), 10); err != nil || len(left) != 0 {
			t.Errorf("those that were put off are due: %+v, %v", left, err)
		}
		all, err := l.Receivers(t.Context())
		must(t, err)
		for _, r := range all {
			away := r.ID == "runs"
			if away != (r.Waiting == 2) || away != (r.Problem == "it is away") || (r.ID == "all") != (r.Sent != nil) {
				t.Errorf("%+v", r)
			}
		}
		last, err := l.TakeNotices(t.Context(), time.Now().Add(2*time.Hour), 10)
		must(t, err)
		if len(last) != 2 || last[0].Tries != 1 {
			t.Errorf("%+v", last)
		}
		must(t, l.DropReceiver(t.Context(), "runs"))
		if err := l.DropReceiver(t.Context(), "runs"); !errors.Is(err, ledger.ErrNone) {
			t.Errorf("twice removed: %v", err)
		}
		if left, err := l.TakeNotices(t.Context(), time.Now().Add(24*time.Hour), 10); err != nil || len(left) != 0 {
			t.Errorf("for nobody: %+v, %v", left, err)
		}
	})
}

// Two servers share what is to be sent, and send nothing twice.
func TestNoticesAreTakenOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		here, there := opened(t, database), open(t, database, "there")
		receiver(t, here, "all", "")
		for n := range 40 {
			d, c := push(fmt.Sprint("d", n), "main", n)
			c[0].State = ledger.Skipped
			accept(t, here, d, c)
		}
		var mu sync.Mutex
		seen := map[int64]int{}
		var all sync.WaitGroup
		for n := range 6 {
			l := []*ledger.Ledger{here, there}[n%2]
			all.Go(func() {
				for {
					due, err := l.TakeNotices(t.Context(), time.Now(), 7)
					if err != nil {
						t.Error(err)
					}
					if len(due) == 0 {
						return
					}
					mu.Lock()
					for _, n := range due {
						seen[n.Seq]++
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		for seq, n := range seen {
			if n != 1 {
				t.Errorf("%d was taken %d times", seq, n)
			}
		}
		if len(seen) < 40 { // one may have found none while others held the last
			left, err := here.TakeNotices(t.Context(), time.Now(), 100)
			must(t, err)
			if len(seen)+len(left) != 40 {
				t.Errorf("%d of 40", len(seen)+len(left))
			}
		}
	})
}
