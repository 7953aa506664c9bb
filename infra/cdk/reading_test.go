package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

// template is a CloudFormation template; object is any part of it.
type template struct {
	Parameters map[string]object
	Resources  map[string]*resource
	Outputs    map[string]object
}

type resource struct {
	Type           string
	Properties     object
	Metadata       object
	DeletionPolicy string
}

type object = map[string]any

func read(t *testing.T) template {
	t.Helper()
	var read template
	if err := json.Unmarshal(synthesised, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

// of gives the resources of a type by logical id.
func (t template) of(kind string) map[string]*resource {
	found := map[string]*resource{}
	for id, r := range t.Resources {
		if r.Type == kind {
			found[id] = r
		}
	}
	return found
}

// id finds a resource by the name it has in the stack.
func (t template) id(name string) string {
	for id, r := range t.Resources {
		if r.Metadata["aws:cdk:path"] == "Muster/"+name+"/Resource" {
			return id
		}
	}
	return ""
}

// at walks into a value by keys; nil when there is nothing.
func at(v any, keys ...string) any {
	for _, key := range keys {
		o, ok := v.(object)
		if !ok {
			return nil
		}
		v = o[key]
	}
	return v
}

func items(v any) []any {
	if list, ok := v.([]any); ok {
		return list
	}
	if v == nil {
		return nil
	}
	return []any{v}
}

// refers gives the logical id that an expression is about: that of its first Ref or Fn::GetAtt.
func (t template) refers(v any) string {
	switch v := v.(type) {
	case object:
		if id, ok := v["Ref"].(string); ok && t.Resources[id] != nil {
			return id
		}
		for _, inner := range []any{v["Fn::GetAtt"], v["Fn::Join"]} {
			if id := t.refers(inner); id != "" {
				return id
			}
		}
	case []any:
		for _, inner := range v {
			if id := t.refers(inner); id != "" {
				return id
			}
		}
	case string:
		if t.Resources[v] != nil {
			return v
		}
	}
	return ""
}

// statements gives what the function may do: the statements of the policies of its role.
func (t template) statements(function string) []object {
	var found []object
	role := t.refers(at(t.Resources[function].Properties, "Role"))
	for _, p := range t.of("AWS::IAM::Policy") {
		if t.refers(at(p.Properties, "Roles")) != role {
			continue
		}
		for _, s := range items(at(p.Properties, "PolicyDocument", "Statement")) {
			found = append(found, s.(object))
		}
	}
	return found
}

// may tells whether the function may do the action on the resource.
func (t template) may(function, action, on string) bool {
	return slices.ContainsFunc(t.statements(function), func(s object) bool {
		return slices.Contains(items(s["Action"]), any(action)) && t.refers(s["Resource"]) == on
	})
}

func number(v any) float64 {
	n, _ := v.(float64)
	return n
}

// without takes fields that say nothing out of a value: null, "" and [].
func without(v any) any {
	switch v := v.(type) {
	case object:
		full := object{}
		for key, value := range v {
			if value = without(value); value != nil && value != "" {
				full[key] = value
			}
		}
		return full
	case []any:
		var full []any
		for _, value := range v {
			full = append(full, without(value))
		}
		if len(full) == 0 {
			return nil
		}
		return full
	}
	return v
}

// last gives the end of an ARN put together by Fn::Join.
func last(v any) string {
	join := items(at(v, "Fn::Join"))
	if len(join) != 2 {
		return fmt.Sprint(v)
	}
	parts := items(join[1])
	return fmt.Sprint(parts[len(parts)-1])
}

func environment(t template, function string) object {
	o, _ := at(t.Resources[t.id(function)].Properties, "Environment", "Variables").(object)
	return o
}

// mapping gives the id of the event source mapping of a queue.
func mapping(t template, queue string) string {
	for id, m := range t.of("AWS::Lambda::EventSourceMapping") {
		if t.refers(m.Properties["EventSourceArn"]) == t.id(queue) {
			return id
		}
	}
	return ""
}

func (t template) deadOf(queue string) string {
	return t.refers(at(t.Resources[t.id(queue)].Properties, "RedrivePolicy", "deadLetterTargetArn"))
}

func route(t template, key string) *resource {
	for _, r := range t.of("AWS::ApiGatewayV2::Route") {
		if r.Properties["RouteKey"] == key && !t.ofSockets(r) {
			return r
		}
	}
	return nil
}

// ofSockets tells whether a route is one of the WebSocket API.
func (t template) ofSockets(route *resource) bool {
	api := t.Resources[t.refers(route.Properties["ApiId"])]
	return api != nil && api.Properties["ProtocolType"] == "WEBSOCKET"
}

// socketRoute gives the id of a route of the WebSocket API.
func (t template) socketRoute(key string) string {
	for id, r := range t.of("AWS::ApiGatewayV2::Route") {
		if r.Properties["RouteKey"] == key && t.ofSockets(r) {
			return id
		}
	}
	return ""
}

func deleteRoute(t template, key string) {
	for id, r := range t.Resources {
		if r == route(t, key) {
			delete(t.Resources, id)
		}
	}
}

// serves gives the function behind a route.
func (t template) serves(route *resource) string {
	integration := t.Resources[t.refers(route.Properties["Target"])]
	if integration == nil {
		return ""
	}
	return t.refers(integration.Properties["IntegrationUri"])
}

// calls tells whether a service of AWS may call the function.
func (t template) calls(service, function string) bool {
	for _, p := range t.of("AWS::Lambda::Permission") {
		if p.Properties["Principal"] == service && p.Properties["SourceArn"] != nil && t.refers(p.Properties["FunctionName"]) == function {
			return true
		}
	}
	return false
}

// statement gives the first statement that allows a function the action.
func (t template) statement(function, action string) object {
	for _, s := range t.statements(t.id(function)) {
		if slices.Contains(items(s["Action"]), any(action)) {
			return s
		}
	}
	return nil
}

// forbid takes an action out of everything that the function may do.
func forbid(t template, function, action string) {
	for _, s := range t.statements(t.id(function)) {
		s["Action"] = slices.DeleteFunc(slices.Clone(items(s["Action"])), func(a any) bool { return a == any(action) })
	}
}
