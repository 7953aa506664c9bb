package main

import (
	"cmp"
	"os"
	"path/filepath"

	"muster/shared/engine/llm"
)

// banner says what is up, and how to use it.
func (h *home) banner() {
	h.say.line("Muster is up on %s (one process, everything in %s).\n", h.here, h.data)
	if h.url != h.here {
		h.say.line("Public    %s", h.url)
	}
	if model := cmp.Or(h.models, llm.OfflineName); model == llm.OfflineName {
		h.say.line("Model     %s, which is NO LLM: it picks sentences out of what it is given.", model)
		h.say.line("          For a real one: OPENAI_API_KEY=… make run, or MODEL=ollama/llama3.2 make run.")
	} else {
		h.say.line("Model     %s, unless a crew names another.", model)
	}
	if h.allowLoopback {
		h.say.line("Loopback  webhooks and tools may reach this machine; -allow-loopback=false forbids it, AWS always does.")
	}
	h.say.line("Pages     %s/guides and /openapi; /inbox/<any name> takes webhooks and shows them.", h.here)
	h.say.line("Tokens    %s; the workspace's is %s", tokensFile(h.data), h.kept.WorkspaceToken)
	for _, d := range h.kept.Deployments {
		h.say.line("\nDeployed  %s (%s)", d.Name, d.ID)
		h.say.line("  curl -s %s/inputs -H 'Authorization: Bearer %s'", h.url, d.Token)
		if file := h.inputsFile(d.Name); file != "" {
			h.say.line("  curl -s %s/kickoff -H 'Authorization: Bearer %s' -d \"{\\\"inputs\\\": $(cat %s)}\"", h.url, d.Token, file)
		}
	}
	h.say.line("")
}

// inputsFile gives the inputs.json of a deployed directory, "" for none.
func (h *home) inputsFile(name string) string {
	for _, dir := range h.deploy {
		if deploymentName(dir) == name && fileExists(filepath.Join(dir, "inputs.json")) {
			return filepath.Join(dir, "inputs.json")
		}
	}
	return ""
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
