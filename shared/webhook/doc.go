// Package webhook says what a webhook is, once for every dialect: the bytes of a body, its signatures, when it is tried
// again, and the record of a delivery. It sends nothing; that is package dispatch.
//
// # A delivery
//
// A delivery is one POST body: (run, page, target, part). Body and id are a function of the page, so every attempt sends
// the same bytes under the same id, with a fresh timestamp and fresh signatures. Parts number the bodies that one page
// makes for one target: "0", "1", …; a body that a receiver refused as a whole is cut in two, and the halves of "1" are
// "1a" and "1b", each a delivery of its own.
//
//	pending ──▶ succeeded            2xx
//	   │    ╲─▶ failed ─▶ …          anything else; NextAttempt is set
//	   │          ╲─────▶ exhausted  the schedule is over, or no later try can help; can be replayed
//	   ╰───────▶ canceled            replaced by its halves, or called off by the owner
//
// Records are kept under Part "R#<run>", Sort "D#<seq>#<target>#<part>", for 30 days. A delivery that is tried the first
// time has no record yet; a record whose delivery is not over has a due time, so that the sweeper finds it should its
// message get lost. A notice (a ping, news of another endpoint) is kept in the same way, under an id of its own in the place
// of a run's and as page 0; its record has the body.
//
// Only a parked delivery is not due: it waits under its endpoint, in the list "parked/<endpoint>", until the endpoint is well
// or enabled again; Health says when, and why none is forgotten there.
package webhook
