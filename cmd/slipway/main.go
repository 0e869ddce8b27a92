// Command slipway takes a git push to production. This package holds flags,
// wiring and exit codes, and refuses to hold anything else.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	_ "time/tzdata" // freeze windows name time zones, also on machines without zoneinfo

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"slipway/pipeline"
)

// Exit codes are a contract: scripts depend on them.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitRefused  = 3
	exitBroken   = 4
	exitCanceled = 130
)

const exitHelp = `Exit codes: 0 done · 1 the build or a test failed · 2 bad usage or config ·
3 promotion refused · 4 slipway itself failed · 130 cancelled`

// Set by the build: -ldflags "-X main.version=… -X main.commit=…".
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // most commands live for less than a second and hold little
	}
	os.Exit(run(os.Args[1:]))
}

// errInterrupted is the cause of a run that the user stopped.
var errInterrupted = errors.New("interrupted; press Ctrl-C again to stop at once")

func run(args []string) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel(errInterrupted)
		<-signals
		os.Exit(exitCanceled) // the sandbox helper sees its socket close and removes what runs
	}()

	var g globals
	cmd := root(&g)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		report(os.Stderr, err)
	}
	return exitCode(err)
}

// exitError carries an exit code for something that has been told already.
type exitError int

func (e exitError) Error() string { return fmt.Sprint("exit code ", int(e)) }

// usageError is the user's mistake: bad flags, files or configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode is the one place that turns an error into an exit code.
func exitCode(err error) int {
	var exit exitError
	var usage usageError
	var problems pipeline.Errors
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		return int(exit)
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return exitCanceled
	case refusedPromotion(err):
		return exitRefused
	case errors.As(err, &usage), wrongPromotion(err), errors.As(err, &problems):
		return exitUsage
	default:
		return exitBroken
	}
}

func report(w *os.File, err error) {
	var exit exitError
	if errors.As(err, &exit) {
		return
	}
	fmt.Fprintln(w, "slipway:", strings.TrimRight(err.Error(), "\n"))
}

func root(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:           "slipway",
		Short:         "One program that takes a git push to production",
		Long:          "slipway builds the images of a repository, tests exactly what it built, and\npromotes exactly what it tested.\n\n" + exitHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return g.settle(cmd)
		},
	}
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w; see `%s --help`", err, c.CommandPath())
	})
	g.register(cmd.PersistentFlags())
	runCmd := &cobra.Command{Use: "run", Short: "Run something here", RunE: needsSubcommand}
	runCmd.AddCommand(runPipelineCommand(g))
	cmd.AddCommand(
		runCmd,
		validateCommand(g),
		schemaCommand(),
		initCommand(),
		runsCommand(g),
		logsCommand(g),
		shellCommand(g),
		rerunCommand(g),
		cancelCommand(g),
		allowCommand(g),
		keysCommand(g),
		verifyCommand(g),
		promoteCommand(g),
		rollbackCommand(g),
		approveCommand(g),
		envCommand(g),
		versionCommand(g),
	)
	cmd.AddCommand(commandsHere(g)...)
	for _, c := range cmd.Commands() {
		strictArgs(c)
		quoteCommands(c)
	}
	return cmd
}

// quoteCommands keeps pflag from taking a `command` in a flag's usage for the type of its value.
func quoteCommands(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "'") })
	for _, sub := range c.Commands() {
		quoteCommands(sub)
	}
}

// strictArgs turns wrong arguments into usage errors.
func strictArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usagef("%w; see `%s --help`", err, cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		strictArgs(sub)
	}
}

func needsSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s has no command %q; see `%s --help`", cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return usagef("%s needs a command; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
}
