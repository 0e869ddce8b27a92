// Package floors holds the map of this module: which floor each package stands
// on, and which room each foreign library may enter. Its test fails when an
// import goes up, sideways or into the wrong room, or when a package is on no floor.
//
// It refuses to know build tags: it reads the import lines of every Go file, so
// that a file that one platform alone compiles is held to the same rules.
package floors

// module is the prefix of our own import paths.
const module = "slipway"

// Floor numbers. A package imports only lower ones.
const (
	nouns      = 1
	tools      = 2
	works      = 3
	conductor  = 4
	server     = 5
	commands   = 6
	harness    = 7 // packages that exist for their tests: they may look at everything, nothing may import them
	unassigned = 0
)

// floor lists package → floor. An entry ending in "/..." also holds what lies
// below it, and that counts as one room: its packages may import each other.
var floor = map[string]int{
	"pipeline":       nouns,
	"internal/flock": nouns,

	"internal/attest":       tools,
	"internal/capacity":     tools,
	"internal/doctor":       tools,
	"internal/forge":        tools,
	"internal/git":          tools,
	"internal/helpers":      tools,
	"internal/junit":        tools,
	"internal/layers":       tools,
	"internal/ledger":       tools,
	"internal/mask":         tools,
	"internal/need":         tools,
	"internal/network/...":  tools,
	"internal/registry/...": tools,
	"internal/schedule":     tools,
	"internal/secret":       tools,
	"internal/store/...":    tools,
	"internal/upload":       tools,
	"internal/volume":       tools,

	"builder/...": works,
	"runner/...":  works,
	"promote/...": works,

	"internal/engine/...": conductor,
	"internal/supervise":  conductor,
	"internal/server/...": server,

	"cmd/...": commands,

	"internal/bench":    harness,
	"internal/examples": harness,
	"internal/floors":   harness,
	"internal/soak":     harness,
}

// room says where a foreign library may be imported, and why it is kept there.
type room struct {
	library string   // import path or a prefix of one, ending at a slash
	in      []string // packages and what lies below them
	why     string
}

var rooms = []room{
	{"github.com/moby/buildkit", []string{"builder"}, "a BuildKit upgrade touches one room"},
	{"github.com/tonistiigi/fsutil", []string{"builder"}, "BuildKit's view of files"},
	{"github.com/containerd/containerd/v2", []string{"builder"}, "BuildKit's store"},
	{"github.com/opencontainers/cgroups", []string{"runner", "cmd/slipway-sandbox"}, "limits belong to sandboxes"},
	{"github.com/opencontainers/runtime-spec", []string{"runner", "cmd/slipway-sandbox", "builder"}, "how a sandbox is made; builder because BuildKit's executor hands its steps over in it"},
	{"github.com/moby/profiles", []string{"runner", "cmd/slipway-sandbox"}, "the seccomp profile of sandboxes"},
	{"github.com/google/go-containerregistry", []string{"internal/registry"}, "one client for registries and image files"},
	{"github.com/go-git", []string{"internal/git"}, "one way to read a repository"},
	{"gvisor.dev/gvisor", []string{"internal/network"}, "the network stack between sandboxes and the outside"},
	{"github.com/vishvananda", []string{"internal/network", "runner", "cmd/slipway-sandbox"}, "links and namespaces of the kernel"},
	{"github.com/spf13", []string{"cmd/slipway"}, "flags are read in cmd"},
	{"gopkg.in/yaml.v3", []string{"pipeline", "promote", "cmd/slipway"}, "one strict reader of .ci.yml, the editor of environment files, and the config file that holds flags"},
	{"go.etcd.io/bbolt", []string{"builder", "internal/store"}, "databases are opened by the rooms that own them"},
	{"filippo.io/age", []string{"internal/secret"}, "whoever decrypts holds what nobody may keep"},
	{"github.com/prometheus", []string{"internal/server"}, "what is measured is shown by the server"},
	{"github.com/coder/websocket", []string{"internal/server", "cmd/slipway"}, "a terminal over the server, at both its ends"},
	{"go.opentelemetry.io", []string{"internal/server", "cmd/slipway"}, "traces are of a server's runs; cmd says where they go"},
	{"database/sql", []string{"internal/ledger"}, "one room speaks SQL"},
	{"modernc.org/sqlite", []string{"internal/ledger"}, "one room speaks SQL"},
	{"github.com/adhocore/gronx", []string{"internal/ledger"}, "one reader of when a schedule is due"},
	{"github.com/jackc/pgx", []string{"internal/ledger"}, "one room speaks SQL"},
	{"flag", []string{"cmd"}, "flags are read in cmd"},
}

// environmentReaders are the functions of package os that make what a package does depend on
// who started the process. Only cmd calls them.
var environmentReaders = map[string]bool{
	"Getenv": true, "LookupEnv": true, "Environ": true, "ExpandEnv": true, "Setenv": true, "Unsetenv": true,
}

// environmentAllowed are the files that may all the same, each with its reason.
var environmentAllowed = map[string]string{
	"internal/need/need.go":  "what a test insists on is said by whoever starts it",
	"builder/environment.go": "BuildKit takes some settings from the environment alone; the builder checks that cmd has set them",
}
