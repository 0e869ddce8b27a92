package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
)

// chore serves commands of this machine, which have the root only through the server
// while it serves. What is said comes line by line, as of a promotion; last comes the
// answer. Whoever goes away ends it.
func (s *Server) chore(do func(context.Context, json.RawMessage, io.Writer) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q json.RawMessage
		if !s.take(w, r, &q) {
			return
		}
		told := &newsWriter{w: w, rc: http.NewResponseController(w), enc: json.NewEncoder(w)}
		stop := told.keepAlive()
		answer := func() any {
			defer s.use(r.Context())()
			return do(r.Context(), q, told)
		}()
		stop()
		told.tell(answer)
	}
}
