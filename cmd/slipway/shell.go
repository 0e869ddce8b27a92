package main

import (
	"github.com/spf13/cobra"
)

type shellFlags struct {
	serverFlags
	user    string
	service string
	rm      bool
}

func shellCommand(g *globals) *cobra.Command {
	var f shellFlags
	cmd := &cobra.Command{
		Use:   "shell [RUN/TEST] [-- COMMAND...]",
		Short: "Open a terminal in the kept sandbox of a failed test, its services still up",
		Long: "Opens a terminal in the sandbox that `slipway run pipeline --keep-failed` kept of a\n" +
			"failed test, as the test's user, with its environment and in its directory. With a\n" +
			"COMMAND it runs that instead, and its exit code is slipway's. RUN may be `last` or\n" +
			"the beginning or end of an ID. Without arguments it lists what is kept.",
		RunE: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			if dash < 0 {
				dash = len(args)
			}
			if dash > 1 || dash == 0 && len(args) > 0 {
				return usagef("write `slipway shell RUN/TEST -- COMMAND...`; see `slipway shell --help`")
			}
			if dash == 0 && f.rm {
				return usagef("--rm needs RUN or RUN/TEST; `slipway shell` lists what is kept")
			}
			if done, err := g.remoteShell(cmd.Context(), f, args[:dash], args[dash:]); done || err != nil {
				return err
			}
			return g.shellHere(cmd.Context(), f, args[:dash], args[dash:])
		},
	}
	f.serverFlags.register(cmd.Flags())
	cmd.Flags().StringVar(&f.user, "user", "", "run as this user of the image (default: the test's)")
	cmd.Flags().StringVar(&f.service, "service", "", "in the sandbox of this service of the test")
	cmd.Flags().BoolVar(&f.rm, "rm", false, "remove what is kept of RUN or RUN/TEST")
	return cmd
}
