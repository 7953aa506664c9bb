package events

var checkpointFamily = family{"checkpoint", []fields{
	CheckpointStarted{},
	CheckpointCompleted{},
	CheckpointFailed{},
	CheckpointPruned{},
	CheckpointRestoreStarted{},
	CheckpointRestoreCompleted{},
	CheckpointRestoreFailed{},
	CheckpointForkStarted{},
	CheckpointForkCompleted{},
}}

// Checkpoint is the part that the events of writing a checkpoint share.
type Checkpoint struct {
	// Location is where checkpoints go; once written, where this one is.
	Location string `json:"location"`
	Provider string `json:"provider"`
	// Trigger is the type of the event that caused the checkpoint.
	Trigger Text `json:"trigger"`
	Branch  Text `json:"branch"`
	// ParentID is the checkpoint before.
	ParentID Text `json:"parent_id"`
}

// CheckpointRestore is the part that the events of restoring a checkpoint share.
type CheckpointRestore struct {
	Location string `json:"location"`
	Provider Text   `json:"provider"`
}

// CheckpointFork is the part that both events of a fork share.
type CheckpointFork struct {
	// Branch is the new one.
	Branch             string `json:"branch"`
	ParentBranch       Text   `json:"parent_branch"`
	ParentCheckpointID Text   `json:"parent_checkpoint_id"`
}

// CheckpointStarted is told when a checkpoint is about to be written.
type CheckpointStarted struct {
	Checkpoint
}

func (CheckpointStarted) kind() Kind {
	return Kind{Type: "checkpoint_started"}
}

// NewCheckpointStarted drafts checkpoint_started.
func NewCheckpointStarted(who Identity, f CheckpointStarted) Draft { return draft(who, f) }

// CheckpointCompleted is told when a checkpoint is written.
type CheckpointCompleted struct {
	Checkpoint
	CheckpointID string `json:"checkpoint_id"`
	// DurationMS is in milliseconds.
	DurationMS float64 `json:"duration_ms"`
}

func (CheckpointCompleted) kind() Kind {
	return Kind{Type: "checkpoint_completed"}
}

// NewCheckpointCompleted drafts checkpoint_completed.
func NewCheckpointCompleted(who Identity, f CheckpointCompleted) Draft { return draft(who, f) }

// CheckpointFailed is told when a checkpoint cannot be written; the run goes on.
type CheckpointFailed struct {
	Checkpoint
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (CheckpointFailed) kind() Kind {
	return Kind{Type: "checkpoint_failed"}
}

// NewCheckpointFailed drafts checkpoint_failed.
func NewCheckpointFailed(who Identity, f CheckpointFailed) Draft { return draft(who, f) }

// CheckpointPruned is told when old checkpoints are removed, after each write when there is a limit.
type CheckpointPruned struct {
	Checkpoint
	// RemovedCount is how many were removed, perhaps 0.
	RemovedCount int `json:"removed_count"`
	// MaxCheckpoints is the limit.
	MaxCheckpoints int `json:"max_checkpoints"`
}

func (CheckpointPruned) kind() Kind {
	return Kind{Type: "checkpoint_pruned"}
}

// NewCheckpointPruned drafts checkpoint_pruned.
func NewCheckpointPruned(who Identity, f CheckpointPruned) Draft { return draft(who, f) }

// CheckpointRestoreStarted is told when a run is about to go on from a checkpoint.
type CheckpointRestoreStarted struct {
	CheckpointRestore
}

func (CheckpointRestoreStarted) kind() Kind {
	return Kind{Type: "checkpoint_restore_started"}
}

// NewCheckpointRestoreStarted drafts checkpoint_restore_started.
func NewCheckpointRestoreStarted(who Identity, f CheckpointRestoreStarted) Draft {
	return draft(who, f)
}

// CheckpointRestoreCompleted is told when a run goes on from a checkpoint.
type CheckpointRestoreCompleted struct {
	CheckpointRestore
	CheckpointID string `json:"checkpoint_id"`
	Branch       Text   `json:"branch"`
	// ParentID is the checkpoint before.
	ParentID Text `json:"parent_id"`
	// DurationMS is in milliseconds.
	DurationMS float64 `json:"duration_ms"`
}

func (CheckpointRestoreCompleted) kind() Kind {
	return Kind{Type: "checkpoint_restore_completed"}
}

// NewCheckpointRestoreCompleted drafts checkpoint_restore_completed.
func NewCheckpointRestoreCompleted(who Identity, f CheckpointRestoreCompleted) Draft {
	return draft(who, f)
}

// CheckpointRestoreFailed is told when a checkpoint cannot be restored.
type CheckpointRestoreFailed struct {
	CheckpointRestore
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (CheckpointRestoreFailed) kind() Kind {
	return Kind{Type: "checkpoint_restore_failed"}
}

// NewCheckpointRestoreFailed drafts checkpoint_restore_failed.
func NewCheckpointRestoreFailed(who Identity, f CheckpointRestoreFailed) Draft { return draft(who, f) }

// CheckpointForkStarted is told when a new branch is about to leave a checkpoint.
type CheckpointForkStarted struct {
	CheckpointFork
}

func (CheckpointForkStarted) kind() Kind {
	return Kind{Type: "checkpoint_fork_started"}
}

// NewCheckpointForkStarted drafts checkpoint_fork_started.
func NewCheckpointForkStarted(who Identity, f CheckpointForkStarted) Draft { return draft(who, f) }

// CheckpointForkCompleted is told when a new branch has left a checkpoint.
type CheckpointForkCompleted struct {
	CheckpointFork
}

func (CheckpointForkCompleted) kind() Kind {
	return Kind{Type: "checkpoint_fork_completed"}
}

// NewCheckpointForkCompleted drafts checkpoint_fork_completed.
func NewCheckpointForkCompleted(who Identity, f CheckpointForkCompleted) Draft { return draft(who, f) }
