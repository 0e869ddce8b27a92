package agent

import (
	"sync"

	"golang.org/x/sys/unix"

	"slipway/runner/wire"
)

// children collects every process that ends in the sandbox, orphans that became
// ours included, and tells a command when it has.
type children struct {
	mu      sync.Mutex
	changed sync.Cond // busy or starts changed
	waiting map[int]chan<- unix.WaitStatus
	starts  int  // how often a process was started
	busy    bool // there may be something to collect
}

func newChildren() *children {
	c := &children{waiting: map[int]chan<- unix.WaitStatus{}}
	c.changed.L = &c.mu
	go c.collect()
	return c
}

// start runs fork and watches what it made. The lock keeps a process that ends
// at once from being collected before anybody waits for it.
func (c *children) start(fork func() (int, *wire.Refused)) (pid int, ended <-chan unix.WaitStatus, why *wire.Refused) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pid, why = fork(); why != nil {
		return 0, nil, why
	}
	end := make(chan unix.WaitStatus, 1)
	c.waiting[pid] = end
	c.starts++
	c.busy = true
	c.changed.Broadcast()
	return pid, end, nil
}

func (c *children) collect() {
	for {
		c.mu.Lock()
		for !c.busy {
			c.changed.Wait()
		}
		starts := c.starts
		c.mu.Unlock()
		var status unix.WaitStatus
		pid, err := unix.Wait4(c.whom(), &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		c.mu.Lock()
		if err == nil {
			if end := c.waiting[pid]; end != nil {
				delete(c.waiting, pid)
				end <- status
			}
		} else if c.starts == starts { // no child is left, and none was started since
			c.busy = false
			c.changed.Broadcast()
		}
		c.mu.Unlock()
	}
}

// whom to collect: everybody.
func (c *children) whom() int {
	if !off("reaping") {
		return -1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for pid := range c.waiting {
		return pid
	}
	return -1
}

// gone waits until everything in the sandbox but this process has ended.
func (c *children) gone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.busy {
		c.changed.Wait()
	}
}
