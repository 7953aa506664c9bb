package guides

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestToolsWithoutCode(t *testing.T) {
	const page = "no-code"
	up(t)
	t.Run("the body and the equal curl", func(t *testing.T) {
		d := deploy(t, "name", "message")
		url, _ := d.hook(t, nil)
		d.shell(t, "URL="+url).run(t, page, "equal.sh")
		// The same record again, as a tool would send it.
		if got, said := post(t, url, strings.TrimSpace(snippet(t, page, "body.json")), "Idempotency-Key", "form-4711"); got != http.StatusAccepted {
			t.Errorf("%d %s", got, said)
		}
		d.started(t, map[string]any{"name": "Ada Lovelace", "message": "Is my order on its way?"})
	})
	t.Run("the workflow of n8n", func(t *testing.T) {
		d := deploy(t, "name", "message")
		url, _ := d.hook(t, nil)
		body, headers := n8n(t, snippet(t, page, "n8n.json"), map[string]string{
			"={{ $execution.id }}": "815",
			"={{ JSON.stringify({name: $json.body.name, message: $json.body.message}) }}": `{"name":"Ada Lovelace","message":"Hello"}`,
		})
		for range 2 {
			if got, said := post(t, url, body, headers...); got != http.StatusAccepted {
				t.Errorf("%d %s", got, said)
			}
		}
		d.started(t, map[string]any{"name": "Ada Lovelace", "message": "Hello"})
	})
	t.Run("being told of the end", func(t *testing.T) {
		d := deploy(t)
		d.shell(t, "TOOL_URL="+d.home.URL+"/inbox/tool").run(t, page, "outgoing.sh")
		r := d.begin(t, nil)
		var told struct {
			Data struct {
				RunID  string `json:"run_id"`
				Status string
				Output struct{ Result string }
			}
		}
		if err := json.Unmarshal([]byte(d.home.inbox(t, "tool")), &told); err != nil {
			t.Fatal(err)
		}
		if told.Data.RunID != r.ID || told.Data.Status != "succeeded" || told.Data.Output.Result == "" {
			t.Errorf("told of %+v, want run %s", told, r.ID)
		}
	})
}

// n8n checks a workflow, and gives the request that it sends once its expressions are replaced.
func n8n(t *testing.T, text string, values map[string]string) (body string, headers []string) {
	t.Helper()
	type node struct {
		ID          string    `json:"id"`
		Name        string    `json:"name"`
		Type        string    `json:"type"`
		TypeVersion float64   `json:"typeVersion"`
		Position    []float64 `json:"position"`
		Parameters  struct {
			Method           string
			URL              string `json:"url"`
			SendHeaders      bool
			HeaderParameters struct {
				Parameters []struct{ Name, Value string }
			}
			SendBody    bool
			SpecifyBody string
			JSONBody    string `json:"jsonBody"`
		} `json:"parameters"`
	}
	var workflow struct {
		Name        string `json:"name"`
		Nodes       []node `json:"nodes"`
		Connections map[string]struct {
			Main [][]struct {
				Node, Type string
				Index      int
			} `json:"main"`
		} `json:"connections"`
	}
	if err := json.Unmarshal([]byte(text), &workflow); err != nil {
		t.Fatal(err)
	}
	names, ids := map[string]node{}, map[string]bool{}
	for _, n := range workflow.Nodes {
		if n.Name == "" || !strings.HasPrefix(n.Type, "n8n-nodes-base.") || n.TypeVersion == 0 || len(n.Position) != 2 || ids[n.ID] {
			t.Errorf("the node %+v is not right", n)
		}
		names[n.Name], ids[n.ID] = n, true
	}
	reached := map[string]bool{}
	for from, to := range workflow.Connections {
		if _, ok := names[from]; !ok {
			t.Errorf("a connection begins at %q, which is no node", from)
		}
		for _, output := range to.Main {
			for _, one := range output {
				if _, ok := names[one.Node]; !ok || one.Type != "main" {
					t.Errorf("a connection ends at %+v", one)
				}
				reached[one.Node] = true
			}
		}
	}
	evaluate := func(expression string) string {
		if !strings.HasPrefix(expression, "=") {
			return expression
		}
		value, ok := values[expression]
		if !ok {
			t.Errorf("the workflow evaluates %s", expression)
		}
		return value
	}
	for name, n := range names {
		if n.Type != "n8n-nodes-base.httpRequest" {
			continue
		}
		p := n.Parameters
		if !reached[name] || p.Method != "POST" || !strings.Contains(p.URL, "/webhooks/runs/") || !p.SendHeaders || !p.SendBody || p.SpecifyBody != "json" {
			t.Errorf("the node %+v", n)
		}
		for _, h := range p.HeaderParameters.Parameters {
			headers = append(headers, h.Name, evaluate(h.Value))
		}
		return evaluate(p.JSONBody), headers
	}
	t.Fatal("the workflow sends no request")
	return "", nil
}
