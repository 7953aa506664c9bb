package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"muster/shared/engine/llm"
	"muster/shared/engine/llm/scripted"
)

// A run of the crew below has three tasks, ten calls of the model and eleven of a tool.
const (
	crewName    = "bench"
	stepsPerRun = 10 + 11
)

var crewFiles = map[string]string{
	"crew.yaml": "name: Bench\nprocess: sequential\n",
	"agents.yaml": `
researcher:
  role: Research Agent
  goal: Find out what drives an industry
  backstory: You read the notes first and quote them closely.
  tools: [{type: knowledge_search, name: search}]
`,
	"tasks.yaml": `
research: {agent: researcher, description: Study the industry., expected_output: A report}
judge: {agent: researcher, description: Judge the fit., expected_output: One paragraph, context: [research]}
write: {agent: researcher, description: Write a letter., expected_output: A letter, context: [research, judge]}
`,
	"knowledge/notes.md": strings.Repeat("Banks spend most of their budget on keeping what they have. A branch costs more than an app.\n\n", 40),
}

func writeCrew(dir string) error {
	for name, content := range crewFiles {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// searches says how many tools the next answer asks for, by the task and the answers so far.
func searches(r scripted.Request) int {
	answers := 0
	for _, m := range r.Messages {
		if m.Role == llm.Assistant {
			answers++
		}
	}
	plan := []int{2, 2, 0}
	if strings.Contains(r.User(), "Write a letter") {
		plan = []int{1, 1, 1, 0}
	}
	return plan[min(answers, len(plan)-1)]
}

// serveModel is the model server in a process of its own, so that its work counts for nobody else. It lives as long as
// its standard input.
func serveModel(together int) {
	var mu sync.Mutex
	first, gather := 0, make(chan struct{})
	server := scripted.Start(func(r scripted.Request) scripted.Reply {
		n := searches(r)
		if n == 0 {
			return scripted.Text(strings.Repeat("The notes say that a branch costs more than an app. ", 10))
		}
		var reply scripted.Reply
		for i := range n {
			reply.ToolCalls = append(reply.ToolCalls, scripted.Use("search", map[string]string{"query": "branch " + strconv.Itoa(i)}).ToolCalls...)
		}
		if len(r.Messages) <= 2 && strings.Contains(r.User(), "Study the industry") {
			mu.Lock()
			if first++; first == together {
				close(gather)
			}
			mu.Unlock()
			if together > 1 {
				reply.Wait = gather
			}
		}
		return reply
	})
	defer server.Close()
	fmt.Println(server.URL)
	io.Copy(io.Discard, os.Stdin)
}

// startModel starts a model server that answers the first calls of so many runs only when all of them are there.
func startModel(ctx context.Context, together int) (url string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-model", "-together", strconv.Itoa(together))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { in.Close(); cmd.Wait() }
	url, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("start the model server: %w", err)
	}
	return strings.TrimSpace(url), stop, nil
}
