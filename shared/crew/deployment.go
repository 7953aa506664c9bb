package crew

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/price"
)

// The environments of a deployment. There are no others.
const (
	Production = "production"
	Staging    = "staging"
)

// Deployment is a named crew with numbered versions. It holds all that a kickoff asks for, so that a kickoff reads one record.
type Deployment struct {
	ID          string    `json:"id"`
	WorkspaceID string    `json:"workspace"`
	Name        string    `json:"name"`
	CreatedAt   time.Time `json:"created_at"`
	// WebhookSecret signs what the deployment's runs send to targets given at kickoff; it is sealed. OldWebhookSecret, the
	// one before, signs too until OldWebhookSecretUntil.
	WebhookSecret         string    `json:"webhook_secret,omitempty"`
	OldWebhookSecret      string    `json:"old_webhook_secret,omitempty"`
	OldWebhookSecretUntil time.Time `json:"old_webhook_secret_until,omitzero"`
	// WebhookSecretMade is the id of the rotation that made WebhookSecret, "" for the first one.
	WebhookSecretMade string `json:"webhook_secret_made,omitempty"`
	// Environments say which version runs in production and in staging.
	Environments map[string]Pointer `json:"environments"`
	// Versions is the number of the newest version, Digest that of its files (see the function Digest).
	Versions int    `json:"versions"`
	Digest   string `json:"digest"`
	// Limits bound each run, Traffic how many there are. Prices go before those of package price.
	Limits  Limits      `json:"limits,omitzero"`
	Traffic Traffic     `json:"traffic,omitzero"`
	Prices  price.Table `json:"prices,omitempty"`

	rev int64
}

// Pointer is a version as its deployment knows it.
type Pointer struct {
	VersionID string `json:"version_id"`
	Number    int    `json:"number"`
	// Inputs are all placeholders, Required those without a default; both sorted.
	Inputs   []string `json:"inputs,omitempty"`
	Required []string `json:"required,omitempty"`
}

// Environment gives the version of an environment; "" is production. Any other name is fault.Invalid.
func (d Deployment) Environment(name string) (Pointer, error) {
	if name == "" {
		name = Production
	}
	if err := checkEnvironment(name); err != nil {
		return Pointer{}, err
	}
	return d.Environments[name], nil
}

func checkEnvironment(name string) error {
	if name != Production && name != Staging {
		return fault.New(fault.Invalid, "There is no environment '%s'; there are production and staging.", shorten(name))
	}
	return nil
}

// MissingInputs gives the required inputs that are not there, sorted; the kickoff's form of the function MissingInputs.
func (p Pointer) MissingInputs(inputs map[string]any) []string {
	return slices.DeleteFunc(slices.Clone(p.Required), func(name string) bool {
		_, given := inputs[name]
		return given
	})
}

// Check tells which required inputs are missing, as fault.Missing.
func (p Pointer) Check(inputs map[string]any) error {
	missing := p.MissingInputs(inputs)
	if len(missing) == 0 {
		return nil
	}
	return fault.New(fault.Missing, "Missing inputs: %s", strings.Join(missing, ", ")).With(map[string]any{"missing_inputs": missing})
}

// Version is one state of a deployment's files. It never changes.
type Version struct {
	ID           string    `json:"id"`
	DeploymentID string    `json:"deployment"`
	Number       int       `json:"number"`
	CreatedAt    time.Time `json:"created_at"`
	// Name is the crew's name in its definition.
	Name     string   `json:"name"`
	Inputs   []string `json:"inputs,omitempty"`
	Required []string `json:"required,omitempty"`
	Agents   []Member `json:"agents"`
	// Digest is that of the version's files.
	Digest string `json:"digest"`
	// Writer marks the call that made the version.
	Writer string `json:"writer"`
}

// Member is an agent as a version lists it. Its ID is the same in every version that has an agent of this key.
type Member struct {
	ID   string `json:"id"`
	Key  string `json:"key"`
	Role string `json:"role"`
}

// Pointer gives the version as its deployment would know it.
func (v Version) Pointer() Pointer { return Pointer{v.ID, v.Number, v.Inputs, v.Required} }

// VersionID is the id of a deployment's version.
func VersionID(deploymentID string, number int) string {
	return id.Derive(deploymentID, "version/"+strconv.Itoa(number))
}

// AgentID is the id of an agent, the same in all versions of its deployment.
func AgentID(deploymentID, key string) string { return id.Derive(deploymentID, "agent/"+key) }
