package openai

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStrictSchema(t *testing.T) {
	cases := []struct {
		name, schema string
		optional     optionalProperty
		want         string // "" when strict mode cannot say it, and the schema stays as it is
	}{
		{"objects are closed and complete, all the way down",
			`{"type":"object","title":"T","properties":{"a":{"type":"array","items":{"type":"object","properties":{"b":{"type":"string"}}}}}}`, optionalIsRequired,
			`{"type":"object","properties":{"a":{"type":"array","items":{"type":"object","properties":{"b":{"type":"string"}},"required":["b"],"additionalProperties":false}}},"required":["a"],"additionalProperties":false}`},
		{"an optional argument of a tool is not forced on the model",
			`{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},"required":["a"]}`, optionalIsNull, ""},
		{"unless null means that it is not given",
			`{"type":"object","properties":{"a":{"type":"string"},"b":{"type":["string","null"]}},"required":["a"]}`, optionalIsNull,
			`{"type":"object","properties":{"a":{"type":"string"},"b":{"type":["string","null"]}},"required":["a","b"],"additionalProperties":false}`},
		{"a map of anything is not strict", `{"type":"object","properties":{"a":{"type":"object","additionalProperties":{"type":"string"}}}}`, optionalIsRequired, ""},
		{"a bound is not strict", `{"type":"object","properties":{"a":{"type":"integer","minimum":1}}}`, optionalIsRequired, ""},
		{"definitions and choices are followed",
			`{"type":"object","properties":{"a":{"anyOf":[{"$ref":"#/$defs/d"},{"type":"null"}]}},"$defs":{"d":{"type":"object","properties":{"e":{"enum":["x"]}}}}}`, optionalIsRequired,
			`{"type":"object","properties":{"a":{"anyOf":[{"$ref":"#/$defs/d"},{"type":"null"}]}},"$defs":{"d":{"type":"object","properties":{"e":{"enum":["x"]}},"required":["e"],"additionalProperties":false}},"required":["a"],"additionalProperties":false}`},
		{"a root that is no object is not strict", `{"type":"array","items":{"type":"string"}}`, optionalIsRequired, ""},
		{"a property of any type is not strict", `{"type":"object","properties":{"a":{}}}`, optionalIsRequired, ""},
		{"a required property without a schema is not strict", `{"type":"object","properties":{"a":{"type":"string"}},"required":["z"]}`, optionalIsRequired, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, strict := strictSchema(json.RawMessage(c.schema), c.optional)
			want := c.want
			if want == "" {
				want = c.schema
			}
			if strict != (c.want != "") {
				t.Errorf("strict is %v", strict)
			}
			if diff := cmp.Diff(decode(t, want), reencode(t, got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func reencode(t *testing.T, v any) any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, string(text))
}

func FuzzStrictSchema(f *testing.F) {
	f.Add(`{"type":"object","properties":{"a":{"type":["string","null"]}}}`)
	f.Add(`{"type":"object","anyOf":[1],"$defs":{"x":null}}`)
	f.Fuzz(func(t *testing.T, schema string) {
		_, _ = strictSchema(json.RawMessage(schema), optionalIsRequired)
		_, _ = strictSchema(json.RawMessage(schema), optionalIsNull)
	})
}
