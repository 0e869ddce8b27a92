package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"slipway/internal/attest"
	"slipway/internal/store"
)

// keyring is where this root's keys lie: never in a sandbox's reach.
func (g *globals) keyring() attest.Keyring {
	return attest.Keyring{Dir: filepath.Join(g.root, "keys")}
}

// signerFlags say who signs instead of the root's own key.
type signerFlags struct {
	command, key string
}

func (f *signerFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.command, "signer", "", "sign with this shell command instead of the root's key: it gets the message on its standard input and prints the signature (SHA-256, ECDSA P-256, DER or its base64)")
	fs.StringVar(&f.key, "signer-key", "", "file of the public key that --signer signs with")
}

// signer gives who signs at a time: the command of the flags, else the ring's own key.
func (f signerFlags) signer(ring attest.Keyring) func(time.Time) (attest.Signer, error) {
	return func(now time.Time) (attest.Signer, error) {
		if f.command == "" {
			return ring.Signer(now)
		}
		if f.key == "" {
			return attest.Signer{}, errors.New("--signer needs --signer-key FILE, the public key that it signs with")
		}
		key, err := attest.ReadKey(f.key)
		if err != nil {
			return attest.Signer{}, fmt.Errorf("--signer-key: %w", err)
		}
		return attest.CommandSigner([]string{"/bin/sh", "-c", f.command}, key), nil
	}
}

func keysCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make, rotate, list and export the keys that sign what runs have shown",
		Args:  cobra.NoArgs,
		RunE:  needsSubcommand,
	}
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the keys of this root, the newest first", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return g.listKeys() },
	}
	cmd.AddCommand(generateKeyCommand(g), rotateKeyCommand(g), list, exportKeyCommand(g))
	return cmd
}

func generateKeyCommand(g *globals) *cobra.Command {
	var valid time.Duration
	var out string
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Make the key that this root signs with, or with --out one of your own",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().DurationVar(&valid, "valid-for", 0, "how long it may sign, e.g. 8760h (default: without an end)")
	cmd.Flags().StringVar(&out, "out", "", "write a private key to this file and its public half to FILE.pub, instead of into the root")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		now := time.Now()
		end, err := endOf(now, valid)
		if err != nil {
			return err
		}
		if out != "" {
			return g.generatePair(out, now, end)
		}
		unlock, err := store.Lock(cmd.Context(), g.root, "slipway keys generate", g.tellWaiting)
		if err != nil {
			return err
		}
		defer unlock()
		key, err := g.keyring().Generate(now, end)
		if err != nil {
			return usageError{err}
		}
		return g.tellKey(key, "key %s signs what is tested on this root; `slipway keys export` prints its public half, for the signers of an environment", key.ID())
	}
	return cmd
}

// endOf is when a key ends that is valid for a time from now; zero for no end.
func endOf(now time.Time, valid time.Duration) (time.Time, error) {
	switch {
	case valid < 0:
		return time.Time{}, usagef("--valid-for %s: give a time to come, such as 8760h", valid)
	case valid == 0:
		return time.Time{}, nil
	}
	return now.Add(valid), nil
}

func (g *globals) generatePair(out string, now, end time.Time) error {
	s, private, err := attest.NewSigner(now, end)
	if err != nil {
		return err
	}
	if err := attest.WritePair(out, s.Key, private); err != nil {
		return usageError{err}
	}
	return g.tellKey(s.Key, "wrote key %s to %s (keep it to yourself) and %s.pub", s.Key.ID(), out, out)
}

func rotateKeyCommand(g *globals) *cobra.Command {
	var valid time.Duration
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Sign with a new key from now on; what the old one has signed stays valid",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().DurationVar(&valid, "valid-for", 0, "how long the new key may sign, e.g. 8760h (default: without an end)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		now := time.Now()
		end, err := endOf(now, valid)
		if err != nil {
			return err
		}
		unlock, err := store.Lock(cmd.Context(), g.root, "slipway keys rotate", g.tellWaiting)
		if err != nil {
			return err
		}
		defer unlock()
		key, ended, err := g.keyring().Rotate(now, end)
		if err != nil {
			return err
		}
		var old []string
		for _, k := range ended {
			old = append(old, k.ID())
		}
		text := "key %s signs from now on"
		if len(old) > 0 {
			text += "; export it and, with its end, %s too, and list both files among the signers"
			return g.tellKey(key, text, key.ID(), strings.Join(old, ", "))
		}
		return g.tellKey(key, text, key.ID())
	}
	return cmd
}

// keyJSON is a key in --json.
type keyJSON struct {
	ID        string     `json:"id"`
	NotBefore *time.Time `json:"not_before,omitempty"`
	NotAfter  *time.Time `json:"not_after,omitempty"`
	Signs     bool       `json:"signs"` // now, on this root
	Public    string     `json:"public"`
}

func jsonOf(k attest.Key, signs bool) keyJSON {
	out := keyJSON{ID: k.ID(), Signs: signs, Public: string(k.Marshal())}
	if !k.NotBefore.IsZero() {
		out.NotBefore = &k.NotBefore
	}
	if !k.NotAfter.IsZero() {
		out.NotAfter = &k.NotAfter
	}
	return out
}

func (g *globals) tellKey(k attest.Key, format string, args ...any) error {
	if g.json {
		return printJSON(os.Stdout, jsonOf(k, true))
	}
	fmt.Printf(format+"\n", args...)
	return nil
}

func (g *globals) listKeys() error {
	all, err := g.keyring().List()
	if err != nil {
		return err
	}
	signer, err := g.keyring().Signer(time.Now())
	signs := func(k attest.Key) bool { return err == nil && k.Equal(signer.Key) }
	if g.json {
		keys := []keyJSON{}
		for _, h := range all {
			keys = append(keys, jsonOf(h.Key, signs(h.Key)))
		}
		return printJSON(os.Stdout, keys)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tFROM\tTO\tSIGNS")
	for _, h := range all {
		mark := ""
		if signs(h.Key) {
			mark = "now"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", h.ID(), dateOf(h.NotBefore), dateOf(h.NotAfter), mark)
	}
	return t.Flush()
}

func dateOf(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func exportKeyCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "export [KEY]",
		Short: "Print a public key with its time, as environments and cosign take it (default: the one that signs)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := g.namedKey(args)
			if err != nil {
				return usageError{err}
			}
			if g.json {
				return printJSON(os.Stdout, jsonOf(key, false))
			}
			_, err = os.Stdout.Write(key.Marshal())
			return err
		},
	}
}

// namedKey finds a key by the beginning of its ID, or the one that signs.
func (g *globals) namedKey(args []string) (attest.Key, error) {
	if len(args) == 0 {
		s, err := g.keyring().Signer(time.Now())
		return s.Key, err
	}
	all, err := g.keyring().List()
	if err != nil {
		return attest.Key{}, err
	}
	var found []attest.Key
	for _, h := range all {
		if args[0] != "" && strings.HasPrefix(h.ID(), args[0]) {
			found = append(found, h.Key)
		}
	}
	if len(found) != 1 {
		return attest.Key{}, fmt.Errorf("%d keys begin with %q; `slipway keys list` shows them", len(found), args[0])
	}
	return found[0], nil
}
