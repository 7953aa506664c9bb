package events

// What outgoing webhooks may ask for beside the types of the catalogue: where a run stands, and, from Muster itself, how
// other outgoing webhooks of the workspace are.
const (
	RunStarted   = "run.started"
	RunWaiting   = "run.waiting"
	RunSucceeded = "run.succeeded"
	RunFailed    = "run.failed"
	RunCanceled  = "run.canceled"

	EndpointDisabled  = "endpoint.disabled"
	EndpointRecovered = "endpoint.recovered"
)

// Lifecycle gives each of these names with what it stands for.
func Lifecycle() []Named {
	return []Named{
		{RunStarted, "The run has begun its work."},
		{RunWaiting, "The run waits for the answer of a person."},
		{RunSucceeded, "The run has succeeded."},
		{RunFailed, "The run has failed; reaching a limit or a time-out counts as that."},
		{RunCanceled, "The run was canceled."},
		{EndpointDisabled, "An outgoing webhook of the workspace was disabled, because its receiver is gone or did nothing but fail for days."},
		{EndpointRecovered, "The receiver of an outgoing webhook of the workspace that had kept failing answers again."},
	}
}

// Named is a name and what it stands for.
type Named struct {
	Type string `json:"type"`
	Doc  string `json:"doc"`
}
