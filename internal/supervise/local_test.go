package supervise

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"slipway/pipeline"
)

func delivered(names ...string) []Delivered {
	var all []Delivered
	for _, n := range names {
		all = append(all, Delivered{Name: n, Repository: "shop/" + n, Digest: digestA})
	}
	return all
}

func TestLocalDelivery(t *testing.T) {
	l, err := ParseLocal(map[string]any{
		"restart": "on-failure", "memory": "1.5g", "drain": "3s",
		"images": map[string]any{
			"web": map[string]any{"ports": []any{"127.0.0.1:8080:80"}, "depends_on": []any{"db"}, "files": map[string]any{"/etc/shop.conf": "shop.conf"}, "cpus": int64(2)},
			"db":  map[string]any{"volumes": []any{"data:/var/lib/mysql", "/srv/seed:/seed:ro"}, "network": "services", "restart": "always", "memory": "512M"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	plugs := Plugs{
		Environment: map[string]string{"A": "b"}, Secrets: map[string]pipeline.Secret{"P": {Env: "P"}, "Q": {Age: "q.age"}},
		File: func(name string) ([]byte, error) { return []byte("of " + name), nil },
	}
	got, err := l.Containers(delivered("db", "web"), plugs)
	if err != nil {
		t.Fatal(err)
	}
	sealed := map[string][]byte{"q.age": []byte("of q.age")}
	want := []Container{
		{
			Name: "db", Repository: "shop/db", Digest: digestA, Secrets: plugs.Secrets, Sealed: sealed, Restart: RestartAlways, Drain: 3 * time.Second,
			Mounts:  []Mount{{Volume: "data", Target: "/var/lib/mysql"}, {Source: "/srv/seed", Target: "/seed", ReadOnly: true}},
			Service: pipeline.Service{Environment: plugs.Environment, Resources: pipeline.Resources{Memory: 512 << 20}},
		},
		{
			Name: "web", Repository: "shop/web", Digest: digestA, Secrets: plugs.Secrets, Sealed: sealed, Restart: RestartOnFailure, Drain: 3 * time.Second, Internet: true,
			Ports: []Port{{Host: "127.0.0.1:8080", Container: 80}}, Files: map[string][]byte{"/etc/shop.conf": []byte("of shop.conf")},
			Service: pipeline.Service{
				Environment: plugs.Environment, DependsOn: map[string]string{"db": "service_healthy"},
				Resources: pipeline.Resources{Memory: 3 << 29, CPUs: 2},
			},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestLocalDeliveriesThatCannotBe(t *testing.T) {
	for why, config := range map[string]map[string]any{
		`unknown field "port"`:             {"port": "80"},
		"has no image of that name":        {"images": map[string]any{"wbe": map[string]any{}}},
		"write ports, volumes and command": {"ports": []any{"80:80"}},
		"port \"80\"":                      {"images": map[string]any{"web": map[string]any{"ports": []any{"80"}}}},
		"volume \"data\"":                  {"images": map[string]any{"web": map[string]any{"volumes": []any{"data"}}}},
		"volume \"./data:/x\"":             {"images": map[string]any{"web": map[string]any{"volumes": []any{"./data:/x"}}}},
		"network \"host\"":                 {"network": "host"},
		"is no duration":                   {"drain": "ten"},
		"is no size":                       {"memory": "much"},
		"no such file":                     {"files": map[string]any{"/etc/x": "x"}},
	} {
		l, err := ParseLocal(config)
		if err == nil {
			_, err = l.Containers(delivered("db", "web"), Plugs{File: func(string) ([]byte, error) { return nil, errors.New("no such file") }})
		}
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v", why, err)
		}
	}
}
