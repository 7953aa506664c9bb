// Package run is the run: its states, its journal, and the few acts that move it. A run is accepted by Start, done by
// whoever owns it (Claim gives an Owner, the engine works in its branches), and ended by Owner.End or Stop.
//
//	         Start                claim                 end
//	(none) ────────▶ queued ────────────▶ running ────────────▶ succeeded, failed, timed_out
//	                  ▲  │                 │ ▲ │ take-over,     canceled
//	           answer │  │ stop       wait │ └─┘ yield            ▲
//	                  │  └─────────────────┼──────────────────────┤ stop
//	                  └──── waiting ◀──────┘                      │
//	                           └──────────────────────────────────┘ or nobody answers
//
// The journal is a list of pages; a page is put once, on condition that its number is free, and never changed. It is
// checkpoint, event log and the source of every webhook at once. These rules keep one writer in it, whatever dies, stalls
// or arrives twice:
//
//   - A put that met a page with its own nonce has succeeded before; a put of unknown outcome is repeated with the same
//     bytes, and nothing else is composed for that number.
//   - A claim raises the epoch. A take-over reads to the end, sends the last page's deliveries again, and puts a fence; the
//     engine begins when the fence is in. Whoever meets a page of a higher epoch stops.
//   - Put, send the deliveries, put the next: what a page tells is on its way before anything follows it.
//   - The newest page is the truth. The run item holds the lease, the inbox and a copy of the state, and is written only on
//     condition of the revision that was read: nonce, state, answers and stop flag are all under that one condition.
//   - After the end page nothing is put.
//   - An invocation that ends cuts the steps under way, and each puts a page that says so; a step that was cut three times
//     ends the run. Owners that die are counted from the newest result on: after two, a run is worked on alone in its
//     process until it has another result; after five it is failed. So no run is failed for what a sibling did.
//
// An owner reads the inbox every 3 s. So that a call of 5 s is seen within a second by those who come in the middle of it, it
// reads more often while nobody watches and a step is under way: after a tenth of the step's age, and at least half a second.
// That is 10 of the smallest reads for a call of 5 s, 24 for one of 30 s instead of 10, and for an hour of calls of 5 s 7,200
// instead of 1,200: less than a tenth of a cent, and 6% of what the runner costs in that hour. A page before each step that
// nobody watches would cost as much, and more the shorter the calls are.
//
// Everything of a run lies in the partition "R#<id>":
//
//	RUN                    the run item (due index; list "runs/<deployment>", by id)
//	RUN#<id>               an event told from outside, until a page has it
//	REQUEST                what the kickoff asked for (blob)
//	P#<seq>                a page (blob)
//	A#<name>               a reply to a question, until and after the journal has it (blob)
//	Q#<question>           an open question (list "approvals/<deployment>", by id)
//	B#…                    parts of blobs
//	D#<seq>#<target>#…     deliveries, kept by package webhook
//
// "S#d/<deployment>" and "S#w/<workspace>" hold SLOTS, the list of its runs under way and of those that wait for a slot, and
// RATE, the kickoffs of the minute, where these are limited. "S#h/<thread>" holds the SLOTS of a thread, "THREAD#<thread>" /
// TURN#<n> what each run left in it (blob). "I#<deployment>" / <hash of the key> remembers idempotency keys.
package run
