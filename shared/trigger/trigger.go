package trigger

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/workspace"
)

// Trigger is an inbound URL that starts runs of a deployment, of the version that its environment points to.
type Trigger struct {
	ID           string `json:"id"`
	WorkspaceID  string `json:"workspace"`
	DeploymentID string `json:"deployment"`
	Environment  string `json:"environment"`
	Name         string `json:"name"`
	Enabled      bool   `json:"enabled"`
	// Token is the SHA-256 of the one token that is good.
	Token string `json:"token,omitempty"`
	// Sender says whose requests start runs. Its Secret is sealed for the trigger's id and SecretField, "" for none.
	Sender Sender `json:"sender"`
	Secret string `json:"secret,omitempty"`
	// Filter and Input are expressions: whether a request starts a run, and what the run's inputs are. "" starts one for
	// every request, with its body for inputs.
	Filter string `json:"filter,omitempty"`
	Input  string `json:"input,omitempty"`
	// Agent is the key of the agent that does the runs alone, "" for the whole crew: see AgentTrigger.
	Agent string `json:"agent,omitempty"`
	// Traffic bounds the trigger's runs.
	Traffic   crew.Traffic `json:"traffic,omitzero"`
	CreatedAt time.Time    `json:"created_at"`
	UpdatedAt time.Time    `json:"updated_at"`

	rev int64
}

// SecretField is the field that a trigger's secret is sealed for.
const SecretField = "secret"

const (
	tokenPrefix = "mus_in_"
	incoming    = "IN#"
	maxTriggers = 50 // of a deployment
	maxName     = 100
)

func triggerKey(deploymentID, triggerID string) record.Key {
	return record.Key{Part: "W#" + deploymentID, Sort: incoming + triggerID}
}

func ownerKey(triggerID string) record.Key { return record.Key{Part: "W#" + triggerID, Sort: "OF"} }

func tokenKey(hash string) record.Key { return record.Key{Part: "T#" + hash, Sort: "TRIGGER"} }

// key gives where a trigger is kept.
func (t Trigger) key() record.Key {
	if t.Agent != "" {
		return agentKey(t.DeploymentID, t.ID)
	}
	return triggerKey(t.DeploymentID, t.ID)
}

// place says where a trigger is kept.
type place struct {
	Deployment string `json:"deployment"`
	Trigger    string `json:"trigger"`
}

var errUnknown = fault.New(fault.NotFound, "There is no webhook with this URL.")

// Create keeps a new trigger and gives its token, which is shown this once. secret is the sender's in clear; one is made
// where the sender needs one and none is given, and returned. It fills in the trigger's ID, times and hashes.
func (s *Service) Create(ctx context.Context, t *Trigger, secret string) (token, made string, err error) {
	now := s.now().UTC().Truncate(time.Millisecond)
	t.ID, t.CreatedAt, t.UpdatedAt, t.Enabled = id.New(), now, now, true
	if t.Environment == "" {
		t.Environment = crew.Production
	}
	if err := s.check(t); err != nil {
		return "", "", err
	}
	if made, err = s.setSecret(ctx, t, secret); err != nil {
		return "", "", err
	}
	others, err := s.Of(ctx, t.DeploymentID)
	if err != nil {
		return "", "", err
	}
	if len(others) >= maxTriggers {
		return "", "", fault.New(fault.Conflict, "A deployment has at most %d incoming webhooks; delete one.", maxTriggers)
	}
	// The trigger comes last: until it is there, its token and its pointer lead nowhere.
	if err := s.putPlace(ctx, ownerKey(t.ID), *t); err != nil {
		return "", "", err
	}
	if token, err = s.newToken(ctx, t); err != nil {
		return "", "", err
	}
	return token, made, s.put(ctx, t)
}

// newToken makes the token that the trigger is to have.
func (s *Service) newToken(ctx context.Context, t *Trigger) (string, error) {
	token := workspace.NewToken(tokenPrefix)
	t.Token = workspace.Hash(token)
	return token, s.putPlace(ctx, tokenKey(t.Token), *t)
}

func (s *Service) putPlace(ctx context.Context, k record.Key, t Trigger) error {
	body, err := json.Marshal(place{t.DeploymentID, t.ID})
	if err != nil {
		return fmt.Errorf("encode where trigger %s is: %w", t.ID, err)
	}
	_, err = s.Store.Put(ctx, record.Record{Key: k, Body: body})
	if there, ok := record.Current(err); ok && string(there.Body) == string(body) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("note where trigger %s is: %w", t.ID, err)
	}
	return nil
}

// setSecret seals the secret for a trigger. Where the sender needs one and none is given, it makes one and returns it.
func (s *Service) setSecret(ctx context.Context, t *Trigger, secret string) (made string, err error) {
	if secret == "" {
		if made = t.Sender.newSecret(); made == "" {
			t.Secret = ""
			return "", nil
		}
		secret = made
	}
	if err := t.Sender.checkSecret(secret); err != nil {
		return "", err
	}
	t.Secret, err = s.Sealer.Seal(ctx, t.WorkspaceID, t.ID, SecretField, secret)
	return made, err
}

// check refuses what a trigger cannot be.
func (s *Service) check(t *Trigger) error {
	t.Name = strings.TrimSpace(t.Name)
	if t.Name == "" || utf8.RuneCountInString(t.Name) > maxName {
		return fault.New(fault.Invalid, "\"name\" must have 1 to %d characters.", maxName)
	}
	if _, err := (crew.Deployment{}).Environment(t.Environment); err != nil {
		return err
	}
	if err := t.Sender.check(); err != nil {
		return err
	}
	for _, e := range []struct {
		field, expression string
		kind              Kind
	}{{"filter", t.Filter, Filter}, {"input", t.Input, Input}} {
		if _, err := s.rule(e.expression, e.kind); err != nil {
			return fault.Wrap(err, fault.Invalid, "%q is not right: %s", e.field, fault.Message(err))
		}
	}
	return nil
}

// Of gives the triggers of a deployment, the oldest first.
func (s *Service) Of(ctx context.Context, deploymentID string) ([]Trigger, error) {
	recs, err := s.Store.Scan(ctx, record.Prefix(triggerKey(deploymentID, "").Part, incoming))
	if err != nil {
		return nil, fmt.Errorf("read the triggers of deployment %s: %w", deploymentID, err)
	}
	all := make([]Trigger, 0, len(recs))
	for _, rec := range recs {
		t, err := decode(rec)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// Find gives a trigger by its id.
func (s *Service) Find(ctx context.Context, triggerID string) (Trigger, error) {
	return s.at(ctx, ownerKey(triggerID))
}

// ByToken gives the trigger that a token is good for, which may be disabled. Anything else is fault.NotFound.
func (s *Service) ByToken(ctx context.Context, token string) (Trigger, error) {
	hash := workspace.Hash(token)
	t, err := s.at(ctx, tokenKey(hash))
	if err == nil && t.Token != hash { // another one has taken its place
		return Trigger{}, errUnknown
	}
	return t, err
}

// at gives the trigger that a record points to.
func (s *Service) at(ctx context.Context, k record.Key) (Trigger, error) {
	rec, err := s.Store.Get(ctx, k)
	if fault.Is(err, fault.NotFound) {
		return Trigger{}, errUnknown
	}
	if err != nil {
		return Trigger{}, fmt.Errorf("look for a trigger: %w", err)
	}
	var p place
	if err := json.Unmarshal(rec.Body, &p); err != nil {
		return Trigger{}, fmt.Errorf("decode where a trigger is: %w", err)
	}
	rec, err = s.Store.Get(ctx, triggerKey(p.Deployment, p.Trigger))
	if fault.Is(err, fault.NotFound) {
		return Trigger{}, errUnknown
	}
	if err != nil {
		return Trigger{}, fmt.Errorf("read trigger %s: %w", p.Trigger, err)
	}
	return decode(rec)
}

// Change lets f change a trigger. f may be called again for what somebody else made of it. secret is the sender's in clear,
// nil to leave it; one is made, and returned, where it is "" or the sender is another than before.
func (s *Service) Change(ctx context.Context, triggerID string, secret *string, f func(*Trigger) error) (t Trigger, made string, err error) {
	for {
		if t, err = s.Find(ctx, triggerID); err != nil {
			return Trigger{}, "", err
		}
		before := t.Sender.Scheme
		if err := f(&t); err != nil {
			return Trigger{}, "", err
		}
		if err := s.check(&t); err != nil {
			return Trigger{}, "", err
		}
		if secret != nil || t.Sender.Scheme != before {
			given := ""
			if secret != nil {
				given = *secret
			}
			if made, err = s.setSecret(ctx, &t, given); err != nil {
				return Trigger{}, "", err
			}
		}
		t.UpdatedAt = s.now().UTC().Truncate(time.Millisecond)
		if err = s.put(ctx, &t); !fault.Is(err, fault.Conflict) {
			return t, made, err
		}
	}
}

// Regenerate gives a trigger another token. The old one is dead when it returns.
func (s *Service) Regenerate(ctx context.Context, triggerID string) (t Trigger, token string, err error) {
	old := ""
	t, _, err = s.Change(ctx, triggerID, nil, func(t *Trigger) error {
		old = t.Token
		token, err = s.newToken(ctx, t)
		return err
	})
	if err != nil {
		return Trigger{}, "", err
	}
	s.forget(ctx, tokenKey(old))
	return t, token, nil
}

// Delete removes a trigger. Its receipts stay until they expire.
func (s *Service) Delete(ctx context.Context, triggerID string) error {
	for {
		t, err := s.Find(ctx, triggerID)
		if err != nil {
			return err
		}
		err = s.Store.Delete(ctx, triggerKey(t.DeploymentID, t.ID), t.rev)
		if fault.Is(err, fault.Conflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("delete trigger %s: %w", t.ID, err)
		}
		s.forget(ctx, tokenKey(t.Token))
		return nil
	}
}

// forget removes a pointer that leads nowhere any more; should it stay, it does no harm.
func (s *Service) forget(ctx context.Context, k record.Key) {
	if err := s.Store.Delete(ctx, k, 1); err != nil {
		s.log().WarnContext(ctx, "a token that leads nowhere stays", "error", err)
	}
}

// put writes a trigger on condition that it is still the one it was read as. A lost race is fault.Conflict.
func (s *Service) put(ctx context.Context, t *Trigger) error {
	body, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("encode trigger %s: %w", t.ID, err)
	}
	rev, err := s.Store.Put(ctx, record.Record{Key: t.key(), Rev: t.rev, Body: body})
	if there, ok := record.Current(err); ok && string(there.Body) == string(body) {
		rev, err = there.Rev, nil // an earlier try got through
	}
	if err != nil {
		return fmt.Errorf("put trigger %s: %w", t.ID, err)
	}
	t.rev = rev
	return nil
}

func decode(rec record.Record) (Trigger, error) {
	var t Trigger
	if err := json.Unmarshal(rec.Body, &t); err != nil {
		return Trigger{}, fmt.Errorf("decode the trigger %s: %w", rec.Sort, err)
	}
	t.rev = rec.Rev
	return t, nil
}
