package builder

import (
	"bytes"
	"io"
	stdlog "log"

	"github.com/rs/zerolog"
	"github.com/sirupsen/logrus"
)

// routeLogs sends what BuildKit, containerd and their HTTP/2 connections say to
// the operator's log at debug level. Both loggers are global to the process, so
// the last Open wins.
func routeLogs(log zerolog.Logger) {
	log = log.With().Str("part", "buildkit").Logger()
	stdlog.SetFlags(0)
	stdlog.SetOutput(logWriter{log})
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	level := logrus.WarnLevel
	if log.GetLevel() <= zerolog.DebugLevel {
		level = logrus.DebugLevel
	}
	std.SetLevel(level)
	std.ReplaceHooks(logrus.LevelHooks{})
	std.AddHook(&logHook{log: log})
}

type logHook struct{ log zerolog.Logger }

func (h *logHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h *logHook) Fire(e *logrus.Entry) error {
	h.log.Debug().Fields(map[string]any(e.Data)).Str("said", e.Level.String()).Msg(e.Message)
	return nil
}

type logWriter struct{ log zerolog.Logger }

func (w logWriter) Write(line []byte) (int, error) {
	w.log.Debug().Msg(string(bytes.TrimSpace(line)))
	return len(line), nil
}
