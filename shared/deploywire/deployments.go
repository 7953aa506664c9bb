package deploywire

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/price"
	"muster/shared/workspace"
)

// maxFilesBody leaves room for the base64 and JSON of a definition's files, which crew.MaxFilesSize limits.
const maxFilesBody = crew.MaxFilesSize + crew.MaxFilesSize/2

// createdReply shows what is shown once, token and secret, beside the deployment's ids.
type createdReply struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	VersionID     string `json:"version_id"`
	VersionNumber int    `json:"version_number"`
	Token         string `json:"token"`
	WebhookSecret string `json:"webhook_secret"`
}

type deploymentReply struct {
	ID           string                      `json:"id"`
	Name         string                      `json:"name"`
	WorkspaceID  string                      `json:"workspace_id"`
	CreatedAt    *string                     `json:"created_at"`
	Versions     int                         `json:"versions"`
	Environments map[string]environmentReply `json:"environments"`
	// Inputs and Agents are those of the version in production.
	Inputs []string     `json:"inputs"`
	Agents []agentReply `json:"agents"`
	// Limits and Prices are absent when there are none.
	Limits crew.Bounds `json:"limits,omitzero"`
	Prices price.Table `json:"prices,omitempty"`
}

type environmentReply struct {
	VersionID     string `json:"version_id"`
	VersionNumber int    `json:"version_number"`
}

type agentReply struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role string `json:"role"`
}

type deploymentsReply struct {
	Deployments []deploymentReply `json:"deployments"`
	NextCursor  *string           `json:"next_cursor"`
}

func (w *Wire) createDeployment(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, _, err := httpapi.ReadObject(r, maxFilesBody)
	if err != nil {
		return err
	}
	name, err := o.String("name")
	if err != nil {
		return err
	}
	files, err := readFiles(o)
	if err != nil {
		return err
	}
	ctx := r.Context()
	token, secret := "", workspace.NewSecret()
	// The token is made before the deployment it is for: there is never a deployment that nobody has the token of.
	d, v, warnings, err := w.Crews.Create(ctx, c.WorkspaceID, name, files, func(deploymentID string) (sealed string, err error) {
		token, err = w.Tokens.Mint(ctx, workspace.Caller{Kind: workspace.Deployment, WorkspaceID: c.WorkspaceID, DeploymentID: deploymentID})
		if err != nil {
			return "", err
		}
		return w.Sealer.Seal(ctx, c.WorkspaceID, deploymentID, "webhook_secret", secret)
	}, settings(o))
	if err != nil {
		return err
	}
	warn(rw, o, warnings, "name", "files", "limits", "prices")
	return httpapi.WriteJSON(rw, http.StatusCreated, createdReply{
		ID: id.Show("dep", d.ID), Name: d.Name, VersionID: id.Show("ver", v.ID), VersionNumber: v.Number, Token: token, WebhookSecret: secret,
	})
}

// readFiles reads the files of a definition: each is its text, or {"base64": …} for what is no text.
func readFiles(o httpapi.Object) (map[string][]byte, error) {
	given, err := o.Object("files")
	if err != nil {
		return nil, err
	}
	if given == nil {
		return nil, fault.New(fault.Invalid, "\"files\" is missing: an object with the content of each file by its path.")
	}
	files := make(map[string][]byte, len(given))
	for _, path := range slices.Sorted(maps.Keys(given)) {
		if files[path], err = readFile(given, path); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func readFile(files httpapi.Object, path string) ([]byte, error) {
	var text *string
	if json.Unmarshal(files[path], &text) == nil && text != nil {
		return []byte(*text), nil
	}
	var coded struct {
		Base64 *string `json:"base64"`
	}
	if json.Unmarshal(files[path], &coded) != nil || coded.Base64 == nil {
		return nil, fault.New(fault.Invalid, "The file %q must be a string, or an object {\"base64\": \"…\"}.", path)
	}
	content, err := base64.StdEncoding.DecodeString(*coded.Base64)
	if err != nil {
		return nil, fault.New(fault.Invalid, "The file %q is not valid base64.", path)
	}
	return content, nil
}

type versionReply struct {
	VersionID     string  `json:"version_id"`
	VersionNumber int     `json:"version_number"`
	DeploymentID  string  `json:"deployment_id"`
	CreatedAt     *string `json:"created_at"`
}

func (w *Wire) addVersion(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, _, err := httpapi.ReadObject(r, maxFilesBody)
	if err != nil {
		return err
	}
	files, err := readFiles(o)
	if err != nil {
		return err
	}
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	v, warnings, err := w.Crews.AddVersion(r.Context(), d.ID, files)
	if err != nil {
		return err
	}
	warn(rw, o, warnings, "files")
	return httpapi.WriteJSON(rw, http.StatusCreated, versionReply{
		VersionID: id.Show("ver", v.ID), VersionNumber: v.Number, DeploymentID: id.Show("dep", d.ID), CreatedAt: timestamp(v.CreatedAt),
	})
}

func (w *Wire) promote(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, _, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	number, err := o.Int("version_number")
	if err != nil {
		return err
	}
	if !o.Has("version_number") {
		return fault.New(fault.Invalid, "\"version_number\" is missing.")
	}
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	if d, err = w.Crews.Promote(r.Context(), d.ID, r.PathValue("environment"), number); err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown("version_number"))
	return w.showDeployment(rw, r.Context(), d)
}

// settings reads what a request says of a deployment's limits and prices.
func settings(o httpapi.Object) func(*crew.Deployment) error {
	return func(d *crew.Deployment) error { return d.Patch(o["limits"], o["prices"]) }
}

// changeDeployment changes what it names; the rest stays.
func (w *Wire) changeDeployment(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, _, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	if d, err = w.Crews.Change(r.Context(), d.ID, settings(o)); err != nil {
		return err
	}
	if err := w.Runs.Resize(r.Context(), d); err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown("limits", "prices"))
	return w.showDeployment(rw, r.Context(), d)
}

func (w *Wire) getDeployment(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	return w.showDeployment(rw, r.Context(), d)
}

func (w *Wire) showDeployment(rw http.ResponseWriter, ctx context.Context, d crew.Deployment) error {
	reply, err := w.describe(ctx, d)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// listDeployments lists the caller's, the newest first.
func (w *Wire) listDeployments(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	limit, before, err := readPage(r.URL.Query(), "dep")
	if err != nil {
		return err
	}
	reply := deploymentsReply{Deployments: []deploymentReply{}}
	var found []crew.Deployment
	if c.Kind == workspace.Deployment {
		d, err := w.Crews.Deployment(r.Context(), c.DeploymentID)
		if err != nil {
			return err
		}
		found = append(found, d)
	} else {
		next := ""
		if found, next, err = w.Crews.Page(r.Context(), c.WorkspaceID, before, limit); err != nil {
			return err
		}
		if next != "" {
			reply.NextCursor = text(id.Show("dep", next))
		}
	}
	for _, d := range found {
		shown, err := w.describe(r.Context(), d)
		if err != nil {
			return err
		}
		reply.Deployments = append(reply.Deployments, shown)
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// readPage reads limit and cursor of a list whose cursors are ids; the limit is 20 when the query does not say.
func readPage(v url.Values, prefix string) (limit int, before string, err error) {
	if limit, err = readLimit(v); err != nil {
		return 0, "", err
	}
	if limit == 0 {
		limit = 20
	}
	if cursor := v.Get("cursor"); cursor != "" {
		var ok bool
		if before, ok = id.Parse(prefix, cursor); !ok {
			return 0, "", errCursor
		}
	}
	return limit, before, nil
}

// describe shows a deployment with the inputs and agents of its version in production.
func (w *Wire) describe(ctx context.Context, d crew.Deployment) (deploymentReply, error) {
	v, err := w.Crews.Version(ctx, d.Environments[crew.Production].VersionID)
	if err != nil {
		return deploymentReply{}, err
	}
	reply := deploymentReply{
		ID: id.Show("dep", d.ID), Name: d.Name, WorkspaceID: id.Show("ws", d.WorkspaceID), CreatedAt: timestamp(d.CreatedAt),
		Versions: d.Versions, Environments: map[string]environmentReply{}, Inputs: []string{}, Agents: []agentReply{},
		Limits: crew.Bounds{Limits: d.Limits, Traffic: d.Traffic}, Prices: d.Prices,
	}
	for name, p := range d.Environments {
		reply.Environments[name] = environmentReply{VersionID: id.Show("ver", p.VersionID), VersionNumber: p.Number}
	}
	reply.Inputs = append(reply.Inputs, v.Inputs...)
	for _, a := range v.Agents {
		reply.Agents = append(reply.Agents, agentReply{ID: a.ID, Name: a.Key, Role: a.Role})
	}
	return reply, nil
}

// deployment finds a deployment by the id shown, if the caller may see it.
func (w *Wire) deployment(ctx context.Context, shown string, c workspace.Caller) (crew.Deployment, error) {
	unknown := fault.New(fault.NotFound, "There is no deployment %q.", shown)
	deploymentID, ok := id.Parse("dep", shown)
	if !ok {
		return crew.Deployment{}, unknown
	}
	d, err := w.Crews.Deployment(ctx, deploymentID)
	if fault.Is(err, fault.NotFound) || err == nil && !c.Sees(d.WorkspaceID, d.ID) {
		return crew.Deployment{}, unknown
	}
	return d, err
}

// warn tells of unknown fields and of what the definition's reader passed over.
func warn(rw http.ResponseWriter, o httpapi.Object, warnings []crew.Warning, known ...string) {
	lines := o.Unknown(known...)
	for _, w := range warnings {
		lines = append(lines, w.String())
	}
	httpapi.Warn(rw, lines)
}
