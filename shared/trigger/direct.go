package trigger

import (
	"context"
	"encoding/json"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/run"
)

// Direct is a run that is asked for by an invocation of the function itself: by a schedule or a rule of EventBridge that its
// owner made. That it may invoke the function is its permission.
type Direct struct {
	// Deployment is the id of a deployment, as it is or as it is shown.
	Deployment  string
	Environment string
	Inputs      map[string]any
	// Execution makes the same invocation again give the same run for 24 hours.
	Execution string
	// Origin is "schedule", or "trigger" for an event.
	Origin string
}

// ParseDirect reads what such an invocation holds: {"deployment", "environment", "inputs", "execution_id"}.
func ParseDirect(payload []byte) (Direct, error) {
	v, err := parseJSON(payload)
	if err != nil {
		return Direct{}, err
	}
	var given struct {
		Deployment  string `json:"deployment"`
		Environment string `json:"environment"`
		Execution   string `json:"execution_id"`
	}
	if err := json.Unmarshal(payload, &given); err != nil {
		return Direct{}, fault.New(fault.Invalid, "An invocation is {\"deployment\": \"dep_…\", \"environment\": \"production\", \"inputs\": {…}}.")
	}
	d := Direct{Deployment: given.Deployment, Environment: given.Environment, Execution: given.Execution, Origin: "schedule"}
	fields, _ := v.(map[string]any)
	if inputs := fields["inputs"]; inputs != nil {
		var ok bool
		if d.Inputs, ok = inputs.(map[string]any); !ok {
			return Direct{}, fault.New(fault.Invalid, "\"inputs\" must be an object.")
		}
	}
	if d.Deployment == "" {
		return Direct{}, fault.New(fault.Invalid, "\"deployment\" is missing: the id of the deployment to run.")
	}
	return d, nil
}

// StartDirect starts the run, and does not wait for it to be begun.
func (s *Service) StartDirect(ctx context.Context, d Direct) (run.Run, error) {
	deploymentID, ok := id.Parse("dep", d.Deployment)
	if !ok {
		return run.Run{}, fault.New(fault.NotFound, "There is no deployment %q.", d.Deployment)
	}
	found, err := s.Crews.Deployment(ctx, deploymentID)
	if err != nil {
		return run.Run{}, err
	}
	key := ""
	if d.Execution != "" {
		key = "direct/" + d.Execution
	}
	return s.Runs.Start(ctx, run.StartRequest{Deployment: found, Environment: d.Environment, Inputs: d.Inputs, IdempotencyKey: key, Origin: d.Origin})
}
