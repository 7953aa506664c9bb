package crew

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
)

// Store keeps deployments and their versions. Safe for concurrent use.
type Store struct {
	Records record.Store
	// Check, when set, may refuse a definition that was parsed without errors, for a model or tool that cannot be opened.
	// Its error is a fault.
	Check func(d Definition, files map[string][]byte) error
	// Enlist, when set, is told of a version and its agents before the deployment knows of it. It may be told twice.
	Enlist func(ctx context.Context, d Deployment, v Version) error
	// Now is the clock, time.Now unless set.
	Now func() time.Time

	definitions cache[Definition]
	files       cache[map[string][]byte]
}

// tries is how often a write that lost a race is done again on what won.
const tries = 10

// maxName is the longest name of a deployment, in characters.
const maxName = 100

// Create makes a deployment whose first version is in both environments. Without a name it has the crew's. seal, when set,
// makes the sealed webhook secret for the deployment's id; settings may set limits and prices, or refuse with a fault.
func (s *Store) Create(ctx context.Context, workspaceID, name string, files map[string][]byte, seal func(deploymentID string) (string, error), settings ...func(*Deployment) error) (Deployment, Version, []Warning, error) {
	def, warnings, err := s.parse(files)
	if err != nil {
		return Deployment{}, Version{}, warnings, err
	}
	if name = strings.TrimSpace(name); name == "" {
		name = def.Name
	}
	if utf8.RuneCountInString(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return Deployment{}, Version{}, warnings, fault.New(fault.Invalid, "The name of a deployment has at most %d characters, all of them readable.", maxName)
	}
	d := Deployment{ID: id.New(), WorkspaceID: workspaceID, Name: name, CreatedAt: s.now()}
	for _, set := range settings {
		if err := set(&d); err != nil {
			return Deployment{}, Version{}, warnings, err
		}
	}
	if seal != nil {
		if d.WebhookSecret, err = seal(d.ID); err != nil {
			return Deployment{}, Version{}, warnings, fmt.Errorf("seal the webhook secret of deployment %s: %w", d.ID, err)
		}
	}
	v, _, err := s.putVersion(ctx, s.version(d, def, files), def, files)
	if err == nil {
		err = s.enlist(ctx, d, v)
	}
	if err != nil {
		return Deployment{}, Version{}, warnings, err
	}
	d.Versions, d.Digest = v.Number, v.Digest
	d.Environments = map[string]Pointer{Production: v.Pointer(), Staging: v.Pointer()}
	if d, err = s.put(ctx, d); err != nil {
		return Deployment{}, Version{}, warnings, fmt.Errorf("create deployment %s: %w", d.ID, err)
	}
	return d, v, warnings, nil
}

// AddVersion makes the next version, also of unchanged files: who wants none compares Digest first. No environment moves to it before Promote.
func (s *Store) AddVersion(ctx context.Context, deploymentID string, files map[string][]byte) (Version, []Warning, error) {
	def, warnings, err := s.parse(files)
	if err != nil {
		return Version{}, warnings, err
	}
	for range tries {
		d, err := s.Deployment(ctx, deploymentID)
		if err != nil {
			return Version{}, warnings, err
		}
		v, mine, err := s.putVersion(ctx, s.version(d, def, files), def, files)
		if err == nil {
			err = s.enlist(ctx, d, v)
		}
		if err != nil {
			return Version{}, warnings, err
		}
		// When somebody else has this number, the deployment is told so for them: they may be dead.
		d.Versions, d.Digest = v.Number, v.Digest
		if _, err = s.put(ctx, d); err != nil && !fault.Is(err, fault.Conflict) {
			return Version{}, warnings, fmt.Errorf("add version %d to deployment %s: %w", v.Number, d.ID, err)
		}
		if mine {
			return v, warnings, s.counted(ctx, v, err)
		}
	}
	return Version{}, warnings, busy()
}

// counted makes sure that a deployment knows of a version whose number is ours, when the write that should have told it
// lost a race: to a promotion, or to somebody who told it for us.
func (s *Store) counted(ctx context.Context, v Version, err error) error {
	for range tries {
		if err == nil {
			return nil
		}
		var d Deployment
		if d, err = s.Deployment(ctx, v.DeploymentID); err != nil {
			return err
		}
		if d.Versions >= v.Number {
			return nil
		}
		d.Versions, d.Digest = v.Number, v.Digest
		if _, err = s.put(ctx, d); err != nil && !fault.Is(err, fault.Conflict) {
			return fmt.Errorf("add version %d to deployment %s: %w", v.Number, v.DeploymentID, err)
		}
	}
	return busy()
}

// Promote points an environment at a version, forwards or back.
func (s *Store) Promote(ctx context.Context, deploymentID, environment string, number int) (Deployment, error) {
	if err := checkEnvironment(environment); err != nil {
		return Deployment{}, err
	}
	for range tries {
		d, err := s.Deployment(ctx, deploymentID)
		if err != nil {
			return Deployment{}, err
		}
		if number < 1 || number > d.Versions {
			return Deployment{}, fault.New(fault.NotFound, "There is no version %d; the newest is %d.", number, d.Versions)
		}
		v, err := s.VersionByNumber(ctx, deploymentID, number)
		if err != nil {
			return Deployment{}, err
		}
		d.Environments[environment] = v.Pointer()
		if d, err = s.put(ctx, d); err == nil {
			return d, nil
		}
		if !fault.Is(err, fault.Conflict) {
			return Deployment{}, fmt.Errorf("promote version %d of deployment %s: %w", number, deploymentID, err)
		}
	}
	return Deployment{}, busy()
}

// Change changes the settings of a deployment: its limits and prices. f may refuse, with a fault.
func (s *Store) Change(ctx context.Context, deploymentID string, f func(*Deployment) error) (Deployment, error) {
	for range tries {
		d, err := s.Deployment(ctx, deploymentID)
		if err != nil {
			return Deployment{}, err
		}
		if err := f(&d); err != nil {
			return Deployment{}, err
		}
		if d, err = s.put(ctx, d); err == nil {
			return d, nil
		}
		if !fault.Is(err, fault.Conflict) {
			return Deployment{}, fmt.Errorf("change deployment %s: %w", deploymentID, err)
		}
	}
	return Deployment{}, busy()
}

func busy() error {
	return fault.New(fault.Conflict, "The deployment is being changed by someone else; please try again.")
}

// Deployment gives a deployment; fault.NotFound when there is none.
func (s *Store) Deployment(ctx context.Context, deploymentID string) (Deployment, error) {
	r, err := s.Records.Get(ctx, deploymentKey(deploymentID))
	if fault.Is(err, fault.NotFound) {
		return Deployment{}, fault.New(fault.NotFound, "There is no such deployment.")
	}
	if err != nil {
		return Deployment{}, fmt.Errorf("read deployment %s: %w", deploymentID, err)
	}
	return decodeDeployment(r)
}

// Deployments lists a workspace's deployments, the newest first. It reads an index, so one made a moment ago may be absent.
func (s *Store) Deployments(ctx context.Context, workspaceID string) (all []Deployment, err error) {
	for before := ""; ; {
		found, next, err := s.Page(ctx, workspaceID, before, 100)
		if err != nil {
			return nil, err
		}
		if all, before = append(all, found...), next; next == "" {
			return all, nil
		}
	}
}

// Page lists at most limit of a workspace's deployments, the newest first, below the one that a page before ended with.
// next is "" at the end.
func (s *Store) Page(ctx context.Context, workspaceID, before string, limit int) (found []Deployment, next string, err error) {
	records, err := s.Records.List(ctx, deploymentList(workspaceID), before, limit)
	if err != nil {
		return nil, "", fmt.Errorf("list the deployments of workspace %s: %w", workspaceID, err)
	}
	for _, r := range records {
		d, err := s.Deployment(ctx, r.Order)
		if err != nil {
			return nil, "", err
		}
		found = append(found, d)
	}
	if len(records) == limit {
		next = records[limit-1].Order
	}
	return found, next, nil
}

// Version gives a version by its id; fault.NotFound when there is none.
func (s *Store) Version(ctx context.Context, versionID string) (Version, error) {
	r, err := record.GetBlob(ctx, s.Records, versionKey(versionID, "VERSION"))
	if fault.Is(err, fault.NotFound) {
		return Version{}, fault.New(fault.NotFound, "There is no such version.")
	}
	if err != nil {
		return Version{}, fmt.Errorf("read version %s: %w", versionID, err)
	}
	var v Version
	if err := json.Unmarshal(r.Body, &v); err != nil {
		return Version{}, fmt.Errorf("decode version %s: %w", versionID, err)
	}
	return v, nil
}

// VersionByNumber gives a version of a deployment by its number.
func (s *Store) VersionByNumber(ctx context.Context, deploymentID string, number int) (Version, error) {
	return s.Version(ctx, VersionID(deploymentID, number))
}

// Definition gives what a version defines. It is kept in memory, since it never changes; the caller must not change it.
func (s *Store) Definition(ctx context.Context, versionID string) (Definition, error) {
	if d, ok := s.definitions.get(versionID); ok {
		return d, nil
	}
	var d Definition
	raw, err := s.content(ctx, versionID, "DEFINITION#")
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return d, fmt.Errorf("decode the definition of version %s: %w", versionID, err)
	}
	s.definitions.put(versionID, d)
	return d, nil
}

// Files gives the files of a version, by path. Unless they are large they are kept in memory, since they never change; the
// caller must not change them.
func (s *Store) Files(ctx context.Context, versionID string) (map[string][]byte, error) {
	if files, ok := s.files.get(versionID); ok {
		return files, nil
	}
	raw, err := s.content(ctx, versionID, "FILES#")
	if err != nil {
		return nil, err
	}
	files, err := unpackFiles(raw)
	if err != nil {
		return nil, fmt.Errorf("unpack the files of version %s: %w", versionID, err)
	}
	if len(raw) <= cachedFiles {
		s.files.put(versionID, files)
	}
	return files, nil
}

// content reads one of the blobs of a version.
func (s *Store) content(ctx context.Context, versionID, prefix string) ([]byte, error) {
	v, err := s.Version(ctx, versionID)
	if err != nil {
		return nil, err
	}
	r, err := record.GetBlob(ctx, s.Records, versionKey(versionID, prefix+v.Digest))
	if err != nil {
		// Not a fault to show: a version without its content is our loss, and no such version is somebody's mistake.
		return nil, fmt.Errorf("read %s of version %s: %v", prefix, versionID, err)
	}
	return r.Body, nil
}

// parse is Parse and then Check.
func (s *Store) parse(files map[string][]byte) (Definition, []Warning, error) {
	def, warnings, err := Parse(files)
	if err == nil && s.Check != nil {
		err = s.Check(def, files)
	}
	return def, warnings, err
}

func (s *Store) enlist(ctx context.Context, d Deployment, v Version) error {
	if s.Enlist == nil {
		return nil
	}
	return s.Enlist(ctx, d, v)
}

// version drafts the next version of a deployment.
func (s *Store) version(d Deployment, def Definition, files map[string][]byte) Version {
	v := Version{
		DeploymentID: d.ID,
		Number:       d.Versions + 1,
		CreatedAt:    s.now(),
		Name:         def.Name,
		Inputs:       def.InputNames(),
		Required:     MissingInputs(def, nil),
		Digest:       Digest(files),
	}
	v.ID = VersionID(d.ID, v.Number)
	for _, a := range def.Agents {
		v.Agents = append(v.Agents, Member{AgentID(d.ID, a.Key), a.Key, a.Role})
	}
	return v
}

// putVersion writes a version, its content first. When its number is taken it gives the version that has it.
func (s *Store) putVersion(ctx context.Context, v Version, def Definition, files map[string][]byte) (there Version, mine bool, err error) {
	archive, err := packFiles(files)
	if err != nil {
		return v, false, fmt.Errorf("pack the files of version %s: %w", v.ID, err)
	}
	definition, err := json.Marshal(def)
	if err != nil {
		return v, false, fmt.Errorf("encode the definition of version %s: %w", v.ID, err)
	}
	for prefix, body := range map[string][]byte{"FILES#": archive, "DEFINITION#": definition} {
		_, err := record.PutBlob(ctx, s.Records, record.Record{Key: versionKey(v.ID, prefix+v.Digest), Body: body})
		// A conflict means that the same content lies there already.
		if err != nil && !fault.Is(err, fault.Conflict) {
			return v, false, fmt.Errorf("write %s of version %s: %w", prefix, v.ID, err)
		}
	}
	// The writer's mark tells our own write, whose answer was lost, from somebody else's.
	v.Writer = id.New()
	body, err := json.Marshal(v)
	if err != nil {
		return v, false, fmt.Errorf("encode version %s: %w", v.ID, err)
	}
	_, err = record.PutBlob(ctx, s.Records, record.Record{Key: versionKey(v.ID, "VERSION"), Body: body})
	if fault.Is(err, fault.Conflict) {
		there, err = s.Version(ctx, v.ID)
		return there, there.Writer == v.Writer, err
	}
	if err != nil {
		return v, false, fmt.Errorf("write version %s: %w", v.ID, err)
	}
	return v, true, nil
}

// put writes a deployment on condition of the revision that was read.
func (s *Store) put(ctx context.Context, d Deployment) (Deployment, error) {
	body, err := json.Marshal(d)
	if err != nil {
		return d, fmt.Errorf("encode deployment %s: %w", d.ID, err)
	}
	d.rev, err = s.Records.Put(ctx, record.Record{
		Key: deploymentKey(d.ID), Rev: d.rev, Body: body, List: deploymentList(d.WorkspaceID), Order: d.ID,
	})
	return d, err
}

func decodeDeployment(r record.Record) (Deployment, error) {
	var d Deployment
	if err := json.Unmarshal(r.Body, &d); err != nil {
		return d, fmt.Errorf("decode %s: %w", r.Part, err)
	}
	d.rev = r.Rev
	return d, nil
}

// now is the time in the precision that is shown.
func (s *Store) now() time.Time {
	now := s.Now
	if now == nil {
		now = time.Now
	}
	return now().UTC().Truncate(time.Millisecond)
}

func deploymentKey(deploymentID string) record.Key {
	return record.Key{Part: "D#" + deploymentID, Sort: "DEPLOYMENT"}
}

func versionKey(versionID, sort string) record.Key {
	return record.Key{Part: "V#" + versionID, Sort: sort}
}

func deploymentList(workspaceID string) string { return "deployments/" + workspaceID }
