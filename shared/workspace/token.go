// Package workspace knows who may call Muster and keeps the secrets of a tenant.
//
// A workspace is the tenant. A caller shows a bearer token: the workspace's own, that of one deployment, or an internal one.
// Tokens are 256 random bits, shown once and kept as SHA-256 only. They are looked up by a consistent read each time they
// are used, so a revoked token is dead at once. Tokens given at deploy time are known by their hash and need no store.
//
// What must be read back (an Authorization header for a receiver, a signing secret) is sealed by a Sealer.
//
// Keys: T#sha256 / TOKEN holds the Caller that the token with this hash stands for.
package workspace

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
)

// Kind says what a token is good for.
type Kind string

// The kinds of callers.
const (
	// Workspace may use everything of its workspace.
	Workspace Kind = "workspace"
	// Deployment may use one deployment and its runs.
	Deployment Kind = "deployment"
	// Internal may use the internal routes of a workspace, and nothing else.
	Internal Kind = "internal"
	// Ticket may watch one run for a time, and nothing else. It may stand in a URL, where a token must not.
	Ticket Kind = "ticket"
)

// prefixes begin the tokens of each kind, so that a person (or a scanner of leaked secrets) knows one on sight. What a token
// is good for is decided by its record alone.
var prefixes = map[Kind]string{Workspace: "mus_ws_", Deployment: "mus_dep_", Internal: "mus_int_", Ticket: "mus_tkt_"}

// Caller is whom a token stands for.
type Caller struct {
	Kind        Kind   `json:"kind"`
	WorkspaceID string `json:"workspace"`
	// DeploymentID is set for a Deployment caller, and for a Ticket.
	DeploymentID string `json:"deployment,omitempty"`
	// RunID and Until, when it ceases to hold, are set for a Ticket only.
	RunID string    `json:"run,omitempty"`
	Until time.Time `json:"until,omitzero"`
	// Name tells the tokens of one workspace or deployment apart; "" is a fine name.
	Name string `json:"name,omitempty"`
}

// Sees tells whether what belongs to this workspace and deployment is the caller's to see.
func (c Caller) Sees(workspaceID, deploymentID string) bool {
	switch c.Kind {
	case Workspace:
		return c.WorkspaceID == workspaceID
	case Deployment:
		return c.WorkspaceID == workspaceID && c.DeploymentID == deploymentID
	}
	return false
}

// SeesRun tells whether a run of this workspace and deployment is the caller's to see.
func (c Caller) SeesRun(workspaceID, deploymentID, runID string) bool {
	return c.Sees(workspaceID, deploymentID) || c.Kind == Ticket && c.RunID == runID
}

// IsTicket tells whether a token may stand in a URL.
func IsTicket(token string) bool { return strings.HasPrefix(token, prefixes[Ticket]) }

// Tokens mints tokens and knows them again.
type Tokens struct {
	Records record.Store
	// Static holds the callers of tokens given at deploy time, by Hash; they cannot be revoked here.
	Static map[string]Caller
}

// Hash gives the form in which a token is kept: the lower-case hex digits of its SHA-256.
func Hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// Mint makes a token for c and keeps its hash. The token itself is returned this once.
func (t *Tokens) Mint(ctx context.Context, c Caller) (string, error) {
	prefix, known := prefixes[c.Kind]
	ofDeployment, ofRun := c.Kind == Deployment || c.Kind == Ticket, c.Kind == Ticket
	if !known || c.WorkspaceID == "" || ofDeployment != (c.DeploymentID != "") || ofRun != (c.RunID != "") || ofRun == c.Until.IsZero() {
		return "", fmt.Errorf("mint a token for kind %q, workspace %q, deployment %q, run %q: this is nobody", c.Kind, c.WorkspaceID, c.DeploymentID, c.RunID)
	}
	token := NewToken(prefix)
	body, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("mint a token: %w", err)
	}
	if _, err := t.Records.Put(ctx, record.Record{Key: tokenKey(Hash(token)), Body: body, Expires: c.Until}); err != nil {
		return "", fmt.Errorf("keep a token of workspace %s: %w", c.WorkspaceID, err)
	}
	return token, nil
}

// Authenticate gives the caller that the token stands for, or fault.Unauthorized.
func (t *Tokens) Authenticate(ctx context.Context, token string) (Caller, error) {
	return t.OfHash(ctx, Hash(token))
}

// OfHash is Authenticate for those who keep no token, only its Hash: is it still good?
func (t *Tokens) OfHash(ctx context.Context, hash string) (Caller, error) {
	if c, ok := t.Static[hash]; ok {
		return c, nil
	}
	r, err := t.Records.Get(ctx, tokenKey(hash))
	if fault.Is(err, fault.NotFound) {
		return Caller{}, fault.New(fault.Unauthorized, "Invalid or missing authentication credentials")
	}
	if err != nil {
		return Caller{}, fmt.Errorf("look up a token: %w", err)
	}
	var c Caller
	if err := json.Unmarshal(r.Body, &c); err != nil {
		return Caller{}, fmt.Errorf("read a token's record: %w", err)
	}
	return c, nil
}

// Revoke makes the token worthless at once. Revoking an unknown one succeeds.
func (t *Tokens) Revoke(ctx context.Context, token string) error {
	k := tokenKey(Hash(token))
	r, err := t.Records.Get(ctx, k)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up a token to revoke: %w", err)
	}
	if err := t.Records.Delete(ctx, k, r.Rev); err != nil {
		return fmt.Errorf("revoke a token: %w", err)
	}
	return nil
}

// NewToken makes 256 random bits that can stand in a URL, after a prefix.
func NewToken(prefix string) string { return prefix + base64.RawURLEncoding.EncodeToString(random()) }

// SecretPrefix begins every signing secret.
const SecretPrefix = "whsec_"

// NewSecret makes a signing secret for webhooks: whsec_ and the base64 of 32 random bytes.
func NewSecret() string { return SecretPrefix + base64.StdEncoding.EncodeToString(random()) }

func tokenKey(hash string) record.Key { return record.Key{Part: "T#" + hash, Sort: "TOKEN"} }

func random() []byte {
	b := make([]byte, 32)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	return b
}
