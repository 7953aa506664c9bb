package deploywire

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/run"
	"muster/shared/workspace"
)

// The one-click link. Its token is the whole permission, for one question and one answer. Opening the link changes nothing,
// because programs that look through mail open links; the form on the page does.

// ApprovalURL is the link to an answer, "approve" or "reject", to a question.
func ApprovalURL(base, questionID, answer, token string) string {
	return strings.TrimSuffix(base, "/") + "/approvals/" + questionID + "/" + answer + "?token=" + url.QueryEscape(token)
}

// linkPage is what the page says. Output is "" when there is nothing to answer.
type linkPage struct {
	Title, Text, Output string
	Ask, Approve        bool
}

// linkTemplate has no script, nothing from elsewhere, and no secret in it: the form goes to where the page came from.
const linkTemplate = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{{.Title}}</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #ccc; border-radius: .3rem; padding: 1rem; max-height: 60vh; overflow-y: auto }
textarea { box-sizing: border-box; width: 100%; font: inherit }
button { font: inherit; padding: .5rem 1.5rem; margin-top: 1rem }
</style>
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{if .Ask}}<pre>{{.Output}}</pre>
<form method="post">
<label for="feedback">{{if .Approve}}Feedback, if there is any{{else}}What should be different?{{end}}</label>
<textarea id="feedback" name="feedback" rows="5"></textarea>
<button>{{if .Approve}}Approve{{else}}Reject{{end}}</button>
</form>
{{end}}</html>
`

// showLink shows the question and a form.
func (w *Wire) showLink(rw http.ResponseWriter, r *http.Request, _ workspace.Caller) error {
	q, approve, err := w.linked(r)
	if err != nil {
		return noLink(rw, err)
	}
	if !q.Waits() {
		return over(rw, q)
	}
	page := linkPage{Title: "Approve this output?", Ask: true, Approve: approve, Output: q.Task.Raw,
		Text: fmt.Sprintf("The task %q is done. The run waits until somebody has looked at its output.", q.Task.Name)}
	if !approve {
		page.Title = "Reject this output?"
	}
	return show(rw, http.StatusOK, page)
}

// useLink takes the form of showLink.
func (w *Wire) useLink(rw http.ResponseWriter, r *http.Request, _ workspace.Caller) error {
	q, approve, err := w.linked(r)
	if err != nil {
		return noLink(rw, err)
	}
	body, err := httpapi.ReadBody(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	feedback, err := readFeedback(r.Header.Get("Content-Type"), body)
	if err != nil {
		return err
	}
	if !q.Waits() {
		return over(rw, q)
	}
	err = w.Runs.Answer(r.Context(), q.ID, run.Reply{Approve: approve, Feedback: feedback})
	if fault.Is(err, fault.Conflict) || fault.Is(err, fault.Invalid) { // somebody was quicker
		if q, err = w.Runs.Question(r.Context(), q.ID); err == nil {
			return over(rw, q)
		}
	}
	if err != nil {
		return err
	}
	return show(rw, http.StatusOK, linkPage{Title: "Thank you", Text: "Your answer is noted, and the run goes on."})
}

// readFeedback reads what the form of the page sends, or a program that has the link and sends JSON.
func readFeedback(contentType string, body []byte) (string, error) {
	if kind, _, _ := mime.ParseMediaType(contentType); kind == "application/json" && len(body) > 0 {
		o, err := httpapi.ParseObject(body)
		if err != nil {
			return "", err
		}
		return spelled(o, httpapi.Object.String, "feedback", "human_feedback", "humanFeedback")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return "", fault.New(fault.Invalid, "This is not the form of the page.")
	}
	// A form ends its lines as mail does.
	return strings.ToValidUTF8(strings.ReplaceAll(form.Get("feedback"), "\r\n", "\n"), "\ufffd"), nil
}

// linked finds the question of a link that is good.
func (w *Wire) linked(r *http.Request) (q run.Question, approve bool, err error) {
	answer := r.PathValue("answer")
	if answer != run.Approve && answer != run.Reject {
		return q, false, fault.New(fault.NotFound, "There is no such answer.")
	}
	q, err = w.Runs.ByLink(r.Context(), r.PathValue("id"), r.URL.Query().Get("token"))
	return q, answer == run.Approve, err
}

// noLink answers every link that is wrong in the same words, and one that was good says until when.
func noLink(rw http.ResponseWriter, err error) error {
	var expired *run.Expired
	switch {
	case errors.As(err, &expired):
		return show(rw, http.StatusGone, linkPage{Title: "This link has expired",
			Text: fmt.Sprintf("It was good until %s. Nothing was changed.", expired.At.UTC().Format("2 January 2006, 15:04 MST"))})
	case fault.Is(err, fault.NotFound):
		return show(rw, http.StatusNotFound, linkPage{Title: "This link is not valid", Text: "It is wrong, or parts of it are missing."})
	}
	return err
}

// over says to somebody with a good link that there is nothing left to do.
func over(rw http.ResponseWriter, q run.Question) error {
	page := linkPage{Title: "Nothing to do", Text: "The run is over; it does not wait for an answer."}
	if q.Reply != nil {
		page.Text = fmt.Sprintf("The output of the task %q is %s already.", q.Task.Name, verdict(*q.Reply))
	}
	return show(rw, http.StatusConflict, page)
}

func show(rw http.ResponseWriter, status int, page linkPage) error {
	// Parsed here and not at the start, which every function that links this package would pay for.
	t, err := template.New("link").Parse(linkTemplate)
	if err != nil {
		return fmt.Errorf("parse the page of links: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, page); err != nil {
		return fmt.Errorf("write the page of a link: %w", err)
	}
	h := rw.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	rw.WriteHeader(status)
	rw.Write(b.Bytes()) // fails only when the client has gone
	return nil
}
