package crew

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

// check finds what is wrong between the parts of a definition that were read.
func (b *builder) check() {
	whole := b.whole()
	if len(b.agentsAt) > maxAgents {
		b.fail(whole, "has %d agents; at most %d are allowed", len(b.agentsAt), maxAgents)
	}
	if len(b.tasksAt) > maxTasks {
		b.fail(whole, "has %d tasks; at most %d are allowed", len(b.tasksAt), maxTasks)
	}
	first := map[string]int{}
	for i, t := range b.def.Tasks {
		b.checkTask(i, t, first)
		if _, again := first[t.Key]; again {
			b.fail(b.tasksAt[i], "has the name '%s' of an earlier task: give it another", shorten(t.Key))
		} else {
			first[t.Key] = i
		}
	}
	if n := b.trailingAsync(); n > 1 {
		b.fail(b.tasksAt[len(b.tasksAt)-1], "ends the crew as one of %d asynchronous tasks in a row: only one may come last", n)
	}
	inputs := b.def.InputNames()
	if len(inputs) > maxInputs {
		b.fail(whole, "has %d different {placeholders}; at most %d are allowed", len(inputs), maxInputs)
	}
	for _, name := range inputs {
		if len(name) > maxInputLen {
			b.fail(whole, "has the placeholder {%s}, which is longer than %d characters", shorten(name), maxInputLen)
		}
	}
	b.checkSearches()
}

// whole is the place for what concerns the crew and no single part of it.
func (b *builder) whole() place {
	if len(b.tasksAt) > 0 {
		return place{file: b.tasksAt[0].file}
	}
	return place{file: "crew"}
}

func (b *builder) checkTask(i int, t Task, first map[string]int) {
	at := b.tasksAt[i]
	if t.Agent == "" {
		b.fail(at, "missing required field 'agent': in the sequential process every task has one")
	} else if _, ok := b.def.Agent(t.Agent); !ok && !b.absent[t.Agent] {
		b.fail(at.at("agent"), "is '%s', which is none of the crew's agents", shorten(t.Agent))
	}
	for j, name := range t.Context {
		of, earlier := first[name]
		switch {
		case earlier && t.Async && b.def.Tasks[of].Async && b.sameRow(of, i):
			b.fail(at.at("context").index(j), "is '%s', an asynchronous task that runs at the same time: put a synchronous task between them", shorten(name))
		case earlier:
		case slices.ContainsFunc(b.def.Tasks[i:], func(later Task) bool { return later.Key == name }):
			b.fail(at.at("context").index(j), "is '%s', which is not an earlier task", shorten(name))
		default:
			b.fail(at.at("context").index(j), "is '%s', which is none of the crew's tasks", shorten(name))
		}
	}
}

// sameRow tells whether all tasks from i to j are asynchronous.
func (b *builder) sameRow(i, j int) bool {
	return !slices.ContainsFunc(b.def.Tasks[i:j+1], func(t Task) bool { return !t.Async })
}

func (b *builder) trailingAsync() (n int) {
	for _, t := range slices.Backward(b.def.Tasks) {
		if !t.Async {
			break
		}
		n++
	}
	return n
}

// checkSearches warns of a knowledge_search that has nothing to search.
func (b *builder) checkSearches() {
	searches := func(tools []Tool) bool {
		return slices.ContainsFunc(tools, func(t Tool) bool { return t.Type == "knowledge_search" && t.Settings == nil })
	}
	const nothing = "has a knowledge_search and no 'knowledge' to search"
	if len(b.def.Knowledge) > 0 {
		return
	}
	// Where nothing is named, the tool searches all files below knowledge/.
	for name := range b.files {
		if strings.HasPrefix(name, "knowledge/") {
			return
		}
	}
	for i, a := range b.def.Agents {
		if searches(a.Tools) && len(a.Knowledge) == 0 {
			b.warn(b.agentsAt[i], nothing)
		}
	}
	for i, t := range b.def.Tasks {
		if a, ok := b.def.Agent(t.Agent); ok && searches(t.Tools) && len(a.Knowledge) == 0 {
			b.warn(b.tasksAt[i], nothing)
		}
	}
}

// readable tells whether data is text.
func readable(data []byte) bool { return utf8.Valid(data) && !bytes.ContainsRune(data, 0) }
