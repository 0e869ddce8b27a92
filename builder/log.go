package builder

import (
	"io"

	"github.com/rs/zerolog"
	"github.com/sirupsen/logrus"
)

// routeLogs sends what BuildKit and containerd say to the operator's log at
// debug level. logrus is global to the process, so the last Open wins.
func routeLogs(log zerolog.Logger) {
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	level := logrus.WarnLevel
	if log.GetLevel() <= zerolog.DebugLevel {
		level = logrus.DebugLevel
	}
	std.SetLevel(level)
	std.ReplaceHooks(logrus.LevelHooks{})
	std.AddHook(&logHook{log: log.With().Str("part", "buildkit").Logger()})
}

type logHook struct{ log zerolog.Logger }

func (h *logHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h *logHook) Fire(e *logrus.Entry) error {
	h.log.Debug().Fields(map[string]any(e.Data)).Str("said", e.Level.String()).Msg(e.Message)
	return nil
}
