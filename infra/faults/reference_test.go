package faults_test

import (
	"strings"

	"muster/shared/engine/llm"
	"muster/shared/engine/llm/scripted"
)

// The reference crew uses everything that makes a run more than a line of model calls: two tools at the same time, an event
// of its own, two tasks beside each other, of which one is shown to a person, and a guardrail. The person and the guardrail
// are content the second time.
var reference = map[string]string{
	"agents.yaml": `
scout:
  {role: Scout, goal: Find the way, backstory: Walks far, llm: openai/gpt-4.1-mini, knowledge: [map.md],
   tools: [{type: knowledge_search, name: look}, emit_event]}
scribe:
  {role: Scribe, goal: Write it down, backstory: Writes well, llm: openai/gpt-4.1-mini}
`,
	"tasks.yaml": `
survey: {description: "Survey the valley of {river}", expected_output: A text, agent: scout}
weather: {description: "Tell the weather at {river}", expected_output: A text, agent: scribe, async_execution: true}
customs: {description: "Tell the customs at {river}", expected_output: A text, agent: scribe, async_execution: true, human_input: true}
report: {description: "Report on {river}", expected_output: A text, agent: scribe, context: [survey, weather, customs],
  guardrail: The report is signed.}
`,
	"map.md": "The bridge is in the north.\n\nThe ford is in the south.",
}

// referenceModel answers the reference crew. What it says depends on nothing but the request.
func referenceModel(r scripted.Request) scripted.Reply {
	user := r.User()
	switch {
	case strings.Contains(r.System(), "Guardrail Agent"):
		if strings.Contains(string(r.Body), "Signed: the scribe") {
			return scripted.Text(`{"valid": true, "feedback": null}`)
		}
		return scripted.Text(`{"valid": false, "feedback": "Nobody has put a name to it."}`)
	case strings.HasPrefix(user, "Survey"):
		switch results(r) {
		case 0:
			look := scripted.Use("look", map[string]any{"query": "bridge"})
			look.ToolCalls = append(look.ToolCalls, scripted.Use("look", map[string]any{"query": "ford"}).ToolCalls...)
			return look
		case 2:
			return scripted.Use("emit_event", map[string]any{"type": "way_found", "data": map[string]any{"by": "bridge"}})
		}
		return scripted.Text("Cross by the bridge.")
	case strings.HasPrefix(user, "Tell the weather"):
		return scripted.Text("It rains.")
	case strings.HasPrefix(user, "Tell the customs"):
		if strings.Contains(user, "Tell how they bow.") {
			return scripted.Text("They greet with both hands, and bow.")
		}
		return scripted.Text("They greet with both hands.")
	case strings.HasPrefix(user, "Report"):
		if strings.Contains(user, "not accepted") {
			return scripted.Text("Cross by the bridge in the rain. Signed: the scribe")
		}
		return scripted.Text("Cross by the bridge in the rain.")
	}
	return scripted.Fail(400, "unexpected: "+user)
}

// results counts the results of tools in a conversation.
func results(r scripted.Request) (n int) {
	for _, m := range r.Messages {
		if m.Role == llm.Tool {
			n++
		}
	}
	return n
}
