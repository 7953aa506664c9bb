package crew_test

import (
	"testing"

	"muster/shared/crew"
	"muster/shared/fault"
)

func TestOneAgentWithAMessage(t *testing.T) {
	whole := crew.Definition{
		Name: "n", Inputs: map[string]any{"year": 2025, "tone": "{topic}"}, Knowledge: []string{"notes.md"}, MaxRPM: 3,
		Agents: []crew.Agent{
			{Key: "a", Role: "Of {year}", Goal: "On {topic}", Backstory: "In {tone}", LLM: crew.Model{Name: "m"}, Tools: []crew.Tool{{Type: "lambda", Name: "t"}}},
			{Key: "b"},
		},
		Tasks: []crew.Task{{Key: "t", Agent: "b", Description: "About {topic}"}},
	}
	d, err := whole.Single("a", "Say {topic} and {year}", "It was {known}")
	if err != nil {
		t.Fatal(err)
	}
	filled, err := d.With(map[string]any{"topic": "x", crew.TriggerPayload: "y"})
	if err != nil {
		t.Fatal(err)
	}
	if len(filled.Agents) != 1 || len(filled.Tasks) != 1 || filled.MaxRPM != 3 || len(filled.Knowledge) != 1 {
		t.Fatalf("the definition is %+v", filled)
	}
	if a := filled.Agents[0]; a.Role != "Of 2025" || a.Goal != "On {topic}" || a.Backstory != "In {topic}" || a.LLM.Name != "m" || len(a.Tools) != 1 {
		t.Errorf("the agent is %+v", a)
	}
	if task := filled.Tasks[0]; task.Description != "Say {topic} and {year}" || task.Known != "It was {known}" || task.Agent != "a" || task.HumanInput {
		t.Errorf("the task is %+v", task)
	}
	if whole.Agents[0].Role != "Of {year}" || len(whole.Tasks) != 1 || whole.Literal {
		t.Errorf("the whole crew has changed: %+v", whole)
	}
	if _, err := whole.Single("c", "m", ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("an agent that is not there: %v", err)
	}
}
