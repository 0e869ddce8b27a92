package main

import (
	"context"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/rs/zerolog"

	"slipway/internal/need"
	"slipway/internal/registry"
	"slipway/promote"
	"slipway/promote/deliverytest"
	"slipway/promote/docker/dockertest"
)

// TestLocalDelivery holds `deliver: {local: …}` to what every kind keeps, with a
// real supervisor and real containers.
func TestLocalDelivery(t *testing.T) {
	helpers := requireSandbox(t)
	need.Tool(t, "busybox")
	temp := os.TempDir()
	t.Setenv("TMPDIR", temp)
	before := os.Args[0]
	os.Args[0] = "slipway" // the supervisor is this program again, acting as slipway
	t.Cleanup(func() { os.Args[0] = before })
	deliverytest.Run(t, func(t *testing.T) deliverytest.Subject {
		ok(t, os.Setenv("TMPDIR", temp)) // a builder has set it for its process
		g := &globals{root: need.OpenDir(t), helpers: helpers, log: zerolog.Nop()}
		store, err := g.images()
		ok(t, err)
		all := &registry.Registries{Local: store}
		t.Cleanup(func() {
			ok(t, g.stopSupervisor(context.WithoutCancel(t.Context())))
			ok(t, store.Close())
		})
		version := func(text string) map[string]digest.Digest {
			digests := map[string]digest.Digest{}
			for _, name := range []string{"web", "api"} {
				repo, err := all.Repository("shop/" + name)
				ok(t, err)
				digests[name], err = dockertest.Busybox(t.Context(), repo, "V="+text+name+"; trap 'exit 0' TERM; while :; do /bin/busybox sleep 1000 & wait $!; done")
				ok(t, err)
			}
			return digests
		}
		open := func() promote.Deliverer { return localDelivery{g, all} }
		return deliverytest.Subject{
			Deliverer: open(), Again: open, Old: version("one"), New: version("two"),
			Delivery: promote.Delivery{
				Environment: "prod", Promotion: "p1", Config: map[string]any{"restart": "always", "stop_grace_period": "1s"},
				Images: []promote.DeliveredImage{{Name: "web", Repository: "shop/web"}, {Name: "api", Repository: "shop/api"}},
			},
			Wrong: map[string]any{"images": map[string]any{"wbe": map[string]any{}}},
		}
	})
}
