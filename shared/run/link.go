package run

import (
	"context"
	"crypto/subtle"
	"fmt"
	"time"
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

// ByLink finds the question of a one-click link. Of a link that is wrong or too old nothing is told but fault.NotFound.
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
	if subtle.ConstantTimeCompare([]byte(token), []byte(want)) != 1 || !s.now().Before(end) {
		return Question{}, errNoQuestion
	}
	return q, nil
}
