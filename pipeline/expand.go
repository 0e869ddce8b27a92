package pipeline

import (
	"maps"
	"slices"
)

// maxTasks is far more than one machine runs in a day.
const maxTasks = 10_000

// Expand makes the plan of p for one event. only keeps the tasks named ("api",
// "api/unit", "api[python=3.12]", "api[python=3.12]/unit"; a part of a matrix
// selects all that have it) and what they need; without it, all are kept.
//
// An image's build needs the builds of the images it names: of an image with a
// matrix, those whose values agree in the keys that both have. A test needs its
// own image, the tests it names, and the images its services and volumes come
// from. Tasks that the event does not run stay in the plan with a Skip reason,
// but a build that a running task needs is never skipped.
//
// The error is an Errors for what only the event shows, or names what only does
// not find; both are the user's to mend.
func (p *Pipeline) Expand(ev Event, only ...string) (Plan, error) {
	errs := newProblems(p.Name, p.source)
	x := newExpansion(p, &ev, errs, maxValues)
	x.run()
	if err := errs.err(); err != nil {
		return Plan{}, err
	}
	plan := Plan{Environments: slices.Clone(p.Environments)}
	tasks := ordered(x.tasks)
	p.skip(tasks, ev)
	tasks, err := selected(tasks, only)
	if err != nil {
		return Plan{}, err
	}
	plan.Tasks = tasks
	x.used(&plan)
	plan.Digest = digestOf(plan)
	return plan, nil
}

// expansion is one walk over all combinations of a pipeline.
type expansion struct {
	p        *Pipeline
	d        *decoder
	event    *Event // nil while parsing
	tasks    []Task // in file order; Needs are indexes into it
	builds   map[string][]int
	index    map[string]int          // by ID
	services map[string]*usedService // by key
	seeds    map[string]seed
}

func newExpansion(p *Pipeline, ev *Event, errs *problems, left int) *expansion {
	return &expansion{
		p: p, event: ev, d: &decoder{errs: errs, left: &left},
		builds: map[string][]int{}, index: map[string]int{},
		services: map[string]*usedService{}, seeds: map[string]seed{},
	}
}

// written is a task with what its file says about its needs.
type written struct {
	task  int
	image *image
	node  *node
	d     *decoder
	test  testFile
}

func (x *expansion) run() {
	x.readSeeds()
	var all []written
	for _, img := range x.p.images {
		if img.value.build == nil {
			continue // reported as missing
		}
		for _, matrix := range img.variants {
			if len(x.tasks) > maxTasks {
				x.d.errs.add(img.at, "more than %d builds and tests; split the pipeline", maxTasks)
				return
			}
			all = append(all, x.variant(img, matrix)...)
		}
	}
	for _, w := range all {
		if x.tasks[w.task].Kind == BuildTask {
			x.needsOfBuild(w)
		} else {
			x.needsOfTest(w)
		}
	}
	for i := range x.tasks {
		slices.Sort(x.tasks[i].Needs)
		x.tasks[i].Needs = slices.Compact(x.tasks[i].Needs)
	}
	x.checkCycles()
}

// variant adds the tasks of one combination.
func (x *expansion) variant(img *image, matrix map[string]string) []written {
	d := x.d.at("images", img.name)
	id := img.name + variant(matrix)
	matrix = maps.Clone(matrix) // the plan's reader may do with it as he likes
	d.scope = scope{matrix: matrix, whose: id, event: x.event, lenient: img.lenient}
	build := buildCodec.decode(d.under("build"), img.value.build)
	x.builds[img.name] = append(x.builds[img.name], len(x.tasks))
	all := []written{{task: len(x.tasks), image: img, node: img.value.build, d: d.under("build")}}
	x.add(Task{ID: id, Kind: BuildTask, Image: img.name, Matrix: matrix, Build: &build})
	for _, t := range img.value.tests {
		under := d.under("tests").under(t.name)
		tf := testCodec.decode(under, t.value)
		tf.Name = t.name
		all = append(all, written{task: len(x.tasks), image: img, node: t.value, d: under, test: tf})
		task := Task{ID: id + "/" + t.name, Kind: TestTask, Image: img.name, Matrix: matrix, Test: &tf.Test}
		if x.event != nil {
			task.Skip = tf.when.skip(*x.event)
		}
		x.add(task)
	}
	return all
}

func (x *expansion) add(t Task) {
	x.index[t.ID] = len(x.tasks)
	x.tasks = append(x.tasks, t)
}

// need makes task wait for other. It may be said twice; run puts that right.
func (x *expansion) need(task, other int) {
	if t := &x.tasks[task]; task != other {
		t.Needs = append(t.Needs, other)
	}
}
