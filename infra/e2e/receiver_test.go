package e2e_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/webhook"
)

// patience is how long anything may take that somebody waits for, on a busy machine and behind a mean store.
const patience = 3 * time.Minute

// receiver is where webhooks arrive. Each test has its own.
type receiver struct {
	url  string
	home *home

	mu      sync.Mutex
	changed *sync.Cond
	posts   []post
	// reply answers a POST, 200 unless set; it may take its time.
	reply func(p post) int
}

// post is a POST as it arrived.
type post struct {
	path   string
	header http.Header
	body   []byte
	at     time.Time
	// nth counts the POSTs with the same delivery id, from 1.
	nth int
	// events are those of a streaming envelope.
	events []event
}

func newReceiver(t *testing.T, h *home) *receiver {
	if h.contract == nil { // the home of a process of its own
		h.contract = &held{contract: theContract(), t: t}
	}
	r := &receiver{home: h}
	r.changed = sync.NewCond(&r.mu)
	server := httptest.NewServer(r)
	r.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	r.home.contract.receives(q.Header, body)
	p := post{path: q.URL.Path, header: q.Header, body: body, at: r.home.now(), nth: 1}
	if p.path == "/events" {
		var envelope struct {
			Events []event `json:"events"`
		}
		if json.Unmarshal(body, &envelope) != nil {
			http.Error(w, "this is no streaming envelope", http.StatusUnprocessableEntity)
			return
		}
		p.events = envelope.Events
	}
	r.mu.Lock()
	for _, before := range r.posts {
		if before.header.Get(webhook.HeaderDelivery) == p.header.Get(webhook.HeaderDelivery) {
			p.nth++
		}
	}
	r.posts = append(r.posts, p)
	reply := r.reply
	r.mu.Unlock()
	r.changed.Broadcast()
	if reply != nil {
		w.WriteHeader(reply(p))
	}
}

// all gives what arrived so far.
func (r *receiver) all() []post {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.posts)
}

// on gives what arrived so far at a path.
func (r *receiver) on(path string) []post {
	return slices.DeleteFunc(r.all(), func(p post) bool { return p.path != path })
}

// until waits for posts that are enough.
func (r *receiver) until(t *testing.T, what string, enough func(posts []post) bool) []post {
	t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		r.mu.Lock()
		late = true
		r.mu.Unlock()
		r.changed.Broadcast()
	})
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !enough(r.posts) {
		if late {
			var got []string
			for _, p := range r.posts {
				got = append(got, p.path+" "+clip(p.body))
			}
			t.Fatalf("nobody was told of %s in %s; this arrived:\n%s", what, patience, strings.Join(got, "\n"))
		}
		r.changed.Wait()
	}
	return slices.Clone(r.posts)
}

// event is an event in the streaming envelope.
type event struct {
	ID          string `json:"id"`
	ExecutionID string `json:"execution_id"`
	Timestamp   string `json:"timestamp"`
	Type        string `json:"type"`
	Data        struct {
		Type             string          `json:"type"`
		EventID          string          `json:"event_id"`
		EmissionSequence int             `json:"emission_sequence"`
		ParentEventID    *string         `json:"parent_event_id"`
		StartedEventID   *string         `json:"started_event_id"`
		TaskID           *string         `json:"task_id"`
		TaskName         *string         `json:"task_name"`
		AgentID          *string         `json:"agent_id"`
		AgentRole        *string         `json:"agent_role"`
		Error            *string         `json:"error"`
		CallID           *string         `json:"call_id"`
		Chunk            *string         `json:"chunk"`
		Success          *bool           `json:"success"`
		Messages         json.RawMessage `json:"messages"`
		Fact             any             `json:"fact"` // of the custom events of these tests
	} `json:"data"`
}

// eventsOf gives the events of streaming posts, each once, by number.
func eventsOf(t *testing.T, posts []post) []event {
	t.Helper()
	byID := map[string]event{}
	for _, p := range posts {
		for _, e := range p.events {
			if before, ok := byID[e.ID]; ok {
				if diff := cmp.Diff(before, e); diff != "" {
					t.Errorf("event %s was told twice, and differently:\n%s", e.ID, diff)
				}
			}
			byID[e.ID] = e
		}
	}
	return slices.SortedFunc(maps.Values(byID), func(a, b event) int { return a.Data.EmissionSequence - b.Data.EmissionSequence })
}

// ended tells whether the end of the run and every event before it have arrived.
func ended(t *testing.T, posts []post) bool {
	all := eventsOf(t, posts)
	if len(all) == 0 {
		return false
	}
	last := all[len(all)-1]
	return (last.Type == "crew_kickoff_completed" || last.Type == "crew_kickoff_failed") && last.Data.EmissionSequence == len(all)
}

// typesOf gives the types of events in their order.
func typesOf(all []event) (names []string) {
	for _, e := range all {
		names = append(names, e.Type)
	}
	return names
}

// ofType gives the events of a type.
func ofType(all []event, eventType string) (some []event) {
	for _, e := range all {
		if e.Type == eventType {
			some = append(some, e)
		}
	}
	return some
}

// keys gives the keys of a JSON object, in order.
func keys(t *testing.T, object []byte) []string {
	t.Helper()
	var o map[string]json.RawMessage
	if err := json.Unmarshal(object, &o); err != nil {
		t.Fatalf("%v in %s", err, clip(object))
	}
	return slices.Sorted(maps.Keys(o))
}

// The keys of the bodies of seed 000, and of the envelope and the events of seed 001.
var (
	stepKeys     = []string{"kickoff_id", "meta", "prompt", "result", "thought", "tool", "tool_input"}
	taskKeys     = []string{"agent", "description", "expected_output", "kickoff_id", "meta", "name", "output", "output_json", "summary"}
	crewKeys     = []string{"kickoff_id", "meta", "result", "result_json", "token_usage"}
	failedKeys   = []string{"error", "kickoff_id", "meta", "result", "result_json", "status", "token_usage"}
	humanKeys    = []string{"approve_url", "execution_id", "expires_at", "kickoff_id", "meta", "reject_url", "request_id", "round", "task_id", "task_name", "task_output"}
	envelopeKeys = []string{"events", "meta"}
	eventKeys    = []string{"data", "execution_id", "id", "timestamp", "type"}
	usageKeys    = []string{"completion_tokens", "prompt_tokens", "total_tokens"}
)

// meta is what the kickoffs of these tests give, to be found in every webhook as it is.
const meta = `{"requestId":"travel-req-123","nested":[1,2.5,null,{"z":"é","a":""}]}`

// webhooks are the fields of a kickoff that make a receiver hear everything.
func (r *receiver) webhooks(realtime bool) map[string]any {
	return map[string]any{
		"meta": json.RawMessage(meta), "stepWebhookUrl": r.url + "/step", "taskWebhookUrl": r.url + "/task", "crewWebhookUrl": r.url + "/crew",
		"webhooks": map[string]any{
			"events": []string{"*"}, "url": r.url + "/events", "realtime": realtime,
			"authentication": map[string]string{"strategy": "bearer", "token": "my-secret-token"},
		},
	}
}

// hear waits for the end of a run that tells a receiver everything, holds all of it to what every run promises, and
// gives the events.
func (r *receiver) hear(t *testing.T, d deployment, runID string) []event {
	t.Helper()
	posts := r.until(t, "the end of the run", func(posts []post) bool {
		return ended(t, posts) && slices.ContainsFunc(posts, func(p post) bool { return p.path == "/crew" })
	})
	for _, p := range posts {
		if err := webhook.Verify(d.WebhookSecret, p.header, p.body, p.at); err != nil {
			t.Errorf("%s: %v", p.path, err)
		}
		r.holdBody(t, p, runID)
	}
	all := eventsOf(t, posts)
	holdEvents(t, all, runID)
	for _, e := range all {
		r.home.saw(e.Type)
	}
	return all
}

// holdBody holds a body to its keys.
func (r *receiver) holdBody(t *testing.T, p post, runID string) {
	t.Helper()
	var body struct {
		KickoffID  string            `json:"kickoff_id"`
		Meta       json.RawMessage   `json:"meta"`
		Status     string            `json:"status"`
		Result     json.RawMessage   `json:"result"`
		TokenUsage json.RawMessage   `json:"token_usage"`
		Events     []json.RawMessage `json:"events"`
	}
	if err := json.Unmarshal(p.body, &body); err != nil {
		t.Errorf("%s: %v", p.path, err)
		return
	}
	want := map[string][]string{"/step": stepKeys, "/task": taskKeys, "/crew": crewKeys, "/human": humanKeys, "/events": envelopeKeys}[p.path]
	if p.path == "/crew" && body.Status != "" {
		want = failedKeys
		if string(body.Result) != "null" {
			t.Errorf("a run that %s has the result %s", body.Status, body.Result)
		}
	}
	if diff := cmp.Diff(want, keys(t, p.body)); diff != "" {
		t.Errorf("the keys of %s (-want +got):\n%s", p.path, diff)
	}
	if p.path == "/crew" && !slices.Equal(keys(t, body.TokenUsage), usageKeys) {
		t.Errorf("the keys of token_usage are %v", keys(t, body.TokenUsage))
	}
	if string(body.Meta) != meta {
		t.Errorf("%s: meta is %s, want %s", p.path, body.Meta, meta)
	}
	if p.path != "/events" {
		if body.KickoffID != runID {
			t.Errorf("%s: kickoff_id is %s, want %s", p.path, body.KickoffID, runID)
		}
		return
	}
	if got := p.header.Get("Authorization"); got != "Bearer my-secret-token" {
		t.Errorf("the stream's Authorization is %q", got)
	}
	for _, e := range body.Events {
		if got := keys(t, e); !slices.Equal(got, eventKeys) {
			t.Errorf("the keys of an event are %v, want %v", got, eventKeys)
		}
	}
}

// holdEvents holds the events of a run, in their order, to what every run promises.
func holdEvents(t *testing.T, all []event, runID string) {
	t.Helper()
	if len(all) == 0 || all[0].Type != "crew_kickoff_started" {
		t.Fatalf("the first event is none of the crew's: %v", typesOf(all))
	}
	byID := map[string]event{}
	var last string
	for i, e := range all {
		d := e.Data
		if d.EmissionSequence != i+1 || d.EventID != e.ID || d.Type != e.Type || e.ExecutionID != runID {
			t.Errorf("event %d: number %d, ids %s and %s, types %s and %s, execution %s", i+1, d.EmissionSequence, e.ID, d.EventID, e.Type, d.Type, e.ExecutionID)
		}
		if e.Timestamp <= last {
			t.Errorf("event %d (%s) is told at %s, and the one before it at %s", i+1, e.Type, e.Timestamp, last)
		}
		last = e.Timestamp
		if _, err := time.Parse("2006-01-02T15:04:05.000Z", e.Timestamp); err != nil {
			t.Errorf("event %d: %v", i+1, err)
		}
		for what, ref := range map[string]*string{"is nested in": d.ParentEventID, "closes": d.StartedEventID} {
			if ref == nil {
				continue
			}
			if _, ok := byID[*ref]; !ok {
				t.Errorf("event %d (%s) %s one that was not told before", i+1, e.Type, what)
			}
		}
		byID[e.ID] = e
		if strings.HasPrefix(e.Type, "flow_") {
			t.Errorf("event %d is %s; internal flows are nobody's matter", i+1, e.Type)
		}
		if ofNobody := d.ParentEventID == nil || strings.HasPrefix(e.Type, "run_"); ofNobody {
			continue // of the crew, of the run, and what programs outside add
		}
		for name, value := range map[string]*string{"task_id": d.TaskID, "task_name": d.TaskName, "agent_id": d.AgentID, "agent_role": d.AgentRole} {
			if value == nil || *value == "" {
				t.Errorf("event %d (%s) has no %s", i+1, e.Type, name)
			}
		}
	}
}
