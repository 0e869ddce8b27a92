package pipeline

import "time"

// Service is a container that runs beside a test, in Compose's words.
type Service struct {
	Name        string            `json:"name,omitzero"`  // the host name tests reach it under; the plan's key adds matrix values where its definition uses them
	Image       string            `json:"image,omitzero"` // reference, or "image:NAME" of this pipeline
	Command     []string          `json:"command,omitzero"`
	Entrypoint  []string          `json:"entrypoint,omitzero"`
	Environment map[string]string `json:"environment,omitzero"`
	EnvFile     []string          `json:"env_file,omitzero"`
	Volumes     []Volume          `json:"volumes,omitzero"`
	Tmpfs       []Tmpfs           `json:"tmpfs,omitzero"`
	User        string            `json:"user,omitzero"`
	WorkingDir  string            `json:"working_dir,omitzero"`
	Healthcheck *Healthcheck      `json:"healthcheck,omitzero"`
	DependsOn   map[string]string `json:"depends_on,omitzero"` // service → condition: service_started, service_healthy, service_completed_successfully
	Resources   Resources         `json:"resources,omitzero"`
}

// Healthcheck is Compose's, durations parsed.
type Healthcheck struct {
	Test          []string      `json:"test,omitzero"` // "CMD", argv… or "CMD-SHELL", string; ["NONE"] turns the image's own off
	Interval      time.Duration `json:"interval,omitzero"`
	Timeout       time.Duration `json:"timeout,omitzero"`
	Retries       int           `json:"retries,omitzero"`
	StartPeriod   time.Duration `json:"start_period,omitzero"`
	StartInterval time.Duration `json:"start_interval,omitzero"` // between checks during StartPeriod
}

// VolumeSeed is a named volume of the pipeline. From is empty for an empty volume,
// else "./dir", "image:NAME:/path" or "oci://registry/repo@sha256:…".
type VolumeSeed struct {
	From string `json:"from,omitzero"`
}
