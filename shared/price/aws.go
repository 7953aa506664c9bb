package price

import "time"

// The prices of us-east-1 on demand, in millionths of a dollar for one unit, without any free tier: the formula of the
// README. Logs and egress are left out, for a run does not count its bytes.
const (
	microInvocation = 0.20
	microGBSecond   = 13.3334
	microRequestAPI = 1.00
	microRequestSQS = 0.50 // in a queue with groups
	microWriteUnit  = 0.625
	microReadUnit   = 0.125
)

// What the parts of a run take, as infra/count measures it at its reference run.
const (
	runnerGB        = 0.25
	dispatcherGB    = 0.25
	dispatching     = 100 * time.Millisecond // of one delivery
	writesOfRun     = 16                     // the request, the item and its index, claim, settling, told
	writesOfPage    = 2
	writesDelivered = 1
	readsOfRun      = 40
	readsDelivered  = 4
	queueOfRun      = 3 // send, receive, delete
	renewal         = 20 * time.Second
)

// Work is what a run made AWS do, as far as its record knows.
type Work struct {
	// Active is how long runners held the run. Owners counts them.
	Active time.Duration
	Owners int
	// Pages and Deliveries count what was written and what was told.
	Pages, Deliveries int
}

// AWS estimates what AWS takes for the work, in US dollars. It supposes that each run has its runner for itself, and each
// delivery its invocation; where they share, the bill is smaller.
func AWS(w Work) float64 {
	renewals := float64(w.Active / renewal) // each writes the item, and hides the message again
	owners, pages, deliveries := float64(w.Owners), float64(w.Pages), float64(w.Deliveries)
	memory := w.Active.Seconds()*runnerGB + deliveries*dispatching.Seconds()*dispatcherGB
	micro := microRequestAPI + microInvocation*(1+owners+deliveries) + microGBSecond*memory +
		microRequestSQS*(queueOfRun*(owners+deliveries)+renewals) +
		microWriteUnit*(writesOfRun+writesOfPage*pages+writesDelivered*deliveries+renewals) +
		microReadUnit*(readsOfRun+readsDelivered*deliveries)
	return Round(micro / 1e6)
}
