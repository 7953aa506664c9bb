package runner

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"muster/shared/crew"
	"muster/shared/queue"
	"muster/shared/run"
	"muster/shared/storetest"
)

// nowhere takes messages.
type nowhere struct{}

func (nowhere) Send(context.Context, ...queue.Message) error { return nil }

// owner gives the owner of a new run.
func owner(t *testing.T) *run.Owner {
	t.Helper()
	s := &run.Service{Store: &storetest.Memory{}, Runs: nowhere{}, Deliveries: nowhere{}}
	r, err := s.Start(t.Context(), run.StartRequest{Deployment: crew.Deployment{Environments: map[string]crew.Pointer{"production": {VersionID: "v"}}}})
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Claim(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// stays says whether an owner may begin another step.
func stays(t *testing.T, o *run.Owner) bool {
	t.Helper()
	_, err := o.Root().Step(t.Context(), run.Step{Key: "any", Do: func(context.Context, *run.Emitter, int) (any, error) { return nil, nil }})
	if err != nil && !errors.Is(err, run.ErrYield) {
		t.Error(err)
	}
	return err == nil
}

func TestRoom(t *testing.T) {
	inside, late, single, closing := owner(t), owner(t), owner(t), owner(t)
	synctest.Test(t, func(t *testing.T) {
		var r room
		leave, err := r.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		done := r.works(inside, false)
		leaveLate, err := r.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}

		alone, another := make(chan func(), 1), make(chan func(), 1)
		go func() {
			out, err := r.enterAlone(t.Context())
			if err != nil {
				t.Error(err)
			}
			alone <- out
		}()
		synctest.Wait()
		go func() {
			out, err := r.enter(t.Context())
			if err != nil {
				t.Error(err)
			}
			another <- out
		}()
		synctest.Wait()
		doneLate := r.works(late, false)
		if len(alone) > 0 || len(another) > 0 {
			t.Error("somebody was let in while there is a run inside and one that wants to be alone")
		}
		done()
		leave()
		doneLate()
		leaveLate()
		synctest.Wait()
		if len(alone) != 1 || len(another) != 0 {
			t.Errorf("%d are alone, and %d beside it", len(alone), len(another))
		}
		doneAlone := r.works(single, true)
		waiting, giveUpWaiting := context.WithCancel(t.Context())
		go func() {
			if _, err := r.enterAlone(waiting); err == nil {
				t.Error("two are alone")
			}
		}()
		synctest.Wait()
		giveUpWaiting()
		synctest.Wait()
		doneAlone()
		(<-alone)()
		synctest.Wait()
		if len(another) != 1 {
			t.Error("nobody was let in after it")
		}

		// Who cannot be alone in time gives up, and stops nobody any more.
		soon, giveUp := context.WithCancel(t.Context())
		giveUp()
		if _, err := r.enterAlone(soon); err == nil {
			t.Error("it is alone beside another")
		}
		if _, err := r.enter(t.Context()); err != nil {
			t.Error(err)
		}
		r.works(closing, false)
		r.close()
	})
	if stays(t, inside) || stays(t, late) {
		t.Error("a run stays although another wants to be alone")
	}
	if !stays(t, single) {
		t.Error("a run that is alone goes because another wants to be alone")
	}
	if stays(t, closing) {
		t.Error("a run stays in a process that stops")
	}
}
