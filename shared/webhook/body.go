package webhook

// Body is one POST body made of a page for a target.
type Body struct {
	// JSON is sent as it is: see Canonical.
	JSON []byte
	// Halves cuts the body in two, for a receiver that answers 400 or 413; nil when it holds one event or none.
	Halves func() (Body, Body)
}
