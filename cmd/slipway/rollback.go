package main

import (
	"github.com/spf13/cobra"

	"slipway/internal/server"
	"slipway/promote"
)

func rollbackCommand(g *globals) *cobra.Command {
	var f environmentFlags
	var at serverFlags
	var to string
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "rollback ENVIRONMENT",
		Short: "Bring back what an environment ran before",
		Long:  "Brings back what an environment ran before the promotion that counts now, or what an\nearlier promotion left (--to). It is a new commit; gates are not asked, because what ran\nbefore has passed them. Verification is.\n\n" + exitHelp,
		Args:  cobra.ExactArgs(1),
	}
	f.register(cmd.Flags())
	at.register(cmd.Flags())
	cmd.Flags().StringVar(&to, "to", "", "a promotion, or a commit, of `slipway env history`")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show it, change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if at.server != "" {
			return g.promoteRemotely(ctx, at, server.Wish{Environment: args[0], Rollback: true, To: to}, yes, dryRun)
		}
		return g.withPromoter(ctx, f, func(p *promote.Promoter) error {
			plan, err := p.PlanRollback(ctx, promote.RollbackRequest{Environment: args[0], To: to, Actor: f.person().String()})
			if err != nil {
				return err
			}
			return g.carryOut(plan.Propose(), yes, dryRun, func() (promote.Outcome, promote.Proposal, error) {
				out, err := p.Rollback(ctx, plan)
				return out, plan.Propose(), err
			})
		})
	}
	return cmd
}
