package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/internal/server"
)

// A receiver that is away is told later, the same by the same name; a signature shows
// who tells; redirects are not followed, and who is told "never" is.
func TestReceiversAreTold(t *testing.T) {
	w := newWorld(t)
	secret := []byte(forge.NewSecret())
	var mu sync.Mutex
	bodies, away := map[string][]string{}, true // by name of the webhook
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a redirect was followed")
	}))
	defer elsewhere.Close()
	chat := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/moved" {
			http.Redirect(rw, r, elsewhere.URL, http.StatusTemporaryRedirect)
			return
		}
		id := r.Header.Get("Webhook-Id")
		bodies[id] = append(bodies[id], string(body))
		if _, err := forge.Read(forge.Generic, secret, r.Header, body); !errors.Is(err, forge.ErrMalformed) { // it is no event of a forge; that it is signed was looked at before
			t.Errorf("signed badly: %v", err)
		}
		if away {
			away = false
			rw.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer chat.Close()
	for id, path := range map[string]string{"chat": "/hook", "moved": "/moved"} {
		must(t, w.ledger.AddReceiver(t.Context(), ledger.Receiver{ID: id, URL: chat.URL + path, Secret: secret, Created: time.Now()}))
	}
	w.serve(t, server.Options{Public: "https://ci.example.com"}, func(context.Context, ledger.Run, *server.Log) (ledger.End, error) {
		return ledger.End{State: ledger.Failed, Reason: "web/unit: exit code 1"}, nil
	})
	w.accepted(t, 1)
	run := w.until(t, "over", over)
	var all []ledger.Receiver
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var err error
		all, err = w.ledger.Receivers(t.Context())
		must(t, err)
		if all[0].Waiting+all[1].Waiting == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody is told: %+v", all)
		}
	}
	for _, r := range all {
		if (r.ID == "moved") != (r.Problem != "") {
			t.Errorf("%+v", r)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(bodies) != 1 {
		t.Fatalf("%v", bodies)
	}
	for id, told := range bodies {
		var got struct {
			Type string
			Data struct{ Run, Repo, State, Says, Commit, URL string }
		}
		must(t, json.Unmarshal([]byte(told[0]), &got))
		if len(told) != 2 || told[0] != told[1] || got.Type != "run.ended" || got.Data.Run != run.ID || got.Data.Repo != "example/web" || got.Data.State != "failed" ||
			got.Data.Says != "web/unit: exit code 1" || got.Data.Commit != hash(1) || got.Data.URL != "https://ci.example.com/runs/"+run.ID {
			t.Errorf("%s: %q", id, told)
		}
	}
}
