package crew

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// readYAML reads one YAML document. Anchors, aliases and merge keys work; what they grow to is limited.
func readYAML(data []byte) (any, error) {
	tokens := lexer.Tokenize(string(data))
	if yamlDepth(tokens) > maxDepth {
		return nil, errTooDeep
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, notYAML(err)
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d == nil || d.Body == nil {
			continue
		}
		if body != nil {
			return nil, errors.New("holds more than one YAML document")
		}
		body = d.Body
	}
	r := yamlReader{anchors: map[string]ast.Node{}}
	return r.value(body, 1)
}

// notYAML says where the file stops making sense.
func notYAML(err error) error {
	var syntax yaml.Error
	if !errors.As(err, &syntax) || syntax.GetToken() == nil {
		return errors.New("is not valid YAML")
	}
	at := syntax.GetToken().Position
	return fmt.Errorf("is not valid YAML: line %d, column %d: %s", at.Line, at.Column, shorten(syntax.GetMessage()))
}

// yamlReader turns the syntax tree into ours. An anchor is kept as its node and read again for each alias, so that all
// copies are counted.
type yamlReader struct {
	growth
	anchors map[string]ast.Node
}

func (r *yamlReader) value(n ast.Node, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errTooDeep
	}
	switch n := n.(type) {
	case nil:
		return nil, nil
	case *ast.AnchorNode:
		name := n.Name.GetToken().Value
		v, err := r.value(n.Value, depth+1)
		// Known only from here on, so that an anchor cannot hold itself.
		r.anchors[name] = n.Value
		return v, err
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		anchor, ok := r.anchors[name]
		if !ok {
			return nil, fmt.Errorf("line %d uses the alias *%s before its anchor is complete", line(n), shorten(name))
		}
		return r.value(anchor, depth+1)
	case *ast.TagNode:
		return r.tagged(n, depth)
	case *ast.MappingNode:
		return r.mapping(n.Values, depth)
	case *ast.MappingValueNode:
		return r.mapping([]*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		if err := r.add(depth, ""); err != nil {
			return nil, err
		}
		list := make([]any, 0, len(n.Values))
		for _, e := range n.Values {
			v, err := r.value(e, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case *ast.NullNode:
		return nil, r.add(depth, "")
	case *ast.BoolNode:
		return n.Value, r.add(depth, "")
	case *ast.IntegerNode:
		if i, ok := n.Value.(int64); ok {
			return i, r.add(depth, "")
		}
		if u, ok := n.Value.(uint64); ok && u <= 1<<63-1 {
			return int64(u), r.add(depth, "")
		}
		return nil, fmt.Errorf("line %d holds a number that is out of range", line(n))
	case *ast.FloatNode:
		return n.Value, r.add(depth, "")
	case *ast.StringNode:
		return n.Value, r.add(depth, n.Value)
	case *ast.LiteralNode:
		return n.Value.Value, r.add(depth, n.Value.Value)
	case *ast.CommentGroupNode:
		return nil, nil
	}
	return nil, fmt.Errorf("line %d holds a value that is not allowed here", line(n))
}

// tagged reads a value with a tag: !!str makes text of a scalar, the other tags of YAML's core say what is known anyway, and
// those of a programming language are refused.
func (r *yamlReader) tagged(n *ast.TagNode, depth int) (any, error) {
	tag := n.Start.Value
	if !strings.HasPrefix(tag, "!!") || strings.ContainsAny(tag, "/:") {
		return nil, fmt.Errorf("line %d has the tag %s, which means nothing here", line(n), shorten(tag))
	}
	if tag == "!!str" && n.Value != nil {
		if s, ok := n.Value.(ast.ScalarNode); ok && s.GetToken() != nil {
			if _, multi := s.(*ast.LiteralNode); !multi {
				text := s.GetToken().Value
				return text, r.add(depth, text)
			}
		}
	}
	return r.value(n.Value, depth+1)
}

// mapping reads a mapping. A merge key brings the fields of other mappings that are not given here.
func (r *yamlReader) mapping(values []*ast.MappingValueNode, depth int) (any, error) {
	if err := r.add(depth, ""); err != nil {
		return nil, err
	}
	var own object
	var merged []any
	known := map[string]bool{}
	for _, mv := range values {
		v, err := r.value(mv.Value, depth+1)
		if err != nil {
			return nil, err
		}
		if mv.Key.IsMergeKey() {
			merged = append(merged, v)
			continue
		}
		name, err := r.key(mv.Key)
		if err != nil {
			return nil, err
		}
		if err := r.add(depth, name); err != nil {
			return nil, err
		}
		if known[name] {
			return nil, fmt.Errorf("line %d has the field %q a second time", line(mv.Key), shorten(name))
		}
		known[name] = true
		own = append(own, member{name, v})
	}
	for _, m := range merged {
		list, ok := m.([]any)
		if !ok {
			list = []any{m}
		}
		for _, from := range list {
			o, ok := from.(object)
			if !ok {
				return nil, errors.New("merges (<<) something that is not a mapping")
			}
			for _, f := range o {
				if !known[f.name] {
					known[f.name] = true
					own = append(own, f)
				}
			}
		}
	}
	if own == nil {
		own = object{}
	}
	return own, nil
}

// key reads the name of a field, which is a scalar.
func (r *yamlReader) key(n ast.MapKeyNode) (string, error) {
	switch k := n.(type) {
	case *ast.StringNode:
		return k.Value, nil
	case *ast.IntegerNode, *ast.BoolNode, *ast.FloatNode, *ast.NullNode:
		return n.GetToken().Value, nil
	}
	return "", fmt.Errorf("line %d has a field name that is not plain text", line(n))
}

func line(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

// yamlDepth estimates how deeply a document is nested, from above: open brackets, columns of block entries that contain
// one another, and tags and anchors in a row. The parser recurses without a limit, so this comes before it.
func yamlDepth(tokens token.Tokens) int {
	var columns []int
	brackets, row, most := 0, 0, 0
	enter := func(t *token.Token) {
		if brackets > 0 || t == nil || t.Position == nil {
			return
		}
		for len(columns) > 0 && columns[len(columns)-1] >= t.Position.Column {
			columns = columns[:len(columns)-1]
		}
		columns = append(columns, t.Position.Column)
	}
	for i, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets = max(0, brackets-1)
		case token.AnchorType, token.TagType:
			row++
		case token.SequenceEntryType, token.MappingKeyType:
			row = 0
			enter(t)
		case token.MappingValueType:
			row = 0
			if i > 0 {
				enter(tokens[i-1])
			}
		case token.CollectEntryType:
			row = 0
		}
		most = max(most, brackets+len(columns)+row)
	}
	return most
}
