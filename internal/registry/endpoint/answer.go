package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"slipway/internal/registry/local"
)

// problem is an answer as the distribution spec has it ("Error Codes").
type problem struct {
	status  int
	code    string
	message string
}

func (p *problem) Error() string { return p.code + ": " + p.message }

func badRequest(code, format string, args ...any) error {
	return &problem{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
}

func notFound(code, message string) error { return &problem{http.StatusNotFound, code, message} }

func denied(format string, args ...any) error {
	return &problem{http.StatusForbidden, "DENIED", fmt.Sprintf(format, args...)}
}

func unsupported(format string, args ...any) error {
	return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", fmt.Sprintf(format, args...)}
}

// coded gives errors of the store that the spec has a word for that word; kind
// is what was asked for: BLOB, MANIFEST, BLOB_UPLOAD or NAME.
func coded(kind string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return notFound(kind+"_UNKNOWN", err.Error())
	case errors.Is(err, local.ErrDigest):
		return badRequest("DIGEST_INVALID", "%v", err)
	case errors.Is(err, local.ErrIncomplete):
		return badRequest("MANIFEST_BLOB_UNKNOWN", "%v", err)
	case errors.Is(err, local.ErrManifest):
		return badRequest("MANIFEST_INVALID", "%v", err)
	case errors.Is(err, local.ErrOffset):
		return &problem{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", err.Error()}
	case errors.Is(err, local.ErrBusy), errors.Is(err, local.ErrInUse):
		return &problem{http.StatusConflict, "DENIED", err.Error()}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return badRequest("SIZE_INVALID", "%v", err)
	}
	return err
}

// fail writes an error as the spec wants it.
func (c *call) fail(err error) {
	var p *problem
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &p):
	case errors.Is(err, local.ErrName):
		p = &problem{http.StatusBadRequest, "NAME_INVALID", err.Error()}
	case errors.As(err, &large):
		p = &problem{http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("a manifest may have %d bytes", large.Limit)}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		p = &problem{http.StatusInsufficientStorage, "UNKNOWN", err.Error()}
	case errors.Is(err, os.ErrDeadlineExceeded):
		p = &problem{http.StatusRequestTimeout, "UNKNOWN", "nothing came for too long"}
	case errors.Is(err, context.Canceled): // the client has gone: nobody reads this
		p = &problem{http.StatusBadRequest, "UNKNOWN", "the request was given up"}
	default:
		p = &problem{http.StatusInternalServerError, "UNKNOWN", "the registry failed; its log says why"}
	}
	if p.status == http.StatusUnauthorized {
		c.w.Header().Set("WWW-Authenticate", `Basic realm="slipway", charset="UTF-8"`)
	}
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	// What is left of a body would be read to its end before the next request.
	if c.r.ContentLength != 0 && p.status != http.StatusNotFound && p.status != http.StatusConflict {
		c.w.Header().Set("Connection", "close")
	}
	_ = c.json(p.status, "application/json", map[string][]one{"errors": {{p.code, p.message}}}) // the client has gone
}

// json answers with a document, or with its headers alone to HEAD.
func (c *call) json(status int, mediaType string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.bytes(status, mediaType, b)
}

func (c *call) bytes(status int, mediaType string, b []byte) error {
	h := c.w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	_, err := c.w.Write(b)
	return err
}

// statusWriter remembers the status, and gives a client so much time for each megabyte.
type statusWriter struct {
	http.ResponseWriter
	status  int
	stall   time.Duration
	control *http.ResponseController
}

func (s *statusWriter) WriteHeader(status int) {
	if s.status == 0 {
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

// extend allows another piece the whole time. Where connections have no
// deadlines, as in some tests, there is nothing to extend.
func (s *statusWriter) extend() { _ = s.control.SetWriteDeadline(time.Now().Add(s.stall)) }

func (s *statusWriter) Write(b []byte) (int, error) {
	if s.status == 0 {
		s.status = http.StatusOK
	}
	s.extend()
	return s.ResponseWriter.Write(b)
}

// piece is how much is sent or received between two looks at the clock.
const piece = 1 << 20

// ReadFrom implements io.ReaderFrom, which lets the kernel send files.
func (s *statusWriter) ReadFrom(from io.Reader) (int64, error) {
	limited, ok := from.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{s}, from)
	}
	if s.status == 0 {
		s.status = http.StatusOK
	}
	var all int64
	for limited.N > 0 {
		s.extend()
		n, err := io.CopyN(s.ResponseWriter, limited.R, min(limited.N, piece))
		limited.N -= n
		all += n
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return all, err
		}
	}
	return all, nil
}

// body is what a client sends; each megabyte may take so long and no longer.
func (c *call) body() io.Reader {
	return &slowBody{r: c.r.Body, control: http.NewResponseController(c.w.(*statusWriter).ResponseWriter), stall: c.stall}
}

type slowBody struct {
	r       io.Reader
	control *http.ResponseController
	stall   time.Duration
	left    int
}

func (s *slowBody) Read(p []byte) (int, error) {
	if s.left <= 0 {
		s.left = piece
		_ = s.control.SetReadDeadline(time.Now().Add(s.stall))
	}
	n, err := s.r.Read(p)
	s.left -= n
	return n, err
}
