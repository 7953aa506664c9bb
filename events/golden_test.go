package events

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite testdata, docs_generated.go and EVENTS.md")

// constructors are all there are. Each is called with an example that has every field set.
var constructors = []any{
	NewCrewKickoffStarted, NewCrewKickoffCompleted, NewCrewKickoffFailed, NewCrewTrainStarted, NewCrewTrainCompleted,
	NewCrewTrainFailed, NewCrewTestStarted, NewCrewTestResult, NewCrewTestCompleted, NewCrewTestFailed,
	NewTaskStarted, NewTaskCompleted, NewTaskFailed, NewTaskEvaluation,
	NewAgentExecutionStarted, NewAgentExecutionCompleted, NewAgentExecutionError, NewLiteAgentExecutionStarted,
	NewLiteAgentExecutionCompleted, NewLiteAgentExecutionError, NewAgentLogsStarted, NewAgentLogsExecution,
	NewAgentEvaluationStarted, NewAgentEvaluationCompleted, NewAgentEvaluationFailed,
	NewLLMCallStarted, NewLLMCallCompleted, NewLLMCallFailed, NewLLMStreamChunk, NewLLMThinkingChunk,
	NewLLMGuardrailStarted, NewLLMGuardrailCompleted,
	NewToolUsageStarted, NewToolUsageFinished, NewToolUsageError, NewToolFailureDetected, NewToolSelectionError,
	NewToolValidateInputError, NewToolExecutionError,
	NewMemoryRetrievalStarted, NewMemoryRetrievalCompleted, NewMemoryRetrievalFailed, NewMemoryQueryStarted,
	NewMemoryQueryCompleted, NewMemoryQueryFailed, NewMemorySaveStarted, NewMemorySaveCompleted, NewMemorySaveFailed,
	NewKnowledgeSearchQueryStarted, NewKnowledgeSearchQueryCompleted, NewKnowledgeSearchQueryFailed,
	NewKnowledgeQueryStarted, NewKnowledgeQueryCompleted, NewKnowledgeQueryFailed,
	NewAgentReasoningStarted, NewAgentReasoningCompleted, NewAgentReasoningFailed, NewPlanStepStarted,
	NewPlanStepCompleted,
	NewFlowCreated, NewFlowStarted, NewFlowFinished, NewFlowFailed, NewFlowPaused, NewFlowPlot,
	NewMethodExecutionStarted, NewMethodExecutionFinished, NewMethodExecutionFailed, NewMethodExecutionPaused,
	NewHumanFeedbackRequested, NewHumanFeedbackReceived,
	NewMCPConnectionStarted, NewMCPConnectionCompleted, NewMCPConnectionFailed, NewMCPToolExecutionStarted,
	NewMCPToolExecutionCompleted, NewMCPToolExecutionFailed, NewMCPConfigFetchFailed,
	NewSkillUsed,
	NewCheckpointStarted, NewCheckpointCompleted, NewCheckpointFailed, NewCheckpointPruned, NewCheckpointRestoreStarted,
	NewCheckpointRestoreCompleted, NewCheckpointRestoreFailed, NewCheckpointForkStarted, NewCheckpointForkCompleted,
	NewRunBudgetReached,
}

func TestEveryTypeIsPublishedAsItsGoldenFileSays(t *testing.T) {
	for typ, d := range examples(t) {
		got := golden(t, publishExample(d))
		path := filepath.Join("testdata", typ+".json")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s changed; if consumers can live with it, run go test ./events -update\ngot:\n%s\nwant:\n%s", typ, got, want)
		}
	}
}

func TestEveryTypeHasOneConstructorAndOneGoldenFile(t *testing.T) {
	var types, made, files []string
	for _, k := range All() {
		types = append(types, k.Type)
	}
	for typ := range examples(t) {
		made = append(made, typ)
	}
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		files = append(files, strings.TrimSuffix(filepath.Base(p), ".json"))
	}
	slices.Sort(types)
	slices.Sort(made)
	slices.Sort(files)
	if !slices.Equal(types, slices.Compact(slices.Clone(types))) {
		t.Errorf("a type is twice in the catalogue: %v", types)
	}
	if len(constructors) != len(made) || !slices.Equal(types, made) {
		t.Errorf("constructors are for %v, the catalogue has %v", made, types)
	}
	if !slices.Equal(types, files) {
		t.Errorf("golden files are for %v, the catalogue has %v", files, types)
	}
}

// examples gives a draft of every type, made by its constructor.
func examples(t *testing.T) map[string]Draft {
	t.Helper()
	drafts := map[string]Draft{}
	for _, c := range constructors {
		constructor := reflect.ValueOf(c)
		f := reflect.New(constructor.Type().In(1)).Elem()
		fill(t, f, "")
		who := Identity{TaskID: taskID, TaskName: "classify", AgentID: agentID, AgentRole: "Support Analyst"}
		if strings.HasPrefix(f.Type().Name(), "Crew") {
			who = Identity{}
		}
		d := constructor.Call([]reflect.Value{reflect.ValueOf(who), f})[0].Interface().(Draft)
		drafts[d.Type] = d
	}
	return drafts
}

const (
	taskID  = "5f0c2f6e-8a5e-5d5b-9a6c-0d3f1b8f4a11"
	agentID = "c1f0a4d2-1f6b-5b0e-8a3e-6f1f4c2b7d22"
)

func publishExample(d Draft) Published {
	started := ""
	if slices.ContainsFunc(All(), func(k Kind) bool { return k.Type == d.Type && k.Closes != "" }) {
		started = "2b9d6c1e-4a3f-5e8d-b7c6-1a2b3c4d5e03"
	}
	e := d.Event("2b9d6c1e-4a3f-5e8d-b7c6-1a2b3c4d5e01", "2b9d6c1e-4a3f-5e8d-b7c6-1a2b3c4d5e02", started)
	e.N, e.At, e.Previous = 7, time.Date(2025, 2, 16, 10, 58, 44, 965e6, time.UTC), "2b9d6c1e-4a3f-5e8d-b7c6-1a2b3c4d5e04"
	return e.Publish("97eba64f-958c-40a0-b61c-625fe635a3c0", []json.RawMessage{
		json.RawMessage(`{"role":"system","content":"You are Support Analyst."}`),
		json.RawMessage(`{"role":"user","content":"Classify this ticket."}`),
	})
}

func golden(t *testing.T, p Published) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, encode(p), "", "  "); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// fill sets every field of an example; samples has the values, by JSON name and where need be by struct.
func fill(t *testing.T, v reflect.Value, name string) {
	t.Helper()
	sample, found := samples[name]
	switch {
	case v.Type() == reflect.TypeFor[Time]():
		v.Set(reflect.ValueOf(Time{time.Date(2025, 2, 16, 10, 58, 44, 120e6, time.UTC)}))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Tag.Get("json")
			if own := v.Type().Name() + "." + name; samples[own] != nil {
				name = own
			}
			fill(t, v.Field(i), name)
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), name)
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case found && sample == nil: // a field that is always null
	case found:
		v.Set(reflect.ValueOf(sample).Convert(v.Type()))
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), name)
	default:
		t.Fatalf("samples needs a value for the field %q of type %s", name, v.Type())
	}
}

type object = map[string]any

var samples = map[string]any{
	"AgentInfo.id":           agentID,
	"Function.description":   "Searches the files of the deployment.",
	"TaskOutput.name":        "classify",
	"RunBudgetReached.limit": "max_tokens",
	"RunBudgetReached.value": 10250.0,
	"RunBudgetReached.max":   10000.0,
	"ToolFailure.message":    "The search is busy.",
	"agent":                  "Support Analyst",
	"agent_backstory":        "You have answered tickets for ten years.",
	"agent_goal":             "Sort tickets so that none waits",
	"agent_key":              "analyst",
	"agent_role":             "Support Analyst",
	"arguments":              `{"query":"refund"}`,
	"attempt":                1,
	"available_functions":    nil,
	"backstory":              "You have answered tickets for ten years.",
	"branch":                 "main",
	"cache_creation_tokens":  0,
	"cached_prompt_tokens":   512,
	"call_id":                "0d2f7a4e-5c1b-4e8f-9b3a-7c6d5e4f3a21",
	"call_type":              "llm_call",
	"callbacks":              nil,
	"checkpoint_id":          "cp-2",
	"chunk":                  "The customer",
	"code":                   "rate_limited",
	"completion_tokens":      96,
	"connect_timeout":        30,
	"connection_duration_ms": 41.5,
	"context":                "Ticket 4711: the invoice was charged twice.",
	"crew_name":              "support triage",
	"delegations":            0,
	"description":            "Classify ticket 4711.",
	"details":                object{"retry_after": 2},
	"disclosure_level":       2,
	"duration_ms":            12.5,
	"emit":                   []string{"approved", "rejected"},
	"error":                  "The model did not answer in time.",
	"error_type":             "timeout",
	"eval_llm":               "openai/gpt-4.1-mini",
	"evaluation_type":        "training_data_evaluation",
	"execution_duration":     8.25,
	"execution_duration_ms":  230.5,
	"expected_output":        "One label and a reason",
	"feedback":               "approved, but shorten it",
	"filename":               "trained.json",
	"finish_reason":          "stop",
	"flow_id":                "flow-1",
	"flow_name":              "Triage",
	"formatted_answer":       AgentFinish{Thought: "I know the label.", Output: "billing", Text: "I know the label. Final Answer: billing"},
	"frequency_penalty":      0.5,
	"goal":                   "Sort tickets so that none waits",
	"guardrail":              "The answer is one label",
	"guardrail_name":         "The answer is one label",
	"guardrail_type":         "llm",
	"id":                     "call_1",
	"index":                  0,
	"inputs":                 object{"ticket": "The invoice was charged <twice> & late."},
	"iteration":              1,
	"json_dict":              json.RawMessage(`{"label":"billing"}`),
	"limit":                  3,
	"location":               "checkpoints",
	"max_checkpoints":        5,
	"max_tokens":             1024,
	"memory_content":         "The customer complained in May.",
	"message":                "Is the label right?",
	"metadata":               object{"source": "ticket"},
	"method_name":            "classify",
	"metric_category":        "goal_alignment",
	"model":                  "openai/gpt-4.1-mini",
	"n":                      1,
	"n_iterations":           2,
	"name":                   "knowledge_search",
	"outcome":                "approved",
	"output":                 "billing",
	"output_format":          "json",
	"params":                 object{"_0": "4711"},
	"parent_branch":          "main",
	"parent_checkpoint_id":   "cp-1",
	"parent_id":              "cp-1",
	"plan":                   "1. Read the ticket. 2. Choose a label.",
	"plan_step_description":  "Read the ticket",
	"plan_step_number":       1,
	"policy":                 "warn",
	"presence_penalty":       0.5,
	"prompt_tokens":          1200,
	"provider":               "json",
	"pydantic":               nil,
	"quality":                8.5,
	"query":                  "refund",
	"query_time_ms":          3.5,
	"raw":                    `{"label":"billing"}`,
	"raw_response":           "Score: 8.5",
	"reason":                 "tool_reported",
	"reasoning_tokens":       64,
	"removed_count":          1,
	"request_id":             "req-1",
	"response":               "billing",
	"response_id":            "resp_1",
	"result":                 "billing",
	"results":                []any{object{"content": "The customer complained in May."}},
	"retrieval_time_ms":      4.5,
	"retrieved_knowledge":    "Refunds take five days.",
	"retry_count":            1,
	"role":                   "Support Analyst",
	"run_attempts":           0,
	"save_time_ms":           2.5,
	"score":                  8.5,
	"score_threshold":        0.35,
	"seed":                   42,
	"server_name":            "tickets",
	"server_url":             "https://mcp.example.com",
	"skill_name":             "triage",
	"skill_path":             "skills/triage",
	"slug":                   "tickets",
	"state":                  object{"id": "4711"},
	"step_description":       "Read the ticket",
	"step_number":            1,
	"stop_sequences":         []string{"\nObservation:"},
	"summary":                "It is about billing.",
	"task_description":       "Classify ticket 4711.",
	"task_display_name":      "",
	"task_id":                taskID,
	"task_name":              "classify",
	"task_prompt":            "Classify ticket 4711. Answer with one label.",
	"output_raw":             "",
	"parameters":             json.RawMessage(`{"type":"object","properties":{"query":{"type":"string"}},"required":["query"]}`),
	"temperature":            0.2,
	"text":                   "billing",
	"thought":                "I know the label.",
	"tool":                   "knowledge_search",
	"tool_args":              object{"query": "refund"},
	"tool_class":             "knowledge_search",
	"tool_input":             "refund",
	"tool_name":              "knowledge_search",
	"tool_to_use":            "knowledge_search",
	"top_p":                  0.9,
	"total_tokens":           1296,
	"transport_type":         "http",
	"trigger":                "task_completed",
	"type":                   "function",
	"value":                  "The customer complained in May.",
}
