package offline_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"muster/shared/engine/llm"
	"muster/shared/engine/llm/offline"
)

func ask(t testing.TB, c llm.Call) llm.Reply {
	t.Helper()
	r, err := offline.New().Call(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func prompt(text string) llm.Call {
	return llm.Call{Messages: []llm.Message{
		{Role: llm.System, Content: "You are a clerk.\nYou love zebras.\n\nYour goal: find every zebra"},
		{Role: llm.User, Content: text},
	}}
}

func satisfies(t testing.TB, schema, text string) {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", document); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if err := compiled.Validate(value); err != nil {
		t.Errorf("%s does not satisfy %s: %v", text, schema, err)
	}
}

const report = "Summarise the report for the board.\n\nReport:\nRevenue grew by 12 percent to 4.1 million euros. The weather was fine. " +
	"Two of our largest customers asked for a longer contract. The office has a new coffee machine. Hiring is behind plan, because three offers were declined.\n\n"

func TestBrief(t *testing.T) {
	cases := []struct{ name, prompt, want string }{
		{"a list of the facts that matter, in their order", report + "Expected output: Three bullet points on revenue, customers and hiring",
			"- Revenue grew by 12 percent to 4.1 million euros.\n- Two of our largest customers asked for a longer contract.\n- Hiring is behind plan, because three offers were declined."},
		{"prose when sentences are asked for", report + "Expected output: One sentence on hiring", "Hiring is behind plan, because three offers were declined."},
		{"facts of the context", "Summarise.\n\nExpected output: Two bullets\n\nContext:\n- Sales rose.\n- Costs fell by half.", "- Sales rose.\n- Costs fell by half."},
		{"data behind a colon", "Compare Acme with our ideal customer: They have 200 people in two offices.\n\nExpected output: A sentence", "They have 200 people in two offices."},
		{"a text without any marker", "The lift is stuck on floor three. Nobody is inside.", "- The lift is stuck on floor three.\n- Nobody is inside."},
		{"a task that is nothing but instructions", "Research solar panels.\n\nExpected output: A report", "- Research solar panels."},
		{"the same twice is said once", "Summarise.\n\nContext:\nThe export is broken since Monday.\nThe export is broken since Monday morning.", "- The export is broken since Monday."},
		{"texts of JSON", "Summarise.\n\nContext:\n{\"finding\": \"Demand doubled in spring.\", \"n\": 3}", "- Demand doubled in spring."},
		{"nothing at all", "", "Nothing to go by."},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, ask(t, prompt(c.prompt)).Text); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheAgentIsNoFact(t *testing.T) {
	c := prompt("You are a clerk.\nYou love zebras.\n\nYour goal: find every zebra\n\n" + report)
	c.Messages = c.Messages[1:] // without a system message, as use_system_prompt: false has it
	if got := ask(t, c).Text; strings.Contains(got, "zebra") || got == "" {
		t.Errorf("got %s", got)
	}
}

func TestAnotherInputHasAnotherAnswer(t *testing.T) {
	a := ask(t, prompt(report)).Text
	b := ask(t, prompt(strings.ReplaceAll(report, "12 percent", "40 percent"))).Text
	if a == b || a != ask(t, prompt(report)).Text {
		t.Errorf("got %s and %s", a, b)
	}
}

// cut marks where one sentence of an answer may end and another begin, in any script.
var cut = strings.NewReplacer(". ", ".\x00", "? ", "?\x00", "! ", "!\x00", "。 ", "。\x00")

// Every sentence can be found in what the model was told, whatever that was.
func TestNothingIsMadeUp(t *testing.T) {
	piece := rapid.SampledFrom([]string{"The pump failed at 9:14.", "Refund 48 euros", "- an item", "Context:\n", "\n\n", "Expected output: two sentences\n",
		"Write a report: ", "Ticket 7 is open.", "Ticket 8 is open.", "{\"a\": \"Text in JSON.\"}", "Notes:\n", "É vrai? Oui.", "# Heading\n", "| a | b |\n", "[1]", "価格は高い。"})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(piece, 1, 20).Draw(t, "pieces"), rapid.SampledFrom([]string{" ", "\n", "\n\n"}).Draw(t, "between"))
		r, err := offline.New().Call(context.Background(), prompt(text))
		if err != nil || r.Text == "" {
			t.Fatalf("%q, %v", r.Text, err)
		}
		for line := range strings.Lines(r.Text) {
			line = flat(strings.TrimPrefix(line, "- "))
			if line == "Nothing to go by." || strings.Contains(flat(text), line) {
				continue
			}
			for part := range strings.SplitSeq(cut.Replace(line), "\x00") {
				if !strings.Contains(flat(text), part) {
					t.Fatalf("%q is not in %q", part, text)
				}
			}
		}
	})
}

func search(name, description string) llm.Function {
	return llm.Function{Name: name, Description: description,
		Parameters: json.RawMessage(`{"type":"object","properties":{"query":{"type":"string"}},"required":["query"],"additionalProperties":false}`)}
}

func TestTheKnowledgeIsAskedOnce(t *testing.T) {
	c := prompt("Research the retail industry and its trends in automation.\n\nExpected output: A report")
	c.Tools = []llm.Function{
		{Name: "http_request", Description: "Searches the web for knowledge.", Parameters: json.RawMessage(`{"type":"object","properties":{"query":{"type":"string"},"url":{"type":"string"}},"required":["url"]}`)},
		search("research_tool", "Searches the market notes."),
	}
	r := ask(t, c)
	if len(r.ToolCalls) != 1 || r.ToolCalls[0].Function.Name != "research_tool" || r.FinishReason != "tool_calls" {
		t.Fatalf("got %+v", r)
	}
	var arguments struct{ Query string }
	if err := json.Unmarshal([]byte(r.ToolCalls[0].Function.Arguments), &arguments); err != nil {
		t.Fatal(err)
	}
	if arguments.Query != "retail industry trends automation" {
		t.Errorf("searched for %q", arguments.Query)
	}
	c.Messages = append(c.Messages, llm.Message{Role: llm.Assistant, ToolCalls: r.ToolCalls},
		llm.Message{Role: llm.Tool, ToolCallID: r.ToolCalls[0].ID, Content: "Source: knowledge/retail.md (Trends)\nRetail moves to self-checkout."})
	if r = ask(t, c); r.Text != "- Retail moves to self-checkout." || r.ToolCalls != nil {
		t.Errorf("got %+v", r)
	}
}

func TestATextThatIsFoundNowhereIsNoFact(t *testing.T) {
	c := prompt("Summarise.\n\nContext:\nSales rose by half.")
	c.Messages = append(c.Messages, llm.Message{Role: llm.Tool, Content: `Nothing in the knowledge matches "sales".`})
	if got := ask(t, c).Text; got != "- Sales rose by half." {
		t.Errorf("got %s", got)
	}
}

func TestSchemas(t *testing.T) {
	const facts = "Triage the ticket.\n\nTicket:\nCompany: Acme GmbH\nEmail: ana@acme.example\nSeats: 40\nThe export fails since 2026-03-02 with error 500. " +
		"We are blocked, so this is critical for us. The bug affects billing as well. Nothing is lost yet.\n\n"
	cases := []struct{ name, schema, want string }{
		{"values with a label", `{"type":"object","properties":{"seats":{"type":"integer"},"company_name":{"type":"string"},"email":{"type":"string","format":"email"}},"required":["seats"]}`,
			`{"seats":40,"company_name":"Acme GmbH","email":"ana@acme.example"}`},
		{"an enumeration by what is mentioned", `{"type":"object","properties":{"priority":{"enum":["low","high","critical"]},"areas":{"type":"array","items":{"type":"string","enum":["login","billing","export"]}}}}`,
			`{"priority":"critical","areas":["billing","export"]}`},
		{"dates and numbers that are found", `{"type":"object","properties":{"since":{"type":"string","format":"date"},"error":{"type":"number","minimum":100}}}`, `{"since":"2026-03-02","error":500}`},
		{"booleans by what is said", `{"type":"object","properties":{"blocked":{"type":"boolean"},"lost":{"type":"boolean"},"refunded":{"type":"boolean"}}}`, `{"blocked":true,"lost":true,"refunded":false}`},
		{"a sentence for a text", `{"type":"object","properties":{"summary":{"type":"string","description":"what fails with which error"}}}`, `{"summary":"The export fails since 2026-03-02 with error 500."}`},
		{"constants, null, references and choices", `{"$defs":{"n":{"type":"integer","maximum":1}},"type":"object","properties":{"v":{"const":2},"z":{"type":"null"},"r":{"$ref":"#/$defs/n"},"c":{"anyOf":[{"type":"null"},{"type":"boolean"}]}}}`,
			`{"v":2,"z":null,"r":0,"c":false}`},
		{"bounds", `{"type":"object","properties":{"t":{"type":"string","maxLength":12},"l":{"type":"array","items":{"type":"string"},"maxItems":1},"m":{"type":"array","minItems":2,"items":{"type":"object","properties":{"x":{"type":"integer","minimum":3,"multipleOf":2}}}}}}`,
			`{"t":"The export","l":["We are blocked, so this is critical for us."],"m":[{"x":4},{"x":4}]}`},
		{"a list at the top", `{"type":"array","items":{"type":"string"},"maxItems":2}`, ``},
		{"a schema that refers to itself many times", `{"type":"array","minItems":90,"items":{"$ref":"#"}}`, ``},
		{"a schema that refers to itself", `{"$defs":{"t":{"type":"object","properties":{"child":{"$ref":"#/$defs/t"}}}},"$ref":"#/$defs/t"}`, ``},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			asked := prompt(facts)
			asked.Schema = json.RawMessage(c.schema)
			got := ask(t, asked).Text
			if c.want != "" {
				var one, other any
				if json.Unmarshal([]byte(c.want), &one) != nil || json.Unmarshal([]byte(got), &other) != nil {
					t.Fatalf("got %s", got)
				}
				if diff := cmp.Diff(one, other); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				satisfies(t, c.schema, got)
			}
			// The same schema in the prompt has the same answer.
			told := prompt(facts + "Expected output: \n\nAnswer with JSON that satisfies this JSON Schema:\n" + c.schema)
			if diff := cmp.Diff(got, ask(t, told).Text); diff != "" {
				t.Errorf("told in the prompt (-schema +prompt):\n%s", diff)
			}
		})
	}
}

func TestGuardrailsPassWhatIsThere(t *testing.T) {
	schema := json.RawMessage(`{"type":"object","properties":{"valid":{"type":"boolean"},"feedback":{"type":["string","null"]}},"required":["valid","feedback"]}`)
	for answer, want := range map[string]string{"Forty leads.": `{"feedback":"","valid":true}`, " \n": `{"feedback":"","valid":false}`} {
		c := prompt("Does this answer keep the rule?\n\nRule:\nBe brief\n\nAnswer:\n" + answer + "\n\nExpected output: a verdict")
		c.Schema = schema
		if got := ask(t, c).Text; got != want {
			t.Errorf("%q: got %s, want %s", answer, got, want)
		}
	}
}

func TestPiecesJoinToTheAnswer(t *testing.T) {
	var text strings.Builder
	c := prompt(report)
	c.Chunk = func(piece llm.Chunk) { text.WriteString(piece.Text) }
	r := ask(t, c)
	if text.String() != r.Text {
		t.Errorf("pieces join to %q, the answer is %q", text.String(), r.Text)
	}
	if r.Usage.PromptTokens == 0 || r.Usage.CompletionTokens != len(strings.Fields(r.Text)) || r.Usage.TotalTokens != r.Usage.PromptTokens+r.Usage.CompletionTokens {
		t.Errorf("got %+v", r.Usage)
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := offline.New().Call(ctx, prompt(report)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzCall(f *testing.F) {
	f.Add("Do this: {\"a\":[1,{}]}\n\nExpected output: 3 points\n\nContext:\nfacts.", `{"type":"object","properties":{"a":{"type":"array","items":{"$ref":"#"}}}}`)
	f.Add("Answer with JSON that satisfies this JSON Schema:\n{}", `{"enum":[]}`)
	f.Fuzz(func(t *testing.T, text, schema string) {
		c := prompt(text)
		if json.Valid([]byte(schema)) {
			c.Schema = json.RawMessage(schema)
		}
		if r := ask(t, c); c.Schema != nil && !json.Valid([]byte(r.Text)) {
			t.Fatalf("%q is no JSON", r.Text)
		}
	})
}
