package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"muster/events"
	"muster/shared/run"
)

// review shows the output to a person and waits for the verdict. While it waits, tasks beside it go on; the run rests when
// there is nothing else to do.
func (t *task) review(ctx context.Context, b *run.Branch) (run.Reply, error) {
	if err := t.k.halted(); err != nil {
		return run.Reply{}, err
	}
	asked := events.HumanFeedbackRequested{
		FlowName: t.k.Definition.Name, MethodName: t.Name, Output: t.out.Raw, Emit: []string{run.Approve, run.Reject},
		Message: fmt.Sprintf("Approve the output of task %q, or reject it and say what to change.", t.Name),
	}
	a, err := b.Ask(ctx, run.Asking{
		Key: fmt.Sprintf("%s/human/%d", t.Key, t.round), Task: t.out, Round: t.round,
		Timeout: time.Duration(t.HumanInputTimeout) * time.Second, Default: t.HumanInputDefault,
		Opened: func(e *run.Emitter, questionID string) {
			asked.RequestID = events.Text(questionID)
			e.Emit(events.NewHumanFeedbackRequested(t.who, asked), run.Scope{Parent: t.id})
		},
		Closed: func(e *run.Emitter, questionID string, a run.Reply) {
			outcome := run.Reject
			if a.Approve {
				outcome = run.Approve
			}
			e.Emit(events.NewHumanFeedbackReceived(t.who, events.HumanFeedbackReceived{
				FlowName: asked.FlowName, MethodName: t.Name, Feedback: a.Feedback, Outcome: events.Text(outcome), RequestID: events.Text(questionID),
			}), run.Scope{Parent: t.id})
		},
	})
	switch {
	case errors.Is(err, run.ErrWaiting):
		return a, err
	case err != nil:
		return a, t.k.halt(err)
	case !a.Approve && a.Timeout:
		// A person's rejection does the task again with what the person said. Silence says nothing: the model would be paid to
		// answer the same prompt, and somebody who is not there would be asked again, as often as the run lasts. Whoever
		// wants another try reruns the task.
		return a, failedForGood("Nobody answered within %d seconds, and then its output counts as rejected.", t.HumanInputTimeout)
	}
	return a, nil
}

// known is what later work is told of a task: its output, and all that a person said about it.
func (t *task) known() string {
	if t.out.Feedback == "" {
		return t.out.Raw
	}
	return t.out.Raw + "\n\n" + feedbackMarker + "\n" + t.out.Feedback
}

// heard adds to what a person said before.
func heard(before, feedback string) string {
	if strings.TrimSpace(feedback) == "" {
		return before
	}
	if before == "" {
		return feedback
	}
	return before + "\n\n" + feedback
}
