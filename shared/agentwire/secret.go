package agentwire

import (
	"net/http"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/trigger"
	"muster/shared/workspace"
)

// headerInternal carries the internal token.
const headerInternal = "X-Internal-Token"

type secretReply struct {
	Secret string `json:"secret"`
}

// showSecret shows the secret of an agent to who has the internal token.
func (w *Wire) showSecret(rw http.ResponseWriter, r *http.Request, _ workspace.Caller) error {
	token := r.Header.Get(headerInternal)
	if token == "" {
		return fault.New(fault.Unauthorized, "The header %s is missing.", headerInternal)
	}
	c, err := w.Tokens.Authenticate(r.Context(), token)
	if err != nil {
		return err
	}
	if c.Kind != workspace.Internal {
		return fault.New(fault.Unauthorized, "The token in %s is no internal token.", headerInternal)
	}
	agentID, ok := id.Parse(agentPrefix, r.PathValue("agentId"))
	if !ok {
		return errNoAgent
	}
	t, err := w.Triggers.FindAgent(r.Context(), agentID)
	if fault.Is(err, fault.NotFound) || err == nil && t.WorkspaceID != c.WorkspaceID {
		return errNoAgent
	}
	if err != nil {
		return err
	}
	secret, err := w.Triggers.AgentSecret(r.Context(), t)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, secretReply{secret})
}

func (w *Wire) rotateSecret(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	t, err := w.agent(r, c)
	if err != nil {
		return err
	}
	secret, err := w.Triggers.RotateAgentSecret(r.Context(), t.ID)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, secretReply{secret})
}

var errNoAgent = fault.New(fault.NotFound, "There is no such agent.")

// agentPrefix may begin the id of an agent; it is shown without.
const agentPrefix = "agt"

// agent finds the agent that the path names, if the caller may see it. With a deployment's token its key is enough.
func (w *Wire) agent(r *http.Request, c workspace.Caller) (trigger.Trigger, error) {
	return w.agentNamed(r, c, r.PathValue("agentId"))
}

func (w *Wire) agentNamed(r *http.Request, c workspace.Caller, shown string) (trigger.Trigger, error) {
	agentID, ok := id.Parse(agentPrefix, shown)
	if !ok && c.Kind == workspace.Deployment {
		agentID, ok = crew.AgentID(c.DeploymentID, shown), true
	}
	if !ok {
		return trigger.Trigger{}, errNoAgent
	}
	t, err := w.Triggers.FindAgent(r.Context(), agentID)
	if fault.Is(err, fault.NotFound) || err == nil && !c.Sees(t.WorkspaceID, t.DeploymentID) {
		return trigger.Trigger{}, errNoAgent
	}
	return t, err
}
