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
	"os"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/registry/endpoint"
	"slipway/internal/registry/local"
)

func registryCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "registry", Short: "Serve this root's images as a registry", RunE: needsSubcommand}
	cmd.AddCommand(registryServeCommand(g))
	return cmd
}

// registryFlags are the settings of `registry serve`.
type registryFlags struct {
	listen, auth, cert, key string
	readOnly, allowDelete   bool
}

func registryServeCommand(g *globals) *cobra.Command {
	var f registryFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Let docker, podman and other machines pull from and push to the local image store",
		Long: "Serves the local image store of this root by the OCI distribution protocol, until it\n" +
			"is interrupted. On loopback anyone on this machine may use it; elsewhere it asks for\n" +
			"the accounts of --auth and speaks TLS.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.serveRegistry(cmd.Context(), f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.listen, "listen", "127.0.0.1:5000", "address and port")
	fs.StringVar(&f.auth, "auth", "", "file of accounts: lines of `htpasswd -B`, with :read, :write or :delete behind each")
	fs.StringVar(&f.cert, "tls-cert", "", "certificate (PEM), its chain included")
	fs.StringVar(&f.key, "tls-key", "", "private key of the certificate (PEM)")
	fs.BoolVar(&f.readOnly, "read-only", false, "refuse pushes and deletions")
	fs.BoolVar(&f.allowDelete, "allow-delete", false, "let clients delete manifests, tags and blobs")
	return cmd
}

func (g *globals) serveRegistry(ctx context.Context, f registryFlags) (err error) {
	o := endpoint.Options{ReadOnly: f.readOnly, Delete: f.allowDelete, Log: g.log}
	if o.Accounts, err = readAccounts(f.auth); err != nil {
		return usageError{err}
	}
	certificate, err := f.certificate()
	if err != nil {
		return usageError{err}
	}
	if err := f.safe(); err != nil {
		return usageError{err}
	}
	if o.Store, err = local.Open(imageStore(g.root)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Store.Close()) }()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("%w; choose another address with --listen", err)
	}
	server := newRegistryServer(endpoint.New(o))
	scheme := "http"
	if certificate != nil {
		l, scheme = tls.NewListener(l, certificate), "https"
	}
	fmt.Fprintf(os.Stderr, "slipway: the images of %s are at %s://%s\n", g.root, scheme, l.Addr())
	return g.serveUntil(ctx, server, l, o.Store)
}

// newRegistryServer bounds what a client may take before its request is read;
// the endpoint bounds bodies.
func newRegistryServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
}

// serveUntil serves until ctx ends, then lets requests finish for a while.
func (g *globals) serveUntil(ctx context.Context, server *http.Server, l net.Listener, store *local.Store) error {
	server.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) }
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-hourly.C:
			if err := store.ExpireUploads(local.DefaultGrace); err != nil {
				g.log.Error().Err(err).Msg("unfinished uploads are not removed")
			}
		case <-ctx.Done():
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			err := server.Shutdown(grace)
			if errors.Is(err, context.DeadlineExceeded) {
				err = server.Close()
			}
			if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
				err = errors.Join(err, e)
			}
			return err
		}
	}
}

// safe refuses to let images or passwords out of the machine unprotected.
func (f registryFlags) safe() error {
	host, _, err := net.SplitHostPort(f.listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w; write HOST:PORT", f.listen, err)
	}
	if a, err := netip.ParseAddr(host); host == "localhost" || err == nil && a.IsLoopback() {
		return nil
	}
	if f.auth == "" {
		return fmt.Errorf("--listen %s is open to other machines: say who may use it with --auth FILE, or listen on 127.0.0.1", f.listen)
	}
	if f.cert == "" {
		return fmt.Errorf("--listen %s would take passwords unencrypted: give --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy that speaks TLS", f.listen)
	}
	return nil
}

func (f registryFlags) certificate() (*tls.Config, error) {
	if (f.cert == "") != (f.key == "") {
		return nil, errors.New("--tls-cert and --tls-key go together; give both")
	}
	if f.cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert %s: %w; give a certificate and its key as PEM files", f.cert, err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}, nil
}

func readAccounts(path string) (*endpoint.Accounts, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--auth: %w", err)
	}
	accounts, err := endpoint.ReadAccounts(f)
	if err != nil {
		err = fmt.Errorf("--auth %s: %w", path, err)
	}
	return accounts, errors.Join(err, f.Close())
}
