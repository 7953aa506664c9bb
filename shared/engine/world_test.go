package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/engine"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/openai"
	"muster/shared/engine/llm/scripted"
	"muster/shared/engine/tool"
	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/sqlite"
	"muster/shared/storetest"
)

// The models of the tests: one that takes functions, and one that must be told in words.
var (
	nativeModel = crew.Model{Name: "openai/gpt-4.1-mini"}
	wordModel   = crew.Model{Name: "openai/gemma2"}
)

// world is a store, a scripted model behind the real provider, and tools: everything around a run.
type world struct {
	t       *testing.T
	ctx     context.Context
	runs    *run.Service
	store   record.Store
	server  *scripted.Server
	tools   tools
	targets []run.Target
	inputs  map[string]any
	limits  crew.Limits
	kept    map[string]run.Kept

	mu  sync.Mutex
	now time.Time
}

func newWorld(t *testing.T, script scripted.Script) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), server: scripted.New(t, script), tools: tools{}, now: time.Date(2030, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.keepIn(&storetest.Memory{})
	return w
}

func (w *world) keepIn(s record.Store) {
	w.store = s
	w.runs = &run.Service{
		Store: s, Runs: nowhere{}, Deliveries: nowhere{}, Now: w.clock,
		Seal: func(_ context.Context, _, _, _, plain string) (string, error) { return "sealed", nil },
	}
}

// onDisk keeps everything in an SQLite file, as the embedded default does.
func (w *world) onDisk() {
	w.t.Helper()
	db, err := sqlite.Open(filepath.Join(w.t.TempDir(), "muster.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := db.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.keepIn(db.Records())
}

// clock stands still unless somebody moves it.
func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

var deployment = crew.Deployment{
	ID: "0198f000-0000-7000-8000-000000000001", WorkspaceID: "0198f000-0000-7000-8000-000000000002",
	Environments: map[string]crew.Pointer{crew.Production: {VersionID: "0198f000-0000-7000-8000-000000000003", Number: 1}},
}

func (w *world) start() run.Run {
	w.t.Helper()
	r, err := w.runs.Start(w.ctx, run.StartRequest{Deployment: deployment, Inputs: w.inputs, Targets: w.targets, Limits: w.limits, Kept: w.kept})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) input(runID string, d crew.Definition) engine.Input {
	return engine.Input{
		RunID: runID, DeploymentID: deployment.ID, Definition: d, Inputs: w.inputs, Kept: w.kept, Models: w.models(), Tools: w.tools, Now: w.clock,
	}
}

func (w *world) models() llm.Opener {
	return llm.Providers{
		Settings: llm.Settings{Providers: map[string]llm.Access{"openai": {BaseURL: w.server.URL, APIKey: "test"}}},
		Operator: http.DefaultClient, OpenAI: openai.New,
	}
}

// goOn claims the run and lets the engine run to the end, or to where it stops.
func (w *world) goOn(runID string, d crew.Definition) (run.Outcome, error) {
	w.t.Helper()
	o, err := w.runs.Claim(w.ctx, runID)
	if err != nil {
		w.t.Fatal(err)
	}
	root := o.Root()
	out, err := engine.Run(o.Work(), root, w.input(runID, d))
	if err != nil {
		var reached *run.Reached
		if errors.As(err, &reached) {
			if err := o.Exceed(reached); err != nil {
				w.t.Fatal(err)
			}
			end, err := w.runs.Newest(w.ctx, runID)
			if err != nil {
				w.t.Fatal(err)
			}
			return *end.Outcome, nil
		}
		var later *run.Later
		switch {
		case errors.As(err, &later):
			if err := o.Release(later.At); err != nil {
				w.t.Fatal(err)
			}
		case errors.Is(err, run.ErrWaiting):
			if waits, err := o.Wait(); !waits || err != nil {
				w.t.Fatalf("waits %v, %v", waits, err)
			}
		}
		return out, err
	}
	if err := o.End(out, root); err != nil {
		w.t.Fatal(err)
	}
	return out, nil
}

// do starts a run and does it to the end.
func (w *world) do(d crew.Definition) (string, run.Outcome) {
	w.t.Helper()
	r := w.start()
	out, err := w.goOn(r.ID, d)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.ID, out
}

func (w *world) pages(runID string) []run.Page {
	w.t.Helper()
	pages, err := w.runs.Pages(w.ctx, runID, 1, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return pages
}

func (w *world) events(runID string) []events.Event {
	w.t.Helper()
	var all []events.Event
	for _, p := range w.pages(runID) {
		all = append(all, p.Events...)
	}
	return all
}

// ofType gives the data of all events of a type.
func (w *world) ofType(runID, eventType string) []map[string]any {
	w.t.Helper()
	var all []map[string]any
	for _, e := range w.events(runID) {
		if e.Type == eventType {
			var data map[string]any
			if err := json.Unmarshal(e.Data, &data); err != nil {
				w.t.Fatal(err)
			}
			all = append(all, data)
		}
	}
	return all
}

// tree draws the events by their nesting. A closing event that names no opening event, or another one than its parent's
// child, is marked.
func (w *world) tree(runID string) string {
	w.t.Helper()
	all := w.events(runID)
	byID := map[string]events.Event{}
	var b strings.Builder
	for i, e := range all {
		byID[e.ID] = e
		depth := 0
		for p := e.Parent; p != ""; p = byID[p].Parent {
			if _, ok := byID[p]; !ok {
				w.t.Errorf("event %d (%s) is nested in one that was not told before", e.N, e.Type)
				break
			}
			depth++
		}
		if opener, ok := byID[e.Started]; e.Started != "" && (!ok || opener.Parent != e.Parent) {
			w.t.Errorf("event %d (%s) closes %q, which does not stand beside it", e.N, e.Type, opener.Type)
		}
		if e.N != int64(i+1) {
			w.t.Errorf("event %d has the number %d", i+1, e.N)
		}
		fmt.Fprintf(&b, "%2d %s%s\n", e.N, strings.Repeat("  ", depth), e.Type)
	}
	return b.String()
}

// nowhere is a queue that nobody reads.
type nowhere struct{}

func (nowhere) Send(context.Context, ...queue.Message) error { return nil }

// tools are the tools of the tests, by name.
type tools map[string]*fakeTool

func (t tools) Open(def crew.Tool, _ tool.Source) (tool.Tool, error) {
	f, ok := t[def.Type]
	if !ok {
		return nil, fault.New(fault.Invalid, "there is no tool %q", def.Type)
	}
	f.name = def.Type
	return f, nil
}

// fakeTool takes the text "query" and answers with what do gives.
type fakeTool struct {
	name   string
	schema string
	do     func(ctx context.Context, c tool.Call) (tool.Result, error)

	mu    sync.Mutex
	calls []tool.Call
}

func (f *fakeTool) Function() llm.Function {
	schema := f.schema
	if schema == "" {
		schema = `{"type":"object","properties":{"query":{"type":"string"}},"required":["query"],"additionalProperties":false}`
	}
	return llm.Function{Name: f.name, Description: "Looks things up.", Parameters: json.RawMessage(schema)}
}

func (f *fakeTool) Call(ctx context.Context, c tool.Call) (tool.Result, error) {
	f.mu.Lock()
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	if f.do != nil {
		return f.do(ctx, c)
	}
	return tool.Result{Text: fmt.Sprintf("found %v", c.Arguments["query"])}, nil
}

func (f *fakeTool) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

// newCrew makes a definition as Parse would: agents and tasks with the defaults of their fields.
func newCrew(model crew.Model, tasks ...crew.Task) crew.Definition {
	d := crew.Definition{Name: "support", ToolFailurePolicy: "warn"}
	seen := map[string]bool{}
	for i := range tasks {
		t := &tasks[i]
		if t.Agent == "" {
			t.Agent = t.Key + "_agent"
		}
		if t.Name == "" {
			t.Name = t.Key
		}
		if t.Description == "" {
			t.Description = "Do " + t.Key + "."
		}
		if t.ExpectedOutput == "" {
			t.ExpectedOutput = "The result of " + t.Key + "."
		}
		if t.Guardrails != nil && t.GuardrailMaxRetries == 0 {
			t.GuardrailMaxRetries = 3
		}
		if !seen[t.Agent] {
			seen[t.Agent] = true
			d.Agents = append(d.Agents, crew.Agent{
				Key: t.Agent, Role: "Role of " + t.Agent, Goal: "A goal.", Backstory: "A story.", LLM: model,
				MaxIter: 25, MaxRetryLimit: 2, UseSystemPrompt: true, Cache: true,
			})
		}
	}
	d.Tasks = tasks
	return d
}

func search(name string) crew.Tool { return crew.Tool{Type: name, Name: name} }

// toolbox is the common case: one tool called search.
func (w *world) withSearch() *fakeTool {
	f := &fakeTool{}
	w.tools["search"] = f
	return f
}

// back sets the world back to the time when a run had its first pages only, and nobody held it.
func (w *world) back(runID string, before []record.Record, pages int) {
	w.t.Helper()
	for _, rec := range w.records(runID) {
		if err := w.store.Delete(w.ctx, rec.Key, rec.Rev); err != nil {
			w.t.Fatal(err)
		}
	}
	n := 0
	for _, rec := range before {
		if strings.HasPrefix(rec.Sort, "P#") {
			if n++; n > pages {
				continue
			}
		}
		rec.Rev = 0
		if _, err := w.store.Put(w.ctx, rec); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) records(runID string) []record.Record {
	w.t.Helper()
	recs, err := w.store.Scan(w.ctx, record.Prefix("R#"+runID, ""))
	if err != nil {
		w.t.Fatal(err)
	}
	return recs
}

// history gives the journal of a run that has ended, with the run item as it was before the first claim.
func (w *world) history(runID string, queued []record.Record) []record.Record {
	w.t.Helper()
	return append(queued, slices.DeleteFunc(w.records(runID), func(r record.Record) bool { return !strings.HasPrefix(r.Sort, "P#") })...)
}
