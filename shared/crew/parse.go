package crew

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// Parse makes a Definition of the files of a version, by path. Warnings say what has no effect. The error is a fault:
// TooLarge above the limits, else Invalid with all Problems under "errors" in its details. Files that the definition does not
// name are allowed.
func Parse(files map[string][]byte) (Definition, []Warning, error) {
	if err := checkFiles(files); err != nil {
		return Definition{}, nil, err
	}
	b := &builder{files: files, absent: map[string]bool{}}
	switch project, agents := b.either("crew.jsonc", "crew.json"), b.yamlFile("agents"); {
	case project != "":
		b.strict = true
		b.readJSONProject(project)
		if agents != "" {
			b.warn(place{file: agents}, "was not read, because there is %s", project)
		}
	case agents != "" || b.yamlFile("tasks") != "":
		b.readYAMLProject(agents, b.yamlFile("tasks"))
	default:
		b.explainNothing()
	}
	b.warnOfPython()
	b.check()
	if b.def.Name == "" {
		b.def.Name = "crew"
	}
	if err := b.err(); err != nil {
		return Definition{}, b.warnings, err
	}
	return b.def, b.warnings, nil
}

// either gives the first of these files that is there, and warns of the others.
func (b *builder) either(names ...string) (found string) {
	for _, name := range names {
		if _, ok := b.files[name]; !ok {
			continue
		}
		if found == "" {
			found = name
		} else {
			b.warn(place{file: name}, "was not read, because there is %s", found)
		}
	}
	return found
}

// yamlFile finds agents.yaml, say: at the top, in config/, or in src/<name>/config/ where a classic project has it.
func (b *builder) yamlFile(base string) string {
	var at []string
	for _, name := range slices.Sorted(maps.Keys(b.files)) {
		dir, file := path.Split(name)
		nested, _ := path.Match("src/*/config/", dir)
		if (file == base+".yaml" || file == base+".yml") && (dir == "" || dir == "config/" || nested) {
			at = append(at, name)
		}
	}
	if len(at) > 1 {
		b.fail(place{file: at[1]}, "there is also %s: a deployment has one crew, so keep one of them", at[0])
	}
	if len(at) == 0 {
		return ""
	}
	return at[0]
}

// document parses one file into a tree; ok is false, and a problem noted, when that fails.
func (b *builder) document(name string) (o object, ok bool) {
	at, data := place{file: name}, bytes.TrimPrefix(b.files[name], []byte("\ufeff"))
	switch {
	case len(data) > maxDocument:
		b.fail(at, "has %d bytes; at most %d are allowed", len(data), maxDocument)
		return nil, false
	case !utf8.Valid(data):
		b.fail(at, "is not UTF-8 text")
		return nil, false
	case bytes.IndexByte(data, 0) >= 0:
		b.fail(at, "holds a NUL character")
		return nil, false
	}
	read := readYAML
	if ext := path.Ext(name); ext == ".json" || ext == ".jsonc" {
		read = readJSONC
	}
	v, err := read(data)
	if err != nil {
		b.fail(at, "%s", err)
		return nil, false
	}
	o, ok = v.(object)
	if !ok {
		b.fail(at, "must hold an object at the top, not %s", kindOf(v))
		return nil, false
	}
	kind, _ := o.get("type")
	if s, _ := o.get("schema"); isFlow(s) || kind == "flow" {
		b.fail(at, "%s", noFlows)
		return nil, false
	}
	return o, true
}

const noFlows = "is a flow, which is not built yet: write it as a crew, with one task for each step"

func isFlow(schema any) bool {
	s, ok := schema.(string)
	return ok && strings.HasPrefix(s, "crewai.flow/")
}

// readJSONProject reads crew.jsonc and the agents that it names.
func (b *builder) readJSONProject(name string) {
	o, ok := b.document(name)
	if !ok {
		return
	}
	f, _ := b.fieldsOf(o, place{file: name})
	b.crew(f)

	agents, given := f.list("agents")
	if len(agents) == 0 {
		b.missingList(f, "agents", given)
	}
	named := map[string]bool{}
	for i, v := range agents {
		at := f.at("agents").index(i)
		key, ok := v.(string)
		switch {
		case f.python(v, at):
		case !ok:
			f.fail(at, "must be the name of an agent, not %s", kindOf(v))
		case named[key]:
			f.fail(at, "names the agent '%s' a second time", shorten(key))
		case len(named) < maxAgents+1:
			named[key] = true
			b.agentFile(key, f.place)
		}
	}

	tasks, given := f.list("tasks")
	if len(tasks) == 0 {
		b.missingList(f, "tasks", given)
	}
	taken := map[string]bool{}
	for _, v := range tasks {
		taken[taskName(v)] = true
	}
	for i, v := range tasks[:min(len(tasks), maxTasks+1)] {
		key := taskName(v)
		for n := i + 1; key == ""; n++ {
			if k := fmt.Sprintf("task_%d", n); !taken[k] {
				key, taken[k] = k, true
			}
		}
		b.task(key, v, f.at("tasks").index(i))
	}
	f.close()
}

// missingList notes that a list is not there, or empty.
func (b *builder) missingList(f *fields, name string, given bool) {
	if v, there := f.obj.get(name); !there {
		f.fail(f.place, "missing required field '%s'", name)
	} else if _, list := v.([]any); list && given {
		f.fail(f.at(name), "must not be empty")
	}
}

// taskName gives a task's own name, "" when it has none.
func taskName(task any) string {
	o, _ := task.(object)
	name, _ := o.get("name")
	s, _ := name.(string)
	return strings.TrimSpace(s)
}

// agentFile reads agents/<key>.jsonc.
func (b *builder) agentFile(key string, crew place) {
	name := b.either("agents/"+key+".jsonc", "agents/"+key+".json")
	if name == "" {
		b.absent[key] = true
		b.fail(crew, "agent '%s' not found in agents (tried %s.jsonc and %s.json)", shorten(key), shorten(key), shorten(key))
		return
	}
	o, ok := b.document(name)
	if !ok {
		b.absent[key] = true
		return
	}
	b.agent(key, o, place{file: name})
}

// readYAMLProject reads agents.yaml, tasks.yaml and crew.yaml.
func (b *builder) readYAMLProject(agents, tasks string) {
	if options := b.either(b.optionFiles(agents, tasks)...); options != "" {
		if o, ok := b.document(options); ok {
			f, _ := b.fieldsOf(o, place{file: options})
			b.crew(f)
			f.close()
		}
	} else {
		f, _ := b.fieldsOf(object{}, place{file: "crew.yaml"})
		b.crew(f)
	}
	b.each(agents, "agents.yaml", maxAgents, b.agent)
	b.each(tasks, "tasks.yaml", maxTasks, b.task)
}

// warnOfPython tells that Python files are not read.
func (b *builder) warnOfPython() {
	for _, name := range slices.Sorted(maps.Keys(b.files)) {
		switch {
		case path.Base(name) == "crew.py":
			b.warn(place{file: name}, "is Python code and was not read: put the crew's options into crew.yaml")
		case path.Ext(name) == ".py":
			b.warn(place{file: name}, "is Python code and was not read: use the built-in tools, or a lambda tool for code of your own")
		}
	}
}

// optionFiles are the places where crew.yaml may be.
func (b *builder) optionFiles(beside ...string) []string {
	names := []string{"crew.yaml", "crew.yml"}
	for _, file := range beside {
		if dir := path.Dir(file); file != "" && dir != "." && !slices.Contains(names, dir+"/crew.yaml") {
			names = append(names, dir+"/crew.yaml", dir+"/crew.yml")
		}
	}
	return names
}

// each reads the mapping of names to agents, or to tasks, in the order of the file.
func (b *builder) each(file, usual string, most int, read func(key string, v any, at place)) {
	if file == "" {
		b.fail(place{file: usual}, "is missing")
		return
	}
	o, ok := b.document(file)
	if !ok {
		return
	}
	if len(o) == 0 {
		b.fail(place{file: file}, "must not be empty")
	}
	for _, m := range o[:min(len(o), most+1)] {
		read(m.name, m.value, place{file: file}.at(m.name))
	}
}

// explainNothing says why there is no crew among the files.
func (b *builder) explainNothing() {
	for _, name := range slices.Sorted(maps.Keys(b.files)) {
		switch path.Ext(name) {
		case ".yaml", ".yml", ".json", ".jsonc":
			stem := strings.TrimSuffix(path.Base(name), path.Ext(name))
			if stem == "flow" || bytes.Contains(b.files[name], []byte("crewai.flow/")) {
				b.fail(place{file: name}, "%s", noFlows)
				return
			}
		}
	}
	b.fail(place{file: "crew.jsonc"}, "is missing: a deployment has crew.jsonc with agents/*.jsonc, or agents.yaml and tasks.yaml")
}
