package crew

import (
	"fmt"
	"strings"

	"muster/shared/fault"
)

// Warning is something in a definition that has no effect, or not the one it seems to have.
type Warning struct {
	// Path is the file and the place in it, such as "agents.yaml: researcher.verbose".
	Path    string `json:"path"`
	Message string `json:"message"`
}

// String gives the warning in one line.
func (w Warning) String() string { return w.Path + " " + w.Message }

// Problem is an error in a definition. Parse's fault has all of them under "errors" in its details.
type Problem struct {
	File    string `json:"file"`
	Path    string `json:"path"`
	Message string `json:"message"`
}

// String gives the problem in one line: file, path in the file, what is wrong.
func (p Problem) String() string {
	if p.Path == "" {
		return p.File + ": " + p.Message
	}
	return p.File + ": " + p.Path + " " + p.Message
}

// maxReported keeps an answer readable; more problems or warnings are only counted.
const maxReported = 100

// report collects what is wrong with a definition.
type report struct {
	// strict makes unknown fields errors.
	strict   bool
	problems []Problem
	warnings []Warning
	more     int
}

func (r *report) fail(at place, format string, args ...any) {
	if len(r.problems) >= maxReported {
		r.more++
		return
	}
	r.problems = append(r.problems, Problem{at.file, at.path, fmt.Sprintf(format, args...)})
}

func (r *report) warn(at place, format string, args ...any) {
	if len(r.warnings) < maxReported {
		r.warnings = append(r.warnings, Warning{strings.TrimSuffix(at.file+": "+at.path, ": "), fmt.Sprintf(format, args...)})
	}
}

// err gives everything that is wrong as one fault, nil when nothing is.
func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	lines := make([]string, len(r.problems))
	for i, p := range r.problems {
		lines[i] = p.String()
	}
	text := strings.Join(lines, "; ")
	if n := len(lines) + r.more; n > 1 {
		text = fmt.Sprintf("The crew definition has %d errors: %s", n, text)
	}
	if r.more > 0 {
		text += fmt.Sprintf("; and %d more", r.more)
	}
	return fault.New(fault.Invalid, "%s", text).With(map[string]any{"errors": r.problems})
}

// place is where something stands: a file and a path in it, "" for the whole file.
type place struct{ file, path string }

func (p place) at(name string) place {
	name = shorten(name)
	if p.path != "" {
		name = p.path + "." + name
	}
	return place{p.file, name}
}

func (p place) index(i int) place { return place{p.file, fmt.Sprintf("%s[%d]", p.path, i)} }
