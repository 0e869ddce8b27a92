package pipeline

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// digestOf is the digest of v's canonical JSON: keys in a fixed order and no
// zero fields, so that a field that a later slipway adds changes no digest of a
// plan that does not use it.
func digestOf(v any) digest.Digest {
	text, err := json.Marshal(v)
	if err != nil {
		panic("pipeline: a plan that is no JSON: " + err.Error()) // strings, numbers, maps and slices only
	}
	return digest.FromBytes(text)
}

// used gives plan the services and volumes of its own tasks.
func (x *expansion) used(plan *Plan) {
	plan.Services, plan.Volumes = map[string]Service{}, map[string]VolumeSeed{}
	for _, t := range plan.Tasks {
		if t.Kind != TestTask {
			continue
		}
		x.usedVolumes(plan, t.Test.Volumes)
		for _, key := range t.Test.Services {
			x.usedServices(plan, key)
		}
	}
	if len(plan.Services) == 0 {
		plan.Services = nil
	}
	if len(plan.Volumes) == 0 {
		plan.Volumes = nil
	}
}

func (x *expansion) usedServices(plan *Plan, key string) {
	s := x.services[key]
	if _, done := plan.Services[key]; done || s == nil {
		return
	}
	plan.Services[key] = s.Service
	x.usedVolumes(plan, s.Volumes)
	for other := range s.DependsOn {
		x.usedServices(plan, other)
	}
}

func (x *expansion) usedVolumes(plan *Plan, mounts []Volume) {
	for _, v := range mounts {
		if !strings.HasPrefix(v.Source, "./") {
			plan.Volumes[v.Source] = x.seeds[v.Source].VolumeSeed
		}
	}
}

// Definition is the digest of what a task is, apart from the image it runs in:
// of a test, the test with the services and volumes it uses; of a build, the
// build. Two tasks with the same definition on the same image and the same files
// do the same.
func (p Plan) Definition(t Task) digest.Digest {
	d := struct {
		Image    string                `json:"image"`
		Matrix   map[string]string     `json:"matrix,omitzero"`
		Build    *Build                `json:"build,omitzero"`
		Test     *Test                 `json:"test,omitzero"`
		Services map[string]Service    `json:"services,omitempty"`
		Volumes  map[string]VolumeSeed `json:"volumes,omitempty"`
	}{t.Image, t.Matrix, t.Build, t.Test, p.ServicesOf(t), map[string]VolumeSeed{}}
	if t.Test != nil {
		mounts := slices.Clone(t.Test.Volumes)
		for _, s := range d.Services {
			mounts = append(mounts, s.Volumes...)
		}
		for _, v := range mounts {
			if seed, named := p.Volumes[v.Source]; named {
				d.Volumes[v.Source] = seed
			}
		}
	}
	return digestOf(d)
}

// ServicesOf gives the services that run beside a test, those they depend on included.
func (p Plan) ServicesOf(t Task) map[string]Service {
	all := map[string]Service{}
	if t.Test != nil {
		for _, key := range t.Test.Services {
			p.closure(key, all)
		}
	}
	return all
}

func (p Plan) closure(key string, into map[string]Service) {
	s, known := p.Services[key]
	if _, done := into[key]; done || !known {
		return
	}
	into[key] = s
	for other := range maps.Keys(s.DependsOn) {
		p.closure(other, into)
	}
}
