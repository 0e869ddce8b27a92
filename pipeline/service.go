package pipeline

import "time"

// Service is a container that runs beside a test, in Compose's words.
type Service struct {
	Image       string // reference, or "image:NAME" of this pipeline
	Command     []string
	Entrypoint  []string
	Environment map[string]string
	EnvFile     []string
	Volumes     []Volume
	Tmpfs       []string
	User        string
	WorkingDir  string
	Healthcheck *Healthcheck
	DependsOn   map[string]string // service → condition: service_started, service_healthy, service_completed_successfully
	Resources   Resources
}

// Healthcheck is Compose's, durations parsed.
type Healthcheck struct {
	Test        []string // "CMD", argv… or "CMD-SHELL", string; ["NONE"] turns the image's own off
	Interval    time.Duration
	Timeout     time.Duration
	Retries     int
	StartPeriod time.Duration
}

// VolumeSeed is a named volume of the pipeline. From is empty for an empty volume,
// else "./dir", "image:NAME:/path" or "oci://registry/repo@sha256:…".
type VolumeSeed struct {
	From string
}
