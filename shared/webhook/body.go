package webhook

import "time"

// Body is one POST body made of a page for a target.
type Body struct {
	// JSON is sent as it is: see Canonical.
	JSON []byte
	// Event is what X-Crewship-Event says; "" leaves it to the target's kind.
	Event string
	// Halves cuts the body in two, for a receiver that answers 400 or 413; nil when it holds one event or none.
	Halves func() (Body, Body)
}

// Notice is what belongs to no run: a ping, or news of another endpoint.
type Notice struct {
	ID    string
	Event string
	At    time.Time
	// About is the endpoint that it is about, Why says why that was disabled, if it was.
	About Endpoint
	Why   DisabledBy
}
