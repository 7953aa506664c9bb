package host

import "time"

// SetSlack makes pushes wait for room for another time.
func (s *Sockets) SetSlack(d time.Duration) { s.slack = d }
