package run

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/id"
)

// Kept is what a run takes over from an earlier one: the output of a task, and what it cost there.
type Kept struct {
	Output TaskOutput `json:"output"`
	ModelUsage
}

// SumKept sums what kept outputs cost.
func SumKept(kept map[string]Kept) (all ModelUsage) {
	for _, k := range kept {
		all = all.add(k.ModelUsage)
	}
	return all
}

// RerunRequest asks to do a run again, as far as need be.
type RerunRequest struct {
	Run string
	// FromTask is the key or the name of the first task to do again; what comes before is kept. Without it the tasks are
	// done that have no output, and in another version also those that come after them, for what they are given changes.
	// When none is without an output the run begins at the beginning.
	FromTask string
	// VersionNumber is the version to execute, 0 for the earlier run's.
	VersionNumber int
	// Inputs lie over the earlier ones, as for Restore: a key that is given takes the place of the earlier value (by null, if
	// need be), and all others stay. With FromTask the caller says that the outputs before hold for other inputs too.
	Inputs map[string]any
	// Limits take the place of those that the earlier kickoff asked for, unless they are zero.
	Limits                     crew.Limits
	IdempotencyKey, BodyDigest string
}

// Rerun starts a run that does an earlier one again: with its inputs, meta and targets, and with the outputs of its tasks
// that stay what they are. Those are kept in the new run's request, with what they cost.
// Errors: fault.Conflict when the earlier run is not over, fault.Invalid for an unknown task, one before which an
// output is missing, or other inputs without FromTask.
func (s *Service) Rerun(ctx context.Context, q RerunRequest) (Run, map[string]Kept, error) {
	earlier, req, err := s.Whole(ctx, q.Run)
	if err != nil {
		return Run{}, nil, err
	}
	d, err := s.Crews.Deployment(ctx, earlier.DeploymentID)
	if err != nil {
		return Run{}, nil, err
	}
	number := q.VersionNumber
	if number == 0 {
		number = earlier.VersionNumber
	}
	v, err := s.Crews.VersionByNumber(ctx, d.ID, number)
	if err != nil {
		return Run{}, nil, err
	}
	q.Inputs = overlay(req.Inputs, q.Inputs)
	if q.FromTask == "" && !same(q.Inputs, req.Inputs) {
		return Run{}, nil, fault.New(fault.Invalid, "With other inputs the outputs of the earlier run may not hold; name the first task to do again as \"from_task\".")
	}
	var kept map[string]Kept // nothing, where one agent has one task
	if req.Agent == "" {
		if kept, err = s.KeptFrom(ctx, earlier, v.ID, q.FromTask); err != nil {
			return Run{}, nil, err
		}
	}
	if q.Limits == (crew.Limits{}) {
		q.Limits = req.Asked
	}
	targets, err := s.unsealed(ctx, earlier, req.Targets)
	if err != nil {
		return Run{}, nil, err
	}
	pointer := v.Pointer()
	r, err := s.Start(ctx, StartRequest{
		Deployment: d, Environment: earlier.Environment, Version: &pointer, Inputs: q.Inputs, Meta: req.Meta, Targets: targets,
		Limits: q.Limits, Origin: "replay", Of: earlier.ID, Kept: kept, Agent: req.Agent, IdempotencyKey: q.IdempotencyKey, BodyDigest: q.BodyDigest,
	})
	return r, kept, err
}

// overlay gives the earlier inputs with those that are given over them; nil when there are none at all.
func overlay(earlier, given map[string]any) map[string]any {
	all := maps.Clone(earlier)
	if all == nil {
		return given
	}
	maps.Copy(all, given)
	return all
}

// same compares inputs by their JSON, which has the keys of objects in order.
func same(a, b map[string]any) bool { return len(a) == 0 && len(b) == 0 || encode(a) == encode(b) }

// KeptFrom gives the outputs of a run that another run of the same deployment, of the version versionID, may take over. What
// FromTask of a RerunRequest says holds here too. It is nil when nothing is kept.
func (s *Service) KeptFrom(ctx context.Context, earlier Run, versionID, fromTask string) (map[string]Kept, error) {
	if !earlier.State.Ended() {
		return nil, fault.New(fault.Conflict, "The run is not over yet: it is %s.", earlier.State)
	}
	def, err := s.Crews.Definition(ctx, versionID)
	if err != nil {
		return nil, err
	}
	had, err := s.outputs(ctx, earlier)
	if err != nil {
		return nil, err
	}
	kept := map[string]Kept{}
	for _, t := range def.Tasks {
		if fromTask != "" && (t.Key == fromTask || t.Name == fromTask) {
			return kept, nil
		}
		k, ok := had[t.Key]
		switch {
		case ok:
			kept[t.Key] = k
		case fromTask == "" && versionID != earlier.VersionID:
			return kept, nil
		case fromTask != "" && slices.ContainsFunc(def.Tasks, func(t crew.Task) bool { return t.Key == fromTask || t.Name == fromTask }):
			return nil, fault.New(fault.Invalid, "The task %q comes before %q and has no output in the earlier run.", t.Key, fromTask)
		}
	}
	if fromTask != "" {
		return nil, fault.New(fault.Invalid, "There is no task %.80q.", fromTask)
	}
	if len(kept) == len(def.Tasks) {
		return nil, nil
	}
	return kept, nil
}

// outputs gives what the tasks of a run gave, by key: those it did and those it had kept itself.
func (s *Service) outputs(ctx context.Context, r Run) (map[string]Kept, error) {
	req, err := s.Request(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	def, err := s.Crews.Definition(ctx, r.VersionID)
	if err != nil {
		return nil, err
	}
	pages, err := s.Pages(ctx, r.ID, 1, 0)
	if err != nil {
		return nil, err
	}
	spent := map[string]ModelUsage{}
	outputs := map[string]TaskOutput{}
	var before Totals
	for _, p := range pages {
		// A step's key begins with that of its task.
		if key, _, ok := strings.Cut(p.Key, "/"); ok && p.Kind == StepPage {
			spent[key] = spent[key].add(p.Totals.Models().less(before.Models()))
		}
		before = p.Totals
		for _, t := range p.Tasks {
			outputs[t.TaskID] = t
		}
	}
	had := maps.Clone(req.Kept)
	if had == nil {
		had = map[string]Kept{}
	}
	for _, t := range def.Tasks {
		if out, ok := outputs[TaskID(r.ID, t.Key)]; ok {
			had[t.Key] = Kept{out, spent[t.Key]}
		}
	}
	return had, nil
}

// TaskID is the id of a task of a run.
func TaskID(runID, key string) string { return id.Derive(runID, key) }

// unsealed gives the targets of a run with their Authorization in clear.
func (s *Service) unsealed(ctx context.Context, r Run, targets []Target) ([]Target, error) {
	clear := slices.Clone(targets)
	for i := range clear {
		t := &clear[i]
		if t.Authorization == "" {
			continue
		}
		plain, err := s.Unseal(ctx, r.WorkspaceID, r.ID, "target/"+t.ID, t.Authorization)
		if err != nil {
			return nil, fmt.Errorf("unseal the authorization of target %s: %w", t.ID, err)
		}
		t.Authorization = plain
	}
	return clear, nil
}

// Restored is what a kickoff takes over from an earlier run that it names.
type Restored struct {
	Of     string
	Inputs map[string]any
	Kept   map[string]Kept
}

// Restore finds what a new run in the production of a deployment may take over from an earlier one: all outputs that there
// are, when its inputs are the same. Inputs that the kickoff does not give are the earlier run's. why says why there is
// nothing to take over, "" when there is.
func (s *Service) Restore(ctx context.Context, d crew.Deployment, runID string, inputs map[string]any) (restored Restored, why string, err error) {
	earlier, req, err := s.Whole(ctx, runID)
	switch {
	case fault.Is(err, fault.NotFound) || err == nil && earlier.DeploymentID != d.ID:
		return Restored{}, "this deployment has no such run", nil
	case err != nil:
		return Restored{}, "", err
	}
	all := overlay(req.Inputs, inputs)
	restored = Restored{Of: earlier.ID, Inputs: all}
	if !same(all, req.Inputs) {
		return restored, "with other inputs its outputs may not hold", nil
	}
	version, err := d.Environment(crew.Production)
	if err != nil {
		return Restored{}, "", err
	}
	restored.Kept, err = s.KeptFrom(ctx, earlier, version.VersionID, "")
	switch {
	case fault.Is(err, fault.Conflict):
		return restored, "that run is not over yet", nil
	case err == nil && len(restored.Kept) == 0:
		return restored, "that run leaves nothing to take over", nil
	}
	return restored, "", err
}
