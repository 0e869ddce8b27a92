package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff/apply"
	ctdmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/executor/resources"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/grpcerrors"
	_ "github.com/moby/buildkit/util/grpcutil/encoding/proto" // the codec BuildKit's messages are made for
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/resolver"
	resolverconfig "github.com/moby/buildkit/util/resolver/config"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/moby/buildkit/worker/label"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

const (
	snapshotterName = "overlayfs"
	namespace       = "buildkit" // containerd's word for a tenant of its stores; there is one
	lockTimeout     = time.Second
)

// engine is BuildKit's daemon in this process: one worker, one controller, no
// socket. It is assembled from BuildKit's parts and not by its own
// constructors, because slipway needs the stores they hide.
type engine struct {
	worker      *base.Worker
	content     *containerdsnapshot.Store
	images      *imageStore
	db          *ctdmetadata.DB
	snapshotter snapshots.Snapshotter
	steps       *stepExecutor

	controller *control.Controller
	server     *grpc.Server
	listener   *bufconn.Listener
	served     chan struct{}
	stop       chan struct{}
	closers    []func() error // of parts no controller owns yet
}

// openEngine opens (or makes) every store under o.Root and starts the controller.
func openEngine(ctx context.Context, o Options) (_ *engine, err error) {
	if err := mount.SetTempMountLocation(TempDir(o.Root)); err != nil {
		return nil, err
	}
	e := &engine{stop: make(chan struct{}), served: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	opt, err := e.workerOpt(ctx, o)
	if err != nil {
		return nil, err
	}
	if e.worker, err = base.NewWorker(ctx, opt); err != nil {
		return nil, err
	}
	if err := e.control(ctx, o.Root); err != nil {
		return nil, err
	}
	e.serve()
	return e, nil
}

// workerOpt opens the stores a worker stands on.
func (e *engine) workerOpt(ctx context.Context, o Options) (opt base.WorkerOpt, err error) {
	root := workerDir(o.Root)
	// This store is the first to be locked, so the others never wait.
	db, err := boltutil.Open(filepath.Join(root, "containerdmeta.db"), 0o600, &bolt.Options{
		FreelistType: bolt.FreelistMapType, NoSync: true, Timeout: lockTimeout,
	})
	if err != nil {
		return opt, fmt.Errorf("%w: is another slipway using this root?", err)
	}
	e.own(synced(db.Close, filepath.Join(root, "containerdmeta.db")))
	sn, err := openSnapshots(o.Root)
	if err != nil {
		return opt, err
	}
	e.own(synced(sn.Close, filepath.Join(snapshotDir(o.Root), "metadata.db")))
	cs, err := local.NewStore(filepath.Join(root, "content"))
	if err != nil {
		return opt, err
	}
	e.db = ctdmetadata.NewDB(db, cs, map[string]snapshots.Snapshotter{snapshotterName: sn})
	if err := e.db.Init(ctx); err != nil {
		return opt, err
	}
	md, err := openRecords(root)
	if err != nil {
		return opt, err
	}
	e.own(md.Close)
	id, idErr := base.ID(root)
	monitor, monErr := resources.NewMonitor()
	if err := errors.Join(idErr, monErr); err != nil {
		return opt, err
	}
	nets := stepNetworks(o)
	if e.steps, err = newStepExecutor(o, nets, monitor); err != nil {
		return opt, err
	}
	e.views(o.Root)
	opt = base.WorkerOpt{
		ID: id, Root: root,
		Labels:        map[string]string{label.Executor: "oci", label.Snapshotter: snapshotterName},
		MetadataStore: md, ContentMetadata: db,
		NetworkProviders: nets, Executor: e.steps, ResourceMonitor: monitor,
		Snapshotter:    containerdsnapshot.NewSnapshotter(snapshotterName, e.snapshotter, namespace, nil),
		ContentStore:   e.content,
		Applier:        apply.NewFileSystemApplier(e.content),
		Differ:         newDiffer(e.content, emptyDir(o.Root)),
		ImageStore:     e.images,
		Platforms:      []ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())},
		LeaseManager:   leaseutil.WithNamespace(ctdmetadata.NewLeaseManager(e.db), namespace),
		GarbageCollect: e.db.GarbageCollect,
		MountPoolRoot:  mountDir(o.Root),
		RegistryHosts:  resolver.NewRegistryConfig(registryConfig(o.Registries)),
		GCPolicy:       gcPolicy(o),
		ParallelismSem: parallelism(o),
		BuildkitVersion: client.BuildkitVersion{
			Package: "github.com/moby/buildkit", Version: Versions().BuildKit,
		},
	}
	return opt, nil
}

// parallelism bounds the steps that run at once; nil is no bound.
func parallelism(o Options) *semaphore.Weighted {
	if o.Parallel <= 0 {
		return nil
	}
	return semaphore.NewWeighted(int64(o.Parallel))
}

// views are the stores as one tenant sees them.
func (e *engine) views(root string) {
	e.snapshotter = e.db.Snapshotter(snapshotterName)
	e.content = containerdsnapshot.NewContentStore(e.db.ContentStore(), namespace)
	e.images = &imageStore{ctdmetadata.NewImageStore(e.db), namesDir(root)}
}

// The stores are synced to disk when they are closed and not at each change: a
// build changes them a hundred times, and waiting for the disk took most of the
// time of a build whose steps are all cached. That is safe against a killed
// process, whose writes the kernel keeps; see durable.go for a lost machine.

func openSnapshots(root string) (snapshots.Snapshotter, error) {
	ms, err := storage.NewMetaStore(filepath.Join(snapshotDir(root), "metadata.db"), func(o *bolt.Options) error {
		o.NoSync, o.Timeout = true, lockTimeout
		return nil
	})
	if err != nil {
		return nil, err
	}
	return overlay.NewSnapshotter(snapshotDir(root), overlay.AsynchronousRemove, overlay.WithMetaStore(ms))
}

func openRecords(root string) (*metadata.Store, error) {
	md, err := metadata.NewStore(filepath.Join(root, "metadata_v2.db"))
	if err != nil {
		return nil, err
	}
	// BuildKit opens it and offers no option; nobody else uses it yet.
	err = md.DB().View(func(tx *bolt.Tx) error {
		tx.DB().NoSync = true
		return nil
	})
	return md, err
}

// control starts the controller; from here on it owns the worker and its stores.
func (e *engine) control(ctx context.Context, root string) error {
	wc := &worker.Controller{}
	if err := wc.Add(e.worker); err != nil {
		return err
	}
	sessions, err := session.NewManager()
	if err != nil {
		return err
	}
	cacheStore, err := bboltcachestorage.NewStore(filepath.Join(root, "cache.db"))
	if err != nil {
		return err
	}
	e.own(cacheStore.Close)
	history, err := boltutil.SafeOpen(filepath.Join(root, "history.db"), 0o600, &bolt.Options{
		FreelistType: bolt.FreelistMapType, NoSync: true, Timeout: lockTimeout,
	})
	if err != nil {
		return err
	}
	e.own(history.Close)
	none := int64(0) // slipway keeps its own history of runs
	e.controller, err = control.NewController(control.Opt{
		SessionManager: sessions, WorkerController: wc,
		// The gateway frontend, which would run a frontend image, is left out.
		Frontends: map[string]frontend.Frontend{
			"dockerfile.v0": forwarder.NewGatewayForwarder(wc.Infos(), dockerfile.Build),
		},
		CacheManager: solver.NewCacheManager(ctx, "local", cacheStore, worker.NewCacheResultStorage(wc)),
		HistoryDB:    history, CacheStore: cacheStore,
		LeaseManager: e.worker.LeaseManager(), ContentStore: e.worker.ContentStore(),
		HistoryConfig:  &config.HistoryConfig{MaxEntries: &none},
		GarbageCollect: e.worker.GarbageCollect, GracefulStop: e.stop,
	})
	return err
}

// serve answers the control API on a connection that never leaves the process.
func (e *engine) serve() {
	e.server = newControlServer()
	e.controller.Register(e.server)
	e.listener = bufconn.Listen(1 << 20)
	go func() {
		defer close(e.served)
		_ = e.server.Serve(e.listener) // ends with Stop
	}()
}

func newControlServer(opts ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts,
		grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor),
		grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
		grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
	)...)
}

func (e *engine) dial(ctx context.Context) (*client.Client, error) {
	return client.New(ctx, "passthrough:///builder",
		client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return e.listener.DialContext(ctx) }),
		client.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
}

func (e *engine) own(close func() error) { e.closers = append(e.closers, close) }

// Close ends everything that was opened, in any state of openness.
func (e *engine) Close() error {
	close(e.stop)
	if e.server != nil {
		e.server.Stop()
		<-e.served
	}
	if e.worker != nil {
		forgetChecksums(e.worker.MetadataStore)
	}
	// Each store waits for the disk, so they are closed together; the controller
	// would close them one after the other. Closing twice is allowed.
	var stores errgroup.Group
	for _, c := range e.closers {
		stores.Go(c)
	}
	errs := []error{stores.Wait()}
	if e.controller != nil {
		errs = append(errs, e.controller.Close())
	}
	if e.steps != nil {
		errs = append(errs, e.steps.Close())
	}
	return errors.Join(errs...)
}

// synced closes a database that was opened without syncing, and then syncs it.
func synced(closeDB func() error, path string) func() error {
	return func() error {
		if err := closeDB(); err != nil {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) { // never written
			return nil
		}
		if err != nil {
			return err
		}
		return errors.Join(unix.Fdatasync(int(f.Fd())), f.Close())
	}
}

// forgetChecksums empties BuildKit's process-wide cache of context checksums,
// whose entries hold the database that is about to be closed: a later Open in
// this process would find them and fail with "database not open".
func forgetChecksums(md *metadata.Store) {
	items, err := md.All()
	if err != nil {
		return // the store is broken; nothing can be looked up in it either
	}
	for _, it := range items {
		contenthash.ClearCacheContext(checksumKey{id: it.ID()})
	}
}

// checksumKey is the one part of a reference that ClearCacheContext looks at.
type checksumKey struct {
	cache.RefMetadata
	id string
}

func (k checksumKey) ID() string { return k.id }

func registryConfig(in map[string]Registry) map[string]resolverconfig.RegistryConfig {
	out := map[string]resolverconfig.RegistryConfig{}
	for host, r := range in {
		c := resolverconfig.RegistryConfig{Mirrors: r.Mirrors, RootCAs: r.CA}
		if r.PlainHTTP {
			c.PlainHTTP = &r.PlainHTTP
		}
		if r.Insecure {
			c.Insecure = &r.Insecure
		}
		out[host] = c
	}
	return out
}

var _ content.Store = (*containerdsnapshot.Store)(nil)
