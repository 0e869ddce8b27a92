//go:build linux && !client

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"slipway/internal/forge"
	"slipway/internal/git"
	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/internal/store"
)

// ledgerFlags say where the ledger is.
type ledgerFlags struct{ database string }

func (f *ledgerFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.database, "database", "", "where the server keeps what it has promised: a file for SQLite (default ROOT/server/ledger.db), or postgres://USER@HOST/DATABASE")
}

// openLedger opens the ledger of this root.
func (g *globals) openLedger(ctx context.Context, f ledgerFlags) (*ledger.Ledger, error) {
	o, err := g.ledgerOptions(f)
	if err != nil {
		return nil, err
	}
	return ledger.Open(ctx, o)
}

func (g *globals) ledgerOptions(f ledgerFlags) (o ledger.Options, err error) {
	dir := filepath.Join(g.root, "server")
	key, err := ledger.ReadKey(filepath.Join(dir, "ledger.key"))
	if err != nil {
		return o, err
	}
	o = ledger.Options{Database: f.database, Key: key, Owner: g.root}
	if o.Database == "" {
		o.Database = filepath.Join(dir, "ledger.db")
	}
	if strings.Contains(o.Database, "://") { // several machines may have a root of this name
		host, err := os.Hostname()
		if err != nil {
			return o, err
		}
		o.Owner = host + ":" + g.root
	}
	return o, nil
}

// sourceFlags say which repositories a server may fetch, and how.
type sourceFlags struct {
	hosts      []string
	plain      bool
	local      bool
	knownHosts string
}

func (f *sourceFlags) register(fs *pflag.FlagSet) {
	fs.StringSliceVar(&f.hosts, "git-hosts", nil, "fetch from these hosts alone (default: any, over https and ssh)")
	fs.BoolVar(&f.plain, "git-plain-http", false, "fetch over http, too: tokens go over the network as they are")
	fs.BoolVar(&f.local, "git-local", false, "fetch from directories of this machine, too")
	fs.StringVar(&f.knownHosts, "known-hosts", "", "file of the keys of ssh hosts, as sshd(8) describes it")
}

func (f sourceFlags) policy() git.Policy {
	return git.Policy{File: f.local, Plain: f.plain, Hosts: f.hosts}
}

type serveFlags struct {
	ledgerFlags
	sourceFlags
	signerFlags
	environmentFlags
	retentionFlags
	address, public, cert, tlsKey string
	internet                      string // whose tests may reach it
	plainHTTP, check              bool
	runs, parallel                int
	uploadLimit                   int64 // MiB
	drain, look, gc               time.Duration
	limits                        server.Limits
	proxies                       []string
	retain                        server.Retention // of retentionFlags
	keep                          keepFlags
}

func serveCommand(g *globals) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Take webhooks, build and test every push, promote what goes by itself",
		Long: "Serves this root until it is stopped: takes the webhooks of the repositories that `slipway\nrepos add` has registered, runs their pipelines, tells the forges, and promotes to the\n" +
			"environments that have `auto`. Killed at any moment, it goes on at its next start.\nSee docs/server.md.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.serve(cmd.Context(), f) },
	}
	fs := cmd.Flags()
	f.ledgerFlags.register(fs)
	f.sourceFlags.register(fs)
	f.signerFlags.register(fs)
	f.environmentFlags.register(fs)
	f.keep.register(fs)
	f.retentionFlags.register(fs, 1000)
	fs.DurationVar(&f.gc, "gc-every", 24*time.Hour, "how often to free space, as `slipway gc` does; 0: only when the disk is nearly full or somebody asks")
	fs.StringVar(&f.address, "address", "127.0.0.1:8080", "address and port to listen on")
	fs.StringVar(&f.public, "public-url", "", "what people and forges reach it by (default: http://ADDRESS)")
	fs.StringVar(&f.cert, "tls-cert", "", "certificate (PEM), its chain included")
	fs.StringVar(&f.tlsKey, "tls-key", "", "private key of the certificate (PEM)")
	fs.BoolVar(&f.plainHTTP, "plain-http", false, "listen beyond this machine without TLS: a proxy in front of it speaks that")
	fs.BoolVar(&f.check, "check", false, "say whether it could serve, and end")
	fs.IntVar(&f.runs, "runs", 2, "at most this many runs at once; they share the machine")
	fs.IntVar(&f.parallel, "parallel", 0, "at most this many builds and tests at once (default: what cores and memory carry)")
	fs.Int64Var(&f.uploadLimit, "upload-limit", 1024, "MiB that one slipway run pipeline --server may upload")
	fs.Float64Var(&f.limits.Strangers, "stranger-rate", 10, "so many requests a second are taken of one address that shows no token and no good signature, ten seconds' worth at once; 0: any number")
	fs.Float64Var(&f.limits.Webhooks, "webhook-rate", 2000, "so many good webhooks a second of one repository, ten seconds' worth at once; 0: any number")
	fs.StringVar(&f.internet, "internet", internetAll, "whose tests may ask for 'network: internet': all, trusted (no forks, no uploads) or none; build steps reach out in any case")
	fs.StringSliceVar(&f.proxies, "trusted-proxies", nil, "addresses or networks (10.0.0.0/8) of proxies whose X-Forwarded-For says who asks")
	fs.DurationVar(&f.drain, "drain", 30*time.Second, "when it is stopped: how long runs may go on, before they wait for the next start")
	fs.DurationVar(&f.look, "reconcile-every", 5*time.Minute, "how often to look for pushes whose webhook was lost; 0: never")
	return cmd
}

// publicURL is the address that hooks and links begin with.
func (f serveFlags) publicURL() string {
	if f.public != "" {
		return strings.TrimRight(f.public, "/")
	}
	scheme := "http"
	if f.cert != "" {
		scheme = "https"
	}
	return scheme + "://" + f.address
}

func (f *serveFlags) settle() (_ *tls.Config, err error) {
	if f.retain, err = f.retention(false); err != nil {
		return nil, err
	}
	if f.images < 24*time.Hour || f.gc < 0 {
		return nil, usagef("--keep-images takes at least 24h for a server: what is built now may be promoted later; --gc-every takes nothing below 0")
	}
	if f.runs < 1 || f.parallel < 0 || f.drain < 0 || f.look < 0 || f.uploadLimit < 0 {
		return nil, usagef("--runs takes at least 1, --parallel, --drain, --reconcile-every and --upload-limit nothing below 0")
	}
	if err := f.keep.check(); err != nil {
		return nil, err
	}
	if f.limits.Strangers < 0 || f.limits.Webhooks < 0 {
		return nil, usagef("--stranger-rate and --webhook-rate take nothing below 0")
	}
	if f.internet != internetAll && f.internet != internetTrusted && f.internet != internetNone {
		return nil, usagef("--internet %s: use all, trusted or none", f.internet)
	}
	for _, p := range f.proxies {
		prefix, err := netip.ParsePrefix(p)
		if a, err2 := netip.ParseAddr(p); err2 == nil {
			prefix, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return nil, usagef("--trusted-proxies %s: write an address, or a network as 10.0.0.0/8", p)
		}
		f.limits.Proxies = append(f.limits.Proxies, prefix)
	}
	if u, err := url.Parse(f.publicURL()); err != nil || u.Host == "" {
		return nil, usagef("--public-url %s: write https://HOST", f.public)
	}
	host, _, err := net.SplitHostPort(f.address)
	if err != nil {
		return nil, usagef("--address %s: %w; write HOST:PORT", f.address, err)
	}
	a, err := netip.ParseAddr(host)
	if inside := host == "localhost" || err == nil && a.IsLoopback(); !inside && f.cert == "" && !f.plainHTTP {
		return nil, usagef("--address %s would take tokens unencrypted: give --tls-cert and --tls-key, or --plain-http where a proxy speaks TLS", f.address)
	}
	certificate, err := registryFlags{cert: f.cert, key: f.tlsKey}.certificate()
	if err != nil {
		return nil, usageError{err}
	}
	return certificate, nil
}

func (g *globals) serve(ctx context.Context, f serveFlags) (err error) {
	certificate, err := f.settle()
	if err != nil {
		return err
	}
	if f.check {
		return g.checkServe(ctx, f)
	}
	debug.SetGCPercent(100) // it lives for months
	level := g.log.GetLevel()
	if level == zerolog.WarnLevel { // nobody asked for another
		level = zerolog.InfoLevel
	}
	g.log = zerolog.New(os.Stderr).Level(level).With().Timestamp().Logger()
	v := &serving{globals: g, flags: f, left: map[string]bool{}, bound: f.keep.bound()}
	asked := ctx
	ctx, v.end = context.WithCancelCause(ctx)
	defer v.end(nil)
	if v.stack, err = g.open(ctx, openOptions{command: serveName, sandbox: true, volumes: true, parallel: f.parallel}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.stack.close()) }()
	g.held = v.stack
	if err := v.reapKept(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(v.workDir()); err != nil {
		return fmt.Errorf("remove what runs that were cut off left: %w", err)
	}
	if v.ledger, err = g.openLedger(ctx, f.ledgerFlags); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.ledger.Close()) }()
	if _, err := g.registered(ctx, v.ledger); err != nil {
		return err
	}
	var stop func()
	if v.tracer, stop, err = openTracing(ctx, v.log); err != nil {
		return usageError{err}
	}
	defer stop()
	if err := v.listen(ctx, certificate); err != nil || asked.Err() != nil {
		return err
	}
	return context.Cause(ctx)
}

// registered lists the repositories, whose secrets this root must be able to open.
func (g *globals) registered(ctx context.Context, l *ledger.Ledger) ([]ledger.Repo, error) {
	repos, err := l.Repos(ctx)
	if errors.Is(err, ledger.ErrOtherKey) {
		err = usagef("%w; servers on one ledger share its key: copy server/ledger.key of the root that made the ledger to %s", err, filepath.Join(g.root, "server"))
	}
	return repos, err
}

// options make a server of an opened root.
func (v *serving) options() server.Options {
	return server.Options{
		Ledger: v.ledger, Run: v.run, Promote: v.promoteRun, NewID: func() string { return store.NewRunID(time.Now()) },
		LogFile: func(record string) string { return filepath.Join(v.stack.store.RunDir(record), "lines.jsonl") },
		Public:  v.flags.publicURL(), Runs: v.flags.runs, Drain: v.flags.drain, Reach: reach, Log: v.log,
		Uploads: v.uploads(), Foretell: v.foretell, Promoter: v.promoter, Chores: v.chores(),
		Limits: v.flags.limits, NoticeClient: noticeClient(), Tracer: v.tracer,
		Retain: v.flags.retain, CollectEvery: v.flags.gc, Short: v.short,
		Collect: func(ctx context.Context, how server.Retention) (server.Collected, error) {
			return v.collect(ctx, v.stack, how, v.flags.environmentFlags, v.ledger)
		},
		Kept: v.kept, Shell: v.shell, Thaw: v.thaw, Tidy: v.tidy,
		Look: v.look, LookEvery: v.flags.look, SeenFile: func(repo ledger.Repo) string { return filepath.Join(v.root, "server", "seen", repo.ID+".json") },
	}
}

// short says whether less than a twentieth of the root's disk is free.
func (v *serving) short() (bool, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(v.root, &s); err != nil {
		return false, fmt.Errorf("see how full the disk is: %w", err)
	}
	return s.Bavail*20 < s.Blocks, nil
}

// reach says where a repository's forge takes statuses.
func reach(repo ledger.Repo) server.Reach {
	credential := string(repo.Credential)
	api, err := forge.Kind(repo.Forge).API(repo.URL)
	if err != nil || strings.HasPrefix(credential, "-----BEGIN") {
		return server.Reach{}
	}
	if user, token, both := strings.Cut(credential, ":"); both && user != "" && repo.Forge != string(forge.Bitbucket) {
		credential = token
	}
	return server.Reach{API: api, Token: credential}
}

func (v *serving) listen(ctx context.Context, certificate *tls.Config) error {
	s := server.New(v.options())
	public, err := (&net.ListenConfig{}).Listen(ctx, "tcp", v.flags.address)
	if err != nil {
		return fmt.Errorf("%w; choose another address with --address", err)
	}
	if certificate != nil {
		public = tls.NewListener(public, certificate)
	}
	socket := socketOf(v.root)
	if err := os.RemoveAll(socket); err != nil { // of a server that was killed: the root's lock says that none lives
		return errors.Join(err, public.Close())
	}
	local, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err == nil {
		err = os.Chmod(socket, 0o600) // the directory lets nobody else in meanwhile
	}
	if err != nil {
		return errors.Join(err, public.Close())
	}
	v.log.Info().Str("address", public.Addr().String()).Str("public", v.flags.publicURL()).Str("version", version).Msg("slipway serves")
	return serveAll(ctx, s.Work, map[net.Listener]*http.Server{public: newHTTP(s.Handler()), local: newLocal(s.LocalHandler(actorOf))})
}

// serveAll serves until ctx ends and work has, which may be later, and then lets requests finish.
func serveAll(ctx context.Context, work func(context.Context) error, all map[net.Listener]*http.Server) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	following, hangUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer hangUp(nil)
	ended := make(chan error, len(all))
	for l, server := range all {
		server.BaseContext = func(net.Listener) context.Context { return following }
		go func() {
			err := server.Serve(l)
			if !errors.Is(err, http.ErrServerClosed) {
				stop(err)
			} else {
				err = nil
			}
			ended <- err
		}()
	}
	errs := []error{work(ctx)}
	hangUp(errors.New("the server stops; try again when it is back")) // those that follow logs would never finish
	for _, server := range all {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		if err := server.Shutdown(grace); err != nil {
			errs = append(errs, server.Close())
		}
		cancel()
	}
	for range all {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

func newHTTP(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
}

type actorKey struct{}

// newLocal serves the root's socket, and knows who is at its other end.
func newLocal(h http.Handler) *http.Server {
	s := newHTTP(h)
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, actorKey{}, peerOf(c))
	}
	return s
}

func actorOf(ctx context.Context) string {
	who, _ := ctx.Value(actorKey{}).(string) // set for each connection
	return who
}

// peerOf names who opened a socket, by unix(7) SO_PEERCRED.
func peerOf(c net.Conn) string {
	who := "somebody on this machine"
	raw, err := c.(*net.UnixConn).SyscallConn() //nolint:forcetypeassert // the listener is of unix
	if err != nil {
		return who
	}
	_ = raw.Control(func(fd uintptr) { // else nobody is named
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			who = fmt.Sprint("user ", cred.Uid, " of this machine")
		}
	})
	return who
}

// checkServe tries what serving takes, and starts nothing.
func (g *globals) checkServe(ctx context.Context, f serveFlags) error {
	if err := mustBeRoot(); err != nil {
		return err
	}
	l, err := g.openLedger(ctx, f.ledgerFlags)
	if err != nil {
		return err
	}
	defer l.Close()
	repos, err := g.registered(ctx, l)
	if err := errors.Join(err, l.Ping(ctx)); err != nil {
		return err
	}
	for _, r := range repos {
		if err := f.policy().Check(r.URL); err != nil {
			return usagef("%s: %w; see --git-hosts, --git-plain-http and --git-local", r.Name, err)
		}
	}
	if _, err := f.signer(g.keyring())(time.Now()); err != nil {
		fmt.Fprintf(os.Stderr, "slipway: nothing will be signed, and gates that ask for proof stay shut: %v\n", err)
	}
	fmt.Printf("ready to serve %s at %s\n", plural(len(repos), "repository", "repositories"), f.publicURL())
	return nil
}
