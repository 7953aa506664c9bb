package crew

import (
	"encoding/json"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sample reads a crew of testevents/crews, and its inputs.
func sample(t *testing.T, name string) (map[string][]byte, map[string]any) {
	t.Helper()
	dir := os.DirFS("../../testevents/crews/" + name)
	files := map[string][]byte{}
	err := fs.WalkDir(dir, ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files[path], err = fs.ReadFile(dir, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var inputs map[string]any
	if err := json.Unmarshal(files["inputs.json"], &inputs); err != nil {
		t.Fatal(err)
	}
	return files, inputs
}

func TestSamples_parse_without_warnings_and_their_inputs_are_complete(t *testing.T) {
	for name, tasks := range map[string]int{"lead-research": 3, "support-triage": 3, "incident-review": 3} {
		t.Run(name, func(t *testing.T) {
			files, inputs := sample(t, name)
			d := mustParse(t, files)
			if missing := MissingInputs(d, inputs); len(missing) > 0 {
				t.Errorf("inputs.json lacks %q", missing)
			}
			for given := range inputs {
				if !slices.Contains(d.InputNames(), given) {
					t.Errorf("nothing asks for the input %q", given)
				}
			}
			full, err := d.With(inputs)
			if err != nil {
				t.Fatal(err)
			}
			if len(full.Tasks) != tasks || len(full.InputNames()) > 0 {
				t.Errorf("%d tasks, placeholders left: %q", len(full.Tasks), full.InputNames())
			}
		})
	}
}

func TestSample_lead_research_has_the_names_of_the_webhook_guide(t *testing.T) {
	files, _ := sample(t, "lead-research")
	d := mustParse(t, files)
	want := []string{"company", "form_response", "icp_description", "product_description", "product_name"}
	if diff := cmp.Diff(want, d.InputNames()); diff != "" {
		t.Errorf("inputs (-want +got)\n%s", diff)
	}
	if got := MissingInputs(d, nil); !slices.Equal(got, want) {
		t.Errorf("required %q", got)
	}
	first, last := d.Tasks[0], d.Tasks[len(d.Tasks)-1]
	agent, _ := d.Agent(first.Agent)
	if first.Name != "Industry Research Task" || agent.Role != "Research Agent" || agent.Tools[0].Name != "research_tool" {
		t.Errorf("%q by %q with %+v", first.Name, agent.Role, agent.Tools)
	}
	for schema, keys := range map[string][]string{
		string(first.OutputJSON): {"industry", "key_opportunities"}, string(last.OutputJSON): {"lead_score", "talking_points"},
	} {
		for _, key := range keys {
			if !strings.Contains(schema, `"`+key+`":`) {
				t.Errorf("%s lacks %s", schema, key)
			}
		}
	}
}
