package runtimeapi

import (
	"fmt"
	"time"
)

// ColdStart starts a process, kills it when it first asks for work, and gives how long it took until then.
func (f *Function) ColdStart() (time.Duration, error) {
	began := time.Now()
	p, err := f.start()
	if err != nil {
		return 0, err
	}
	defer p.kill()
	initialised := time.NewTimer(patience)
	defer initialised.Stop()
	select {
	case p.work <- invocation{}:
		return time.Since(began), nil
	case <-p.gone:
		return 0, fmt.Errorf("the process ended before it asked for work: %w", p.err)
	case <-initialised.C:
		return 0, fmt.Errorf("the process asked for no work within %s", patience)
	}
}
