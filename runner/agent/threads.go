package agent

import (
	"runtime"
	"sync"
)

// waiting is how many threads of the agent may have to wait or run at once, beside
// the main one and the runtime's own: for a child to end, for signals, for
// whatever the poller waits for, for what there is to do; and one to spare.
const waiting = 5

// makeThreads makes all threads that the agent will ever need. The commands share
// its limit of processes, and once they have used that up the kernel makes no
// further thread: a Go program that needs one then ends. A thread that has
// nothing to do stays for whoever needs one next.
func makeThreads() {
	var made, free sync.WaitGroup
	made.Add(waiting)
	over := make(chan struct{})
	for range waiting {
		free.Go(func() {
			runtime.LockOSThread() // no other goroutine runs on it now
			defer runtime.UnlockOSThread()
			made.Done()
			<-over
		})
	}
	made.Wait()
	close(over)
	free.Wait()
}
