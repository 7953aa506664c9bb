// Package agentwire is the agent wire, /api/v1: the trigger that hands an event to one agent of a crew, and reads of what
// the agents did. It spells what the domains know in the words of that wire, and decides nothing.
package agentwire
