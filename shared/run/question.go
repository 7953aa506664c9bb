package run

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
)

// Asking is how a branch asks a person for approval.
type Asking struct {
	// Key names the question within the run, the same at every replay: "research/human/1".
	Key string
	// Task is what the person judges, Round how often the task was shown, from 1.
	Task  TaskOutput
	Round int
	// Timeout is how long the question stands, 0 for as long as the run is kept; Default is the answer then: "approve",
	// "reject", or "" to end the run.
	Timeout time.Duration
	Default string
	// Opened emits the events of the question, Closed those of its answer.
	Opened func(e *Emitter, questionID string)
	Closed func(e *Emitter, questionID string, a Reply)
}

// Asked is a question as its page keeps it.
type Asked struct {
	// ID names the question everywhere; see QuestionID.
	ID      string     `json:"id"`
	Task    TaskOutput `json:"task"`
	Round   int        `json:"round"`
	Expires time.Time  `json:"expires,omitzero"`
	Default string     `json:"default,omitempty"`
	// Link is the sealed token of the one-click link, "" for none.
	Link string `json:"link,omitempty"`
}

// Open is a question that has no answer in the journal, as every later page carries it.
type Open struct {
	ID     string `json:"id"`
	Key    string `json:"key"`
	TaskID string `json:"task"`
	// Page is the number of the question's page.
	Page    int       `json:"page"`
	Expires time.Time `json:"expires,omitzero"`
	Default string    `json:"default,omitempty"`
}

// Reply is what a person said to a question.
type Reply struct {
	Approve  bool   `json:"approve"`
	Feedback string `json:"feedback,omitempty"`
	// Timeout says that nobody answered in time and this is the default.
	Timeout bool `json:"timeout,omitempty"`
	// Key is what the request called itself, "" for nothing: see AnsweredAs.
	Key string `json:"key,omitempty"`
}

// digest tells a repeated reply from another one.
func (a Reply) digest() string {
	sum := sha256.Sum256([]byte(encode(Reply{Approve: a.Approve, Feedback: a.Feedback})))
	return hex.EncodeToString(sum[:8])
}

// kept is the record of a reply, and of the run's targets if it replaced any.
type kept struct {
	Reply   Reply    `json:"reply"`
	Targets []Target `json:"targets,omitempty"`
}

// QuestionID is how a question is known outside: "apr_", the digits of its run, and sixteen more.
func QuestionID(runID, key string) string {
	return id.Show("apr", runID) + strings.ReplaceAll(id.Derive(runID, "question/"+key), "-", "")[:16]
}

// RunOf gives the run that a question belongs to, if this can be the id of one.
func RunOf(questionID string) (runID string, ok bool) {
	const runEnd, end = len("apr_") + 32, len("apr_") + 32 + 16
	if len(questionID) != end || !strings.HasPrefix(questionID, "apr_") || strings.Trim(questionID[runEnd:], "0123456789abcdef") != "" {
		return "", false
	}
	return id.Parse("apr", questionID[:runEnd])
}

func replyKey(runID, name string) record.Key {
	return record.Key{Part: partition(runID), Sort: "A#" + name}
}
func listingKey(runID, questionID string) record.Key {
	return record.Key{Part: partition(runID), Sort: "Q#" + questionID}
}

// approvals names the list of a deployment's open questions.
func approvals(deploymentID string) string { return "approvals/" + deploymentID }

// Ask opens a question to a person, once, and gives the reply when there is one. Without one it fails with ErrWaiting,
// which ends the branch until somebody answers.
func (b *Branch) Ask(ctx context.Context, q Asking) (Reply, error) {
	if p := b.o.recorded(q.Key); p != nil {
		b.passed(q.Key, p)
		return replyOf(*p)
	}
	if err := b.o.mayGoOn(ctx); err != nil {
		return Reply{}, err
	}
	questionID := QuestionID(b.o.id, q.Key)
	if b.o.asked(q.Key) {
		b.pending = pending{}
	} else {
		asked, err := b.o.ask(q, questionID)
		if err != nil {
			return Reply{}, err
		}
		if q.Opened != nil {
			q.Opened(&Emitter{b: b, segment: q.Key + "#asked"}, questionID)
		}
		if err := b.put(&Page{Kind: QuestionPage, Key: q.Key, Asked: &asked}, ""); err != nil {
			return Reply{}, err
		}
	}
	answer, ok := b.o.answer(questionID)
	if !ok {
		return Reply{}, ErrWaiting
	}
	k, err := b.o.s.reply(b.o.ctx, b.o.id, answer.Record)
	if err != nil {
		return Reply{}, err
	}
	if q.Closed != nil {
		q.Closed(&Emitter{b: b, segment: q.Key + "#answered"}, questionID, k.Reply)
	}
	if err := b.put(&Page{Kind: StepPage, Key: q.Key, Result: json.RawMessage(encode(k.Reply))}, q.Key); err != nil {
		return Reply{}, err
	}
	b.o.unlist(questionID)
	return k.Reply, nil
}

// ask makes what a question's page keeps, and lists the question. The list only finds: an entry that was put for nothing
// does no harm.
func (o *Owner) ask(q Asking, questionID string) (Asked, error) {
	r := o.Run()
	asked := Asked{ID: questionID, Task: q.Task, Round: q.Round, Default: q.Default}
	if q.Timeout > 0 {
		asked.Expires = o.s.now().Add(q.Timeout).UTC().Truncate(time.Millisecond)
	}
	secret := make([]byte, 32)
	rand.Read(secret) // never fails: crypto/rand ends the process instead
	var err error
	asked.Link, err = o.s.Seal(o.ctx, r.WorkspaceID, o.id, linkField(questionID), base64.RawURLEncoding.EncodeToString(secret))
	if err != nil {
		return Asked{}, fmt.Errorf("seal the link of question %s: %w", questionID, err)
	}
	entry := record.Record{
		Key: listingKey(o.id, questionID), Body: []byte("{}"), List: approvals(r.DeploymentID), Order: questionID, Expires: o.expires,
	}
	_, err = o.s.repeat(o.ctx, func() (int64, error) { return o.s.Store.Put(o.ctx, entry) }, entry.Body)
	if err != nil && !fault.Is(err, fault.Conflict) {
		return Asked{}, fmt.Errorf("list question %s: %w", questionID, err)
	}
	return asked, nil
}

// linkField is the place that the token of a link is sealed for.
func linkField(questionID string) string { return "link/" + questionID }

// unlist takes a question that was answered off the list; who reads the list passes over what stays on it.
func (o *Owner) unlist(questionID string) {
	if err := o.s.Store.Delete(o.ctx, listingKey(o.id, questionID), 1); err != nil {
		o.s.log().Warn("an answered question stays listed", "run", o.id, "error", err)
	}
}

func (o *Owner) asked(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.open[key]
}

func (o *Owner) answer(questionID string) (Answer, bool) {
	o.item.Lock()
	defer o.item.Unlock()
	a, ok := o.run.Answers[questionID]
	return a, ok
}

// replyOf reads the reply that the page of an answered question holds.
func replyOf(p Page) (Reply, error) {
	var a Reply
	if err := json.Unmarshal(p.Result, &a); err != nil {
		return Reply{}, fmt.Errorf("decode the reply on page %d: %w", p.Seq, err)
	}
	return a, nil
}

// reply reads what was said.
func (s *Service) reply(ctx context.Context, runID, name string) (kept, error) {
	rec, err := record.GetBlob(ctx, s.Store, replyKey(runID, name))
	if err != nil {
		return kept{}, fmt.Errorf("read a reply of run %s: %w", runID, err)
	}
	var k kept
	if err := json.Unmarshal(rec.Body, &k); err != nil {
		return kept{}, fmt.Errorf("decode a reply of run %s: %w", runID, err)
	}
	return k, nil
}

// Answer answers an open question, and replaces the run's targets that are given here, with their Authorization in
// clear, for the rest of the run. The same reply may come twice. fault.NotFound: there is no such question;
// fault.Conflict: it has another answer; fault.Invalid: the run is over and waits for none.
func (s *Service) Answer(ctx context.Context, questionID string, a Reply, targets ...Target) error {
	runID, ok := RunOf(questionID)
	if !ok {
		return errNoQuestion
	}
	name := ""
	for {
		r, q, err := s.Whole(ctx, runID)
		if fault.Is(err, fault.NotFound) {
			return errNoQuestion
		}
		if err != nil {
			return err
		}
		newest, err := s.Newest(ctx, runID)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		before, answered := r.Answers[questionID]
		switch {
		case answered && before.Digest == a.digest():
			return nil
		case answered:
			return errAnswered
		case r.State.Ended() || newest.Kind == EndPage || !slices.ContainsFunc(newest.Open, func(o Open) bool { return o.ID == questionID }):
			return s.answeredBefore(ctx, questionID, a)
		}
		if name == "" {
			if name, err = s.keep(ctx, r, q, a, targets); err != nil {
				return err
			}
		}
		r.Answers = addAnswer(r.Answers, questionID, Answer{Digest: a.digest(), Record: name})
		if len(targets) > 0 {
			r.Targets = name
		}
		wake := r.State == Waiting
		if wake {
			r.State, r.Due = Queued, s.now().UTC()
		}
		err = s.put(ctx, &r)
		if fault.Is(err, fault.Conflict) {
			if len(targets) > 0 {
				name = "" // another reply may have replaced targets: they are replaced in what it left
			}
			continue
		}
		if err == nil && wake {
			if err := s.Runs.Send(ctx, RunMessage{runID}.Message()); err != nil {
				s.log().Error("a run was answered, but its message was not sent; the sweeper will send it", "run", runID, "error", err)
			}
		}
		return err
	}
}

var (
	errNoQuestion = fault.New(fault.NotFound, "There is no such question.")
	errAnswered   = fault.New(fault.Conflict, "This question has another answer already.")
)

func addAnswer(all map[string]Answer, questionID string, a Answer) map[string]Answer {
	more := map[string]Answer{questionID: a}
	for k, v := range all {
		more[k] = v
	}
	return more
}

// keep writes a reply, before the run item that makes it count, and gives its name.
func (s *Service) keep(ctx context.Context, r Run, q Request, a Reply, targets []Target) (name string, err error) {
	k := kept{Reply: a}
	if len(targets) > 0 {
		if targets, err = s.sealed(ctx, r, targets); err != nil {
			return "", err
		}
		k.Targets = replaced(q.Targets, targets)
	}
	name = id.New()
	rec := record.Record{Key: replyKey(r.ID, name), Body: []byte(encode(k)), Expires: s.expires(r)}
	_, err = s.repeat(ctx, func() (int64, error) { return record.PutBlob(ctx, s.Store, rec) }, nil)
	if err != nil && !fault.Is(err, fault.Conflict) { // a conflict: an earlier try got through
		return "", fmt.Errorf("keep a reply for run %s: %w", r.ID, err)
	}
	return name, nil
}

// answeredBefore judges a reply to a question that is not open.
func (s *Service) answeredBefore(ctx context.Context, questionID string, a Reply) error {
	q, err := s.Question(ctx, questionID)
	switch {
	case err != nil:
		return err
	case q.Reply == nil:
		return fault.New(fault.Invalid, "The run is over; it does not wait for an answer.")
	case q.Reply.digest() != a.digest():
		return errAnswered
	}
	return nil
}

// Question is a question with what became of it.
type Question struct {
	Asked
	Run Run
	At  time.Time
	// Reply is nil as long as there is none; when the run is over then, there will be none.
	Reply *Reply
}

// Waits says that the question can be answered.
func (q Question) Waits() bool { return q.Reply == nil && !q.Run.State.Ended() }

// Question finds a question, open or not. fault.NotFound: there is no such question.
func (s *Service) Question(ctx context.Context, questionID string) (Question, error) {
	runID, ok := RunOf(questionID)
	if !ok {
		return Question{}, errNoQuestion
	}
	r, err := s.Get(ctx, runID)
	if fault.Is(err, fault.NotFound) {
		return Question{}, errNoQuestion
	}
	if err != nil {
		return Question{}, err
	}
	if answer, ok := r.Answers[questionID]; ok {
		q, err := s.inJournal(ctx, r, questionID)
		if err != nil || q.Reply != nil {
			return q, err
		}
		k, err := s.reply(ctx, runID, answer.Record)
		q.Reply = &k.Reply
		return q, err
	}
	return s.inJournal(ctx, r, questionID)
}

// inJournal finds a question in the journal: at once when the newest page says where, else by reading all of it.
func (s *Service) inJournal(ctx context.Context, r Run, questionID string) (Question, error) {
	newest, err := s.Newest(ctx, r.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return Question{}, err
	}
	r.State = r.StateAt(newest)
	if at := slices.IndexFunc(newest.Open, func(o Open) bool { return o.ID == questionID }); at >= 0 {
		p, err := s.Page(ctx, r.ID, newest.Open[at].Page)
		if err != nil {
			return Question{}, err
		}
		return Question{Asked: *p.Asked, Run: r, At: p.At}, nil
	}
	pages, err := s.Pages(ctx, r.ID, 1, 0)
	if err != nil {
		return Question{}, err
	}
	var q Question
	for _, p := range pages {
		switch {
		case p.Asked != nil && p.Asked.ID == questionID:
			q = Question{Asked: *p.Asked, Run: r, At: p.At}
		case p.Kind == StepPage && q.ID != "" && QuestionID(r.ID, p.Key) == questionID:
			a, err := replyOf(p)
			if err != nil {
				return Question{}, err
			}
			q.Reply = &a
		}
	}
	if q.ID == "" {
		return Question{}, errNoQuestion
	}
	return q, nil
}

// QuestionOf gives the question that a task asked last. fault.NotFound: it has asked none.
func (s *Service) QuestionOf(ctx context.Context, runID, taskID string) (questionID string, err error) {
	newest, err := s.Newest(ctx, runID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return "", err
	}
	for _, o := range newest.Open {
		if o.TaskID == taskID {
			return o.ID, nil
		}
	}
	pages, err := s.Pages(ctx, runID, 1, 0)
	if err != nil {
		return "", err
	}
	for _, p := range slices.Backward(pages) {
		if p.Asked != nil && p.Asked.Task.TaskID == taskID {
			return p.Asked.ID, nil
		}
	}
	return "", errNoQuestion
}

// AnsweredAs gives the question of a task that a reply with this Key answered. fault.NotFound: none was.
//
// A task that is rejected asks again. Somebody who did not hear that a rejection was accepted may send it once more when the
// next question is open already, and the same words may just as well be the next rejection, at any time: a program that
// judges outputs says the same within milliseconds. Neither the words nor a span of time tells the two apart, and an answer
// that is taken for an old one would leave the run waiting for good. So nothing is guessed: a reply that names its question,
// or that has the Key of an earlier one, is for that question; every other is for the newest.
func (s *Service) AnsweredAs(ctx context.Context, runID, taskID, key string) (questionID string, err error) {
	r, err := s.Get(ctx, runID)
	if err != nil {
		return "", err
	}
	pages, err := s.Pages(ctx, runID, 1, 0)
	if err != nil {
		return "", err
	}
	asked := map[string]string{} // the questions of the task, by the key of their step
	for _, p := range pages {
		switch {
		case p.Asked != nil && p.Asked.Task.TaskID == taskID:
			asked[p.Key] = p.Asked.ID
			if a, ok := r.Answers[p.Asked.ID]; ok {
				k, err := s.reply(ctx, runID, a.Record)
				if err != nil {
					return "", err
				}
				if k.Reply.Key == key {
					return p.Asked.ID, nil
				}
			}
		case p.Kind == StepPage && asked[p.Key] != "":
			a, err := replyOf(p)
			if err != nil {
				return "", err
			}
			if a.Key == key {
				return asked[p.Key], nil
			}
		}
	}
	return "", errNoQuestion
}

// Approvals lists the open questions of some deployments, those of the newest runs first. next is "" at the end.
func (s *Service) Approvals(ctx context.Context, q ListRequest) (open []Question, next string, err error) {
	q.Limit = q.limit()
	for before := q.Cursor; ; {
		ids, err := s.listed(ctx, approvals, q.DeploymentIDs, before, q.Limit)
		if err != nil {
			return nil, "", err
		}
		for _, questionID := range ids {
			before = questionID
			found, err := s.Question(ctx, questionID)
			if fault.Is(err, fault.NotFound) || err == nil && !found.Waits() {
				continue // the list is behind
			}
			if err != nil {
				return nil, "", err
			}
			if open = append(open, found); len(open) == q.Limit {
				return open, before, nil
			}
		}
		if len(ids) < q.Limit {
			return open, "", nil
		}
	}
}

// earliest gives the question that stops waiting first; its Expires is zero when none does.
func earliest(open []Open) (first Open) {
	for _, o := range open {
		if !o.Expires.IsZero() && (first.Expires.IsZero() || o.Expires.Before(first.Expires)) {
			first = o
		}
	}
	return first
}

// expire sees to a waiting run whose question has waited for too long: the default is its answer, or the run ends.
func (s *Service) expire(ctx context.Context, r Run, q Request) (finding Finding, err error) {
	newest, err := s.Newest(ctx, r.ID)
	if err != nil {
		return "", err
	}
	first := earliest(newest.Open)
	switch {
	case first.Expires.IsZero() || first.Expires.After(s.now()):
		r.Due = first.Expires
		return "", s.moved(ctx, r)
	case first.Default == "":
		err = s.endIdle(ctx, r, q, Outcome{State: TimedOut, Error: "Nobody answered the question of the run in time."})
	default:
		err = s.Answer(ctx, first.ID, Reply{Approve: first.Default == Approve, Timeout: true})
	}
	if lost(err) || fault.Is(err, fault.Conflict) || fault.Is(err, fault.Invalid) {
		err = nil // somebody was quicker
	}
	return Unanswered, err
}

// The answers that a question can have.
const (
	Approve = "approve"
	Reject  = "reject"
)
