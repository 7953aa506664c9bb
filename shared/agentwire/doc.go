// Package agentwire is the agent wire, /api/v1: the trigger that hands an event to one agent of a crew, and reads of what
// the agents did. It spells what the domains know in the words of that wire, and decides nothing.
//
// Runs are run_…, crews are deployments (dep_…), agents have the ids of the `agents` list of their deployment. The trigger
// answers errors in plain text, everything else as RFC 7807 has it.
package agentwire
