package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"slipway/internal/ledger"
)

// identity is who asks.
type identity struct {
	actor string
	role  ledger.Role
}

// tokenActor begins the names of those who came with a token.
const tokenActor = "token "

// authenticator says who a request is from; ErrNone: nobody that is known.
type authenticator func(*http.Request) (identity, error)

type identityKey struct{}

func identityOf(ctx context.Context) identity {
	id, _ := ctx.Value(identityKey{}).(identity) // the zero value may nothing
	return id
}

// byToken takes a bearer token, or one as the password of HTTP Basic, which
// browsers ask for.
func (s *Server) byToken(r *http.Request) (identity, error) {
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		_, secret, ok = r.BasicAuth()
	}
	if !ok || secret == "" {
		return identity{}, ledger.ErrNone
	}
	t, err := s.Ledger.TokenOf(r.Context(), strings.TrimSpace(secret), time.Now())
	return identity{tokenActor + t.Name, t.Role}, err
}

// guard lets those through who may: nobody may what no route names.
func (s *Server) guard(who authenticator, needed ledger.Role, do func(http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		id, err := who(r)
		if err == nil {
			known(r.Context())
		}
		switch {
		case errors.Is(err, ledger.ErrNone):
			h.Set("WWW-Authenticate", `Basic realm="slipway: any name, and a token as the password"`)
			s.say(w, http.StatusUnauthorized, problem{"give a token: `slipway tokens add NAME --role viewer` on the server makes one"})
			return
		case err != nil:
			s.fail(w, err)
			return
		case !id.role.May(needed):
			s.note(r.Context(), id, r)
			s.say(w, http.StatusForbidden, problem{id.actor + " is a " + string(id.role) + "; this takes a " + string(needed)})
			return
		}
		do(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, id)))
	}
}

// note writes down what somebody tried who may not.
func (s *Server) note(ctx context.Context, id identity, r *http.Request) {
	err := s.Ledger.Note(ctx, ledger.Deed{At: time.Now(), Actor: id.actor, Action: "refused", Object: r.Method + " " + r.URL.Path})
	if err != nil {
		s.Log.Error().Err(err).Msg("a refusal is not written down")
	}
}
