//go:build linux && !client

package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"slipway/internal/engine"
	"slipway/internal/mask"
	"slipway/internal/network"
	"slipway/internal/volume"
	"slipway/runner"
)

// services gives what runs beside a test, and closes their logs with release.
func (w wiring) services(ctx context.Context, r engine.TestRequest, m *mounts, lent *pins) (services []runner.Service, release func(), err error) {
	var logs []*serviceLog
	release = func() {
		for _, l := range logs {
			l.close()
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.Services)) {
		of := r.Services[key]
		s := runner.Service{Name: of.Name, Service: of.Service, Image: of.From, Rootfs: lent.rootfs(w)}
		if s.Binds, err = m.binds(ctx, of.Volumes, of.From, volume.CopyOptions{Limit: of.Resources.Disk}); err != nil {
			return nil, release, fmt.Errorf("service %s: %w", of.Name, err)
		}
		if s.Service.Environment, err = serviceEnvironment(w.dir, of.Service); err != nil {
			return nil, release, err
		}
		s.Service.DependsOn = map[string]string{}
		for other, condition := range of.DependsOn {
			s.Service.DependsOn[r.Services[other].Name] = condition
		}
		log, err := openServiceLog(r.Logs, of.Name, w.mask)
		if err != nil {
			return nil, release, err
		}
		logs = append(logs, log)
		s.Log = log
		services = append(services, s)
	}
	return services, release, nil
}

// privateNetwork makes the network of a test and its services.
func privateNetwork(ctx context.Context) (runner.Network, error) {
	s, err := network.NewSegment(ctx)
	if err != nil {
		return runner.Network{}, err
	}
	return runner.Network{
		Address: func(member int) ([]netip.Addr, error) {
			a, err := network.SegmentAddress(member)
			return []netip.Addr{a.IPv4, a.IPv6}, err
		},
		Join: func(ctx context.Context, netns string, member int) error {
			a, err := network.SegmentAddress(member)
			if err != nil {
				return err
			}
			return s.Join(ctx, netns, a)
		},
		Dial: network.Dial, Close: s.Close, Path: s.Path(),
	}, nil
}

// maxServiceLog is how much of what a service says is kept: its beginning, where
// the reason of most failures is. The end is shown with a failed test anyway.
const maxServiceLog = 64 << 20

// serviceLog keeps what a service says in a file. A service may go on talking
// after its test has ended, until it is killed: nobody wants to hear that.
type serviceLog struct {
	mu     sync.Mutex
	hidden *mask.Writer // to file; nil once it is closed
	file   cutFile
}

// cutFile is a file that takes so many bytes more.
type cutFile struct {
	*os.File
	left int64
}

func openServiceLog(dir, name string, hide *mask.Mask) (*serviceLog, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep the log of service %s: %w", name, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, name+logSuffix), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep the log of service %s: %w", name, err)
	}
	l := &serviceLog{file: cutFile{f, maxServiceLog}}
	l.hidden = hide.Writer(&l.file)
	return l, nil
}

func (l *serviceLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hidden == nil {
		return len(p), nil
	}
	return l.hidden.Write(p)
}

func (f *cutFile) Write(p []byte) (int, error) {
	if f.left == 0 {
		return len(p), nil
	}
	keep := p[:min(int64(len(p)), f.left)]
	f.left -= int64(len(keep))
	if _, err := f.File.Write(keep); err != nil {
		return 0, err
	}
	if f.left == 0 {
		if _, err := fmt.Fprintf(f.File, "\n[slipway: log cut here, after %d bytes]\n", maxServiceLog); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (l *serviceLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.hidden.Close() // what a write failed at has been told
	_ = l.file.Close()
	l.hidden = nil
}
