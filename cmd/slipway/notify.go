//go:build linux && !client

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/internal/network"
)

func notifyCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "notify", Short: "Say who is told by webhook how runs and promotions of `slipway serve` end", RunE: needsSubcommand}
	cmd.AddCommand(addReceiverCommand(g), listReceiversCommand(g), dropReceiverCommand(g))
	return cmd
}

func addReceiverCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	var r ledger.Receiver
	cmd := &cobra.Command{
		Use: "add URL", Short: "Add a receiver; prints the secret that webhooks to it are signed with, this once", Args: cobra.ExactArgs(1),
		Long: "Has the server send a webhook to URL when a run or a promotion ends. Webhooks are signed as\nstandard-webhooks.com says, and sent again for hours where they are not taken. See docs/server.md.",
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&r.Repo, "repo", "", "tell of this repository alone")
	cmd.Flags().StringSliceVar(&r.Events, "events", nil, "tell of these alone: run.ended, promotion.ended")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		u, err := url.Parse(args[0])
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
			return usagef("%s: write https://HOST/PATH, without a name or password", args[0])
		}
		var id [6]byte
		_, _ = rand.Read(id[:]) // never fails: crypto/rand's contract since Go 1.24
		r.ID, r.URL, r.Secret, r.Created = hex.EncodeToString(id[:]), args[0], []byte(forge.NewSecret()), time.Now()
		return g.withLedger(cmd.Context(), f, func(l *ledger.Ledger) error {
			err := l.AddReceiver(cmd.Context(), r)
			if errors.Is(err, ledger.ErrNone) {
				return usagef("no repository is called %s; `slipway repos ls` lists them", r.Repo)
			}
			if err != nil {
				return usageError{err}
			}
			if err := l.Note(cmd.Context(), ledger.Deed{At: time.Now(), Actor: actorHere(), Action: "notify add", Object: r.ID, Detail: u.Host}); err != nil {
				return err
			}
			if g.json {
				return printJSON(os.Stdout, map[string]string{"id": r.ID, "secret": string(r.Secret)})
			}
			fmt.Printf("%s is told, signed with %s\n", r.URL, r.Secret)
			return nil
		})
	}
	return cmd
}

func listReceiversCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List the receivers, with what went wrong last", Args: cobra.NoArgs}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return g.withLedger(cmd.Context(), f, func(l *ledger.Ledger) error {
			all, err := l.Receivers(cmd.Context())
			if err != nil || g.json {
				return errors.Join(err, printJSON(os.Stdout, all))
			}
			t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "ID\tURL\tREPOSITORY\tEVENTS\tLAST SENT\tWAITING\tPROBLEM")
			for _, r := range all {
				sent := "never"
				if r.Sent != nil {
					sent = r.Sent.Local().Format(time.DateTime)
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", r.ID, r.URL, r.Repo, strings.Join(r.Events, ","), sent, r.Waiting, r.Problem)
			}
			return t.Flush()
		})
	}
	return cmd
}

func dropReceiverCommand(g *globals) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{Use: "rm ID", Short: "Tell a receiver no more", Args: cobra.ExactArgs(1)}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.withLedger(cmd.Context(), f, func(l *ledger.Ledger) error {
			err := l.DropReceiver(cmd.Context(), args[0])
			if errors.Is(err, ledger.ErrNone) {
				return usagef("no receiver is called %s; `slipway notify ls` lists them", args[0])
			}
			return errors.Join(err, l.Note(cmd.Context(), ledger.Deed{At: time.Now(), Actor: actorHere(), Action: "notify rm", Object: args[0]}))
		})
	}
	return cmd
}

// noticeClient sends webhooks to where people have said, but never to addresses that
// are nobody's to name: whatever a name resolves to is looked at before it is dialed.
func noticeClient() *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return network.Outside(to)
	}}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: 5 * time.Second, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
	}}
}
