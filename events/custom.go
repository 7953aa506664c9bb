package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// MaxCustomData is how long the data of a custom event may be, in bytes as it was sent: 256 KB.
const MaxCustomData = 256 << 10

// maxCustomDepth keeps what is built around the data (page, body) far from the depth at which JSON readers give up.
const maxCustomDepth = 64

// NewCustom drafts an event of the user's own. The type must be one that no system event has or may get; data is a JSON object
// (none or null is {}) without the names of the base fields, which every event has already. The error is a sentence for
// whoever sent the event.
func NewCustom(typ string, data json.RawMessage, who Identity) (Draft, error) {
	if err := checkCustomType(typ); err != nil {
		return Draft{}, err
	}
	if len(data) > MaxCustomData {
		return Draft{}, fmt.Errorf("the data of a custom event is %d bytes long; at most %d are allowed", len(data), MaxCustomData)
	}
	object := map[string]any{}
	if len(bytes.TrimSpace(data)) > 0 {
		if !json.Valid(data) {
			return Draft{}, errors.New("the data of a custom event is not valid JSON")
		}
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber() // long ids and amounts stay as they were written
		if d.Decode(&object) != nil {
			return Draft{}, errors.New("the data of a custom event must be a JSON object")
		}
	}
	for _, name := range baseNames {
		if _, taken := object[name]; taken {
			return Draft{}, fmt.Errorf("the data of a custom event must not have the field %q: every event has one already", name)
		}
	}
	if depth(object) > maxCustomDepth {
		return Draft{}, fmt.Errorf("the data of a custom event is nested more than %d levels deep", maxCustomDepth)
	}
	return Draft{Type: typ, Who: who, Data: encode(Object(object))}, nil
}

// reservedPrefixes cover every type of the catalogue and every name of the lifecycle; run_ is for events of Muster's own.
var reservedPrefixes = []string{
	"run_", "run.", "endpoint.", "crew_", "task_", "agent_", "lite_agent_", "llm_", "tool_", "memory_", "knowledge_", "plan_step_", "flow_",
	"method_execution_", "human_feedback_", "mcp_", "skill_", "checkpoint_",
}

var customType = regexp.MustCompile(`^[a-z][a-z0-9_.:-]{0,63}$`)

// checkCustomType keeps the names of system events free, those to come included.
func checkCustomType(typ string) error {
	if !customType.MatchString(typ) {
		return fmt.Errorf("the type %.80q of a custom event must be 1 to 64 characters: a small letter, then small letters, digits and _ . : -", typ)
	}
	for _, prefix := range reservedPrefixes {
		if strings.HasPrefix(typ, prefix) {
			return fmt.Errorf("types that begin with %q are kept for events of the system; put a word of your own first, such as \"my.%s\"", prefix, typ)
		}
	}
	return nil
}

func depth(v any) int {
	deepest := 0
	switch v := v.(type) {
	case map[string]any:
		for _, inner := range v {
			deepest = max(deepest, depth(inner))
		}
	case []any:
		for _, inner := range v {
			deepest = max(deepest, depth(inner))
		}
	default:
		return 0
	}
	return deepest + 1
}
