package run

import (
	"context"
	"crypto/subtle"
	"fmt"
	"time"

	"muster/events"
)

// linkLife is how long a one-click link is good for when its question has no end of its own.
const linkLife = 7 * 24 * time.Hour

// LinkToken gives the token of a question's one-click link: the same at every call, so that a webhook that is sent again
// is the same webhook.
func (s *Service) LinkToken(ctx context.Context, r Run, q Asked) (string, error) {
	token, err := s.Unseal(ctx, r.WorkspaceID, r.ID, linkField(q.ID), q.Link)
	if err != nil {
		return "", fmt.Errorf("open the link of question %s: %w", q.ID, err)
	}
	return token, nil
}

// Expired is what ByLink says of a link that was good until then.
type Expired struct{ At time.Time }

func (e *Expired) Error() string {
	return "the link was good until " + e.At.UTC().Format(events.TimeFormat)
}

// ByLink finds the question of a one-click link. Of a link that is wrong nothing is told but fault.NotFound; whoever has the
// right one is told by Expired that it is too old.
func (s *Service) ByLink(ctx context.Context, questionID, token string) (Question, error) {
	q, err := s.Question(ctx, questionID)
	if err != nil {
		return Question{}, err
	}
	want, err := s.LinkToken(ctx, q.Run, q.Asked)
	if err != nil {
		return Question{}, err
	}
	end := q.Expires
	if end.IsZero() {
		end = q.At.Add(linkLife)
	}
	if subtle.ConstantTimeCompare([]byte(token), []byte(want)) != 1 {
		return Question{}, errNoQuestion
	}
	if !s.now().Before(end) {
		return Question{}, &Expired{end}
	}
	return q, nil
}
