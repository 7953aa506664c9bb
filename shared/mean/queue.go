package mean

import (
	"context"
	"time"

	"muster/shared/queue"
)

type wrapped struct {
	mean *Mean
	next queue.Queue
}

func (q *wrapped) Send(ctx context.Context, messages ...queue.Message) error {
	fate := q.mean.fate("Send %d", len(messages))
	messages = q.mean.spread(messages)
	if fate == Partly && len(messages) > 0 {
		messages = messages[:1+q.mean.below(len(messages))]
	}
	_, err := write(fate, func() (struct{}, error) { return struct{}{}, q.next.Send(ctx, messages...) })
	return err
}

// spread sends some messages twice and some late, in any order.
func (m *Mean) spread(messages []queue.Message) []queue.Message {
	var all []queue.Message
	for _, message := range messages {
		all = append(all, message)
		if m.happens(m.Odds.Double) {
			all = append(all, message)
		}
	}
	for i := range all {
		if m.happens(m.Odds.Late) {
			late := time.Duration(m.below(int(m.Odds.Lateness) + 1))
			all[i].Delay = min(all[i].Delay+late, max(all[i].Delay, queue.MaxDelay))
		}
	}
	shuffle(m, all)
	return all
}

func (q *wrapped) Receive(ctx context.Context, max int, wait, visible time.Duration) ([]queue.Received, error) {
	fate := q.mean.fate("Receive")
	if max > 1 && q.mean.happens(q.mean.Odds.Short) {
		max = 1
	}
	got, err := write(fate, func() ([]queue.Received, error) { return q.next.Receive(ctx, max, wait, visible) })
	shuffle(q.mean, got)
	return got, err
}

func (q *wrapped) Delete(ctx context.Context, receipt string) error {
	_, err := write(q.mean.fate("Delete"), func() (struct{}, error) { return struct{}{}, q.next.Delete(ctx, receipt) })
	return err
}

func (q *wrapped) Hide(ctx context.Context, receipt string, d time.Duration) error {
	_, err := write(q.mean.fate("Hide %s", d), func() (struct{}, error) { return struct{}{}, q.next.Hide(ctx, receipt, d) })
	return err
}

func (q *wrapped) Bury(ctx context.Context, m queue.Received, reason string) error {
	_, err := write(q.mean.fate("Bury"), func() (struct{}, error) { return struct{}{}, q.next.Bury(ctx, m, reason) })
	return err
}

func (q *wrapped) Buried(ctx context.Context, max int) ([]queue.Dead, error) {
	return read(q.mean.fate("Buried"), func() ([]queue.Dead, error) { return q.next.Buried(ctx, max) })
}

func (q *wrapped) Redrive(ctx context.Context, perSecond int) (queue.Move, error) {
	return write(q.mean.fate("Redrive"), func() (queue.Move, error) { return q.next.Redrive(ctx, perSecond) })
}

// shuffle changes the order, unless there are no odds: a Mean that only fails leaves it alone.
func shuffle[T any](m *Mean, all []T) {
	if m.Odds == (Odds{}) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.chance.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
}
