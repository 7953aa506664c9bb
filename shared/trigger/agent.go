package trigger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/thread"
	"muster/shared/workspace"
)

// Every agent of a deployment has a trigger, whose id is the agent's, and which is no incoming webhook: it has no URL with a
// token, but a secret. A run that it starts is done by that agent alone, on a message, in the session of the agent: the
// thread where it finds what it was told before. The runs of a session go one after the other.

const (
	agentPrefix  = "AGENT#"
	secretPrefix = "mus_agent_"

	// agentTime is how long a run may take, once somebody has begun it.
	agentTime = 10 * time.Minute
	// agentRate is how many runs of an agent may be started in a minute, agentRuns how many may be under way or wait.
	agentRate, agentRuns = 60, 8
	// Remembered is how many of the newest exchanges of its session an agent is told.
	Remembered = 10
)

func agentKey(deploymentID, agentID string) record.Key {
	return record.Key{Part: "W#" + deploymentID, Sort: agentPrefix + agentID}
}

// memberKey is where the deployment of an agent is noted.
func memberKey(agentID string) record.Key { return record.Key{Part: "W#" + agentID, Sort: "AGENT"} }

// nameKey is where the deployments of a name are noted.
func nameKey(name string) record.Key {
	return record.Key{Part: "N#" + workspace.Hash(name), Sort: "DEPLOYMENTS"}
}

// Enlist gives each agent of a version its trigger, unless it has one. What it does twice does no harm.
func (s *Service) Enlist(ctx context.Context, d crew.Deployment, v crew.Version) error {
	if err := s.noteName(ctx, d); err != nil {
		return err
	}
	for _, member := range v.Agents {
		if _, err := s.Store.Get(ctx, agentKey(d.ID, member.ID)); err == nil {
			continue
		} else if !fault.Is(err, fault.NotFound) {
			return fmt.Errorf("look for the trigger of agent %s: %w", member.ID, err)
		}
		now := s.now().UTC().Truncate(time.Millisecond)
		t := Trigger{
			ID: member.ID, WorkspaceID: d.WorkspaceID, DeploymentID: d.ID, Environment: crew.Production, Name: member.Key, Agent: member.Key, Enabled: true,
			Traffic: crew.Traffic{MaxKickoffsPerMinute: agentRate}, CreatedAt: now, UpdatedAt: now,
		}
		if _, err := s.newAgentSecret(ctx, &t); err != nil {
			return err
		}
		if err := s.putPlace(ctx, memberKey(t.ID), t); err != nil {
			return err
		}
		if err := s.put(ctx, &t); err != nil && !fault.Is(err, fault.Conflict) { // a conflict: somebody else has just done it
			return err
		}
	}
	return nil
}

// newAgentSecret seals a new secret for the trigger of an agent.
func (s *Service) newAgentSecret(ctx context.Context, t *Trigger) (secret string, err error) {
	secret = workspace.NewToken(secretPrefix)
	t.Secret, err = s.Sealer.Seal(ctx, t.WorkspaceID, t.ID, SecretField, secret)
	return secret, err
}

// noteName notes which deployments have a name. Two are enough to know that it is nobody's alone.
func (s *Service) noteName(ctx context.Context, d crew.Deployment) error {
	for {
		rec, ids, err := s.named(ctx, d.Name)
		if err != nil {
			return err
		}
		for _, other := range ids {
			if other == d.ID {
				return nil
			}
		}
		if len(ids) > 1 {
			return nil
		}
		rec.Key = nameKey(d.Name)
		if rec.Body, err = json.Marshal(append(ids, d.ID)); err != nil {
			return fmt.Errorf("encode the deployments of a name: %w", err)
		}
		if _, err = s.Store.Put(ctx, rec); !fault.Is(err, fault.Conflict) {
			if err != nil {
				return fmt.Errorf("note the name of deployment %s: %w", d.ID, err)
			}
			return nil
		}
	}
}

func (s *Service) named(ctx context.Context, name string) (rec record.Record, ids []string, err error) {
	rec, err = s.Store.Get(ctx, nameKey(name))
	if fault.Is(err, fault.NotFound) {
		return record.Record{}, nil, nil
	}
	if err != nil {
		return rec, nil, fmt.Errorf("look for a name: %w", err)
	}
	if err := json.Unmarshal(rec.Body, &ids); err != nil {
		return rec, nil, fmt.Errorf("decode the deployments of a name: %w", err)
	}
	return rec, ids, nil
}

// nobody is an id that nothing has.
const nobody = "00000000-0000-0000-0000-000000000000"

// AgentTrigger gives the trigger of an agent and its secret in clear, read at this moment. The crew is the id of a
// deployment, or a name that only one has; the agent is its id, or its key. known is false when there is none: then the
// secret is one that nobody knows, and finding that out took the same work.
func (s *Service) AgentTrigger(ctx context.Context, shownCrew, shownAgent string) (t Trigger, secret string, known bool, err error) {
	decoy, err := s.decoy(ctx)
	if err != nil {
		return Trigger{}, "", false, err
	}
	deploymentID, ok := id.Parse("dep", shownCrew)
	if !ok {
		_, ids, err := s.named(ctx, shownCrew)
		if err != nil {
			return Trigger{}, "", false, err
		}
		if deploymentID = nobody; len(ids) == 1 {
			deploymentID = ids[0]
		}
	}
	agentID, ok := id.Parse("agt", shownAgent)
	if !ok {
		agentID = crew.AgentID(deploymentID, shownAgent)
	}
	rec, err := s.Store.Get(ctx, agentKey(deploymentID, agentID))
	if err != nil && !fault.Is(err, fault.NotFound) {
		return Trigger{}, "", false, fmt.Errorf("read the trigger of agent %s: %w", agentID, err)
	}
	if known = err == nil; known {
		if t, err = decode(rec); err != nil {
			return Trigger{}, "", false, err
		}
	} else {
		t = decoy
	}
	secret, err = s.Sealer.Open(ctx, t.WorkspaceID, t.ID, SecretField, t.Secret)
	return t, secret, known, err
}

// decoy gives a trigger that is nobody's, with a secret that is sealed like any other.
func (s *Service) decoy(ctx context.Context) (t Trigger, err error) {
	t = Trigger{ID: nobody, WorkspaceID: nobody}
	_, err = s.newAgentSecret(ctx, &t)
	return t, err
}

// FindAgent gives the trigger of an agent by the agent's id; fault.NotFound when no deployment has such an agent.
func (s *Service) FindAgent(ctx context.Context, agentID string) (Trigger, error) {
	unknown := fault.New(fault.NotFound, "There is no such agent.")
	rec, err := s.Store.Get(ctx, memberKey(agentID))
	if fault.Is(err, fault.NotFound) {
		return Trigger{}, unknown
	}
	if err != nil {
		return Trigger{}, fmt.Errorf("look for agent %s: %w", agentID, err)
	}
	var p place
	if err := json.Unmarshal(rec.Body, &p); err != nil {
		return Trigger{}, fmt.Errorf("decode where agent %s is: %w", agentID, err)
	}
	rec, err = s.Store.Get(ctx, agentKey(p.Deployment, agentID))
	if fault.Is(err, fault.NotFound) {
		return Trigger{}, unknown
	}
	if err != nil {
		return Trigger{}, fmt.Errorf("read the trigger of agent %s: %w", agentID, err)
	}
	return decode(rec)
}

// AgentSecret gives the secret of an agent's trigger in clear.
func (s *Service) AgentSecret(ctx context.Context, t Trigger) (string, error) {
	return s.Sealer.Open(ctx, t.WorkspaceID, t.ID, SecretField, t.Secret)
}

// RotateAgentSecret gives an agent's trigger another secret. The old one is dead when it returns.
func (s *Service) RotateAgentSecret(ctx context.Context, agentID string) (secret string, err error) {
	for {
		t, err := s.FindAgent(ctx, agentID)
		if err != nil {
			return "", err
		}
		if secret, err = s.newAgentSecret(ctx, &t); err != nil {
			return "", err
		}
		t.UpdatedAt = s.now().UTC().Truncate(time.Millisecond)
		if err = s.put(ctx, &t); !fault.Is(err, fault.Conflict) {
			return secret, err
		}
	}
}

// ErrNoAgent says that an agent is in no version that its trigger could start any more.
var ErrNoAgent = fault.New(fault.NotFound, "The version in production has no such agent any more.")

// StartAgent starts the run of a request to an agent's trigger that is who it says it is.
// Errors: those of Start; ErrNoAgent; fault.TooMany also when as many of the agent's runs are under way or wait as may.
func (s *Service) StartAgent(ctx context.Context, q *Request, p Payload) (run.Run, error) {
	t := q.Trigger
	q.DeliveryID, _ = t.Sender.deliveryID(q.Header, nil)
	d, err := s.Crews.Deployment(ctx, t.DeploymentID)
	if err == nil {
		err = s.hasAgent(ctx, d, t)
	}
	var session string
	if err == nil {
		session, err = s.session(ctx, d, t.ID)
	}
	if err != nil {
		s.note(ctx, q, Failed, fault.Message(err), "")
		return run.Run{}, err
	}
	meta, err := json.Marshal(map[string]string{"event": p.Event, "source": p.Source, "trigger": "webhook"})
	if err != nil {
		return run.Run{}, fmt.Errorf("encode the meta of a run: %w", err)
	}
	return s.Start(ctx, q, run.StartRequest{
		Deployment: d, Environment: t.Environment, Inputs: map[string]any{run.Message: p.Message}, Meta: meta, Agent: t.Agent,
		Limits: crew.Limits{MaxDurationSeconds: int(agentTime / time.Second)},
		Thread: session, Enqueue: true, MaxWaiting: agentRuns - 1, Remember: Remembered,
	})
}

// hasAgent says whether the version that a trigger would start has its agent.
func (s *Service) hasAgent(ctx context.Context, d crew.Deployment, t Trigger) error {
	version, err := d.Environment(t.Environment)
	if err != nil {
		return err
	}
	def, err := s.Crews.Definition(ctx, version.VersionID)
	if err != nil {
		return err
	}
	if _, ok := def.Agent(t.Agent); !ok {
		return ErrNoAgent
	}
	return nil
}

// SessionName names the session of an agent, SessionThread is the thread that keeps it.
func SessionName(agentID string) string { return "webhook-" + agentID }

// SessionThread is the id of the thread that keeps the session of an agent.
func SessionThread(agentID string) string { return id.Derive(agentID, "session/webhook") }

// session gives the thread of an agent's session, and makes it when there is none.
func (s *Service) session(ctx context.Context, d crew.Deployment, agentID string) (threadID string, err error) {
	threads := thread.Threads{Store: s.Store, Runs: s.Runs, Now: s.Now}
	threadID = SessionThread(agentID)
	if _, err = threads.Get(ctx, threadID); !fault.Is(err, fault.NotFound) {
		return threadID, err
	}
	metadata, err := json.Marshal(map[string]string{"session_id": SessionName(agentID), "agent_id": agentID})
	if err != nil {
		return "", fmt.Errorf("encode the metadata of a session: %w", err)
	}
	_, err = threads.Create(ctx, d, thread.New{ID: threadID, Metadata: metadata})
	return threadID, err
}
