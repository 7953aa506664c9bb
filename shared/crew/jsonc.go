package crew

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"
)

// readJSONC reads JSON with comments and trailing commas.
func readJSONC(data []byte) (any, error) {
	if jsonDepth(data) > maxDepth {
		return nil, errTooDeep
	}
	v, err := hujson.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("is not valid JSON: %s", strings.TrimPrefix(err.Error(), "hujson: "))
	}
	var g growth
	return g.fromJSON(v, 1)
}

func (g *growth) fromJSON(v hujson.Value, depth int) (any, error) {
	switch v := v.Value.(type) {
	case *hujson.Object:
		if err := g.add(depth, ""); err != nil {
			return nil, err
		}
		o := make(object, 0, len(v.Members))
		known := map[string]bool{}
		for _, m := range v.Members {
			name := m.Name.Value.(hujson.Literal).String()
			if known[name] {
				return nil, fmt.Errorf("has the field %q twice in one object", shorten(name))
			}
			known[name] = true
			if err := g.add(depth, name); err != nil {
				return nil, err
			}
			value, err := g.fromJSON(m.Value, depth+1)
			if err != nil {
				return nil, err
			}
			o = append(o, member{name, value})
		}
		return o, nil
	case *hujson.Array:
		if err := g.add(depth, ""); err != nil {
			return nil, err
		}
		list := make([]any, 0, len(v.Elements))
		for _, e := range v.Elements {
			value, err := g.fromJSON(e, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return list, nil
	case hujson.Literal:
		switch v.Kind() {
		case 'n':
			return nil, g.add(depth, "")
		case 't', 'f':
			return v.Bool(), g.add(depth, "")
		case '"':
			return v.String(), g.add(depth, v.String())
		}
		return number(string(v))
	}
	return nil, fmt.Errorf("holds a value that is not JSON")
}

// number reads a JSON number as int64 if it is one.
func number(text string) (any, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	f, err := json.Number(text).Float64()
	if err != nil {
		return nil, fmt.Errorf("holds the number %s, which is out of range", shorten(text))
	}
	return f, nil
}

// jsonDepth counts how deeply brackets are nested, outside of strings and comments. The parser recurses without a limit, so
// this comes before it.
func jsonDepth(data []byte) int {
	depth, most := 0, 0
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		case c == '/' && i+1 < len(data) && data[i+1] == '/':
			for i < len(data) && data[i] != '\n' {
				i++
			}
		case c == '/' && i+1 < len(data) && data[i+1] == '*':
			for i += 2; i+1 < len(data) && (data[i] != '*' || data[i+1] != '/'); {
				i++
			}
			i++
		case c == '[' || c == '{':
			depth++
			most = max(most, depth)
		case c == ']' || c == '}':
			depth--
		}
	}
	return most
}
