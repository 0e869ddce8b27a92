package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
	"gopkg.in/yaml.v3"

	"slipway/internal/secret"
	"slipway/internal/store"
)

// globals are the settings every command shares.
type globals struct {
	root     string
	json     bool
	logLevel string
	config   string
	helpers  string

	ageIdentity string

	registries map[string]registrySettings // from the config file only
	log        zerolog.Logger
	color      bool

	held *stack // of the server that this process is, whose root nobody else can open; else nil
}

// registrySettings say how a registry is spoken to.
type registrySettings struct {
	Mirrors   []string // hosts tried first, in order
	PlainHTTP bool
	Insecure  bool     // the certificate is not checked
	CA        []string // PEM files trusted besides the system's
}

func (g *globals) register(f *pflag.FlagSet) {
	f.StringVar(&g.root, "root", "", "state directory (default /var/lib/slipway as root, else $XDG_DATA_HOME/slipway)")
	f.BoolVar(&g.json, "json", false, "print one JSON document on stdout; progress goes to stderr")
	f.StringVar(&g.logLevel, "log-level", "warn", "trace, debug, info, warn, error: slipway's own log on stderr")
	f.StringVar(&g.helpers, "helpers", "", "directory of slipway-sandbox, slipway-agent and slipway-runc (default: inside slipway or beside it)")
	f.StringVar(&g.ageIdentity, "age-identity", "", "file of age identities: opens the age-encrypted secrets of environments")
	f.StringVar(&g.config, "config", "", "config file (default /etc/slipway/config.yml, then $XDG_CONFIG_HOME/slipway/config.yml)")
}

// settle gives every flag its value: from the command line, else from its
// environment variable (SLIPWAY_ and the flag's name), else from the config file.
func (g *globals) settle(cmd *cobra.Command) error {
	values, err := g.readConfig(cmd)
	if err != nil {
		return err
	}
	var problems []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" {
			return
		}
		name := "SLIPWAY_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		from, value := name, os.Getenv(name)
		if value == "" {
			node, ok := values[f.Name]
			if !ok {
				return
			}
			from, value = fmt.Sprintf("%s:%d: %s", g.config, node.Line, f.Name), node.Value
		}
		if err := f.Value.Set(value); err != nil {
			problems = append(problems, usagef("%s: %q is not a value of --%s: %w", from, value, f.Name, err))
		}
	})
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	if g.root == "" {
		g.root = defaultRoot()
	}
	if g.root, err = filepath.Abs(g.root); err != nil {
		return usagef("--root: %w", err)
	}
	if g.ageIdentity != "" {
		if g.ageIdentity, err = filepath.Abs(g.ageIdentity); err != nil {
			return usagef("--age-identity: %w", err)
		}
	}
	level, err := zerolog.ParseLevel(g.logLevel)
	if err != nil {
		return usagef("--log-level: %w; use trace, debug, info, warn or error", err)
	}
	g.color = os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("TERM") != "dumb"
	g.log = zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, NoColor: !g.color}).Level(level).With().Timestamp().Logger()
	return nil
}

// secrets finds the values of an environment's secrets from this process.
func (g *globals) secrets() secret.Resolver {
	return secret.Resolver{Getenv: os.LookupEnv, Identity: g.ageIdentity}
}

// home is the user's directory; on Windows it is not in HOME.
func home() string {
	dir, _ := os.UserHomeDir() // without one it is the root of all
	return dir
}

func defaultRoot() string {
	if os.Geteuid() == 0 {
		return "/var/lib/slipway"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "slipway")
	}
	return filepath.Join(home(), ".local/share/slipway")
}

// readConfig reads the config file: a mapping from flag names to values, and
// `registries`. A key that no command's flag bears is an error.
func (g *globals) readConfig(cmd *cobra.Command) (map[string]*yaml.Node, error) {
	path := g.config
	if path == "" {
		path = os.Getenv("SLIPWAY_CONFIG")
	}
	explicit := path != ""
	for _, p := range configPaths(path) {
		data, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) && !explicit {
			continue
		}
		if err != nil {
			return nil, usagef("read the config file: %w", err)
		}
		g.config = p
		return g.parseConfig(cmd.Root(), data)
	}
	return nil, nil
}

func configPaths(explicit string) []string {
	if explicit != "" {
		return []string{explicit}
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		dir = filepath.Join(home(), ".config")
	}
	return []string{"/etc/slipway/config.yml", filepath.Join(dir, "slipway/config.yml")}
}

func (g *globals) parseConfig(root *cobra.Command, data []byte) (map[string]*yaml.Node, error) {
	var file yaml.Node
	if err := yaml.Unmarshal(data, &file); err != nil {
		return nil, usagef("%s: %w", g.config, err)
	}
	values := map[string]*yaml.Node{}
	if len(file.Content) == 0 {
		return values, nil
	}
	top := file.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, usagef("%s:%d: the config file must be a mapping of flag names to values", g.config, top.Line)
	}
	known := flagNames(root)
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		switch {
		case key.Value == "registries":
			registries, err := parseRegistries(g.config, value)
			if err != nil {
				return nil, err
			}
			g.registries = registries
		case !slices.Contains(known, key.Value):
			return nil, usagef("%s:%d:%d: unknown key %q; the keys are registries, %s", g.config, key.Line, key.Column, key.Value, strings.Join(known, ", "))
		case value.Kind != yaml.ScalarNode:
			return nil, usagef("%s:%d:%d: %s takes one value", g.config, value.Line, value.Column, key.Value)
		default:
			values[key.Value] = value
		}
	}
	return values, nil
}

// flagNames lists the flags of all commands, sorted.
func flagNames(cmd *cobra.Command) []string {
	seen := map[string]bool{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		add := func(f *pflag.Flag) { seen[f.Name] = f.Name != "help" && f.Name != "config" }
		c.Flags().VisitAll(add)
		c.PersistentFlags().VisitAll(add)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(cmd)
	var names []string
	for name, ok := range seen {
		if ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// parseRegistries reads, per host: mirrors, plain_http, insecure, ca.
func parseRegistries(file string, node *yaml.Node) (map[string]registrySettings, error) {
	type entry struct {
		Mirrors   []string `yaml:"mirrors"`
		PlainHTTP bool     `yaml:"plain_http"`
		Insecure  bool     `yaml:"insecure"`
		CA        []string `yaml:"ca"`
	}
	if node.Kind != yaml.MappingNode {
		return nil, usagef("%s:%d: registries is a mapping of host names", file, node.Line)
	}
	out := map[string]registrySettings{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		host, value := node.Content[i], node.Content[i+1]
		for j := 0; value.Kind == yaml.MappingNode && j+1 < len(value.Content); j += 2 {
			if k := value.Content[j]; !slices.Contains([]string{"mirrors", "plain_http", "insecure", "ca"}, k.Value) {
				return nil, usagef("%s:%d:%d: unknown key %q of registry %s; use mirrors, plain_http, insecure, ca", file, k.Line, k.Column, k.Value, host.Value)
			}
		}
		var e entry
		if err := value.Decode(&e); err != nil {
			return nil, usagef("%s:%d: registry %s: %w", file, value.Line, host.Value, err)
		}
		out[host.Value] = registrySettings(e)
	}
	return out, nil
}

func (g *globals) tellWaiting(h store.Holder) {
	if h.PID == 0 {
		fmt.Fprintf(os.Stderr, "slipway: waiting for another slipway to leave %s\n", g.root)
		return
	}
	fmt.Fprintf(os.Stderr, "slipway: waiting for `%s` (process %d, for %s) to leave %s\n",
		h.Command, h.PID, time.Since(h.Since).Round(time.Second), g.root)
}
