package deploywire

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"

	"muster/events"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/webhook"
)

// note is what a person reads in a chat.
type note struct {
	title, subject, detail string
	at                     time.Time
	good, bad              bool
}

// Slack makes the bodies that an incoming webhook of Slack takes, Discord those that a webhook of Discord takes.
func Slack(r run.Run, q run.Request, p run.Page, t run.Target, messages []json.RawMessage) ([]webhook.Body, error) {
	return chat(webhook.Slack, r, q, p, t, messages)
}

// Discord makes the bodies that a webhook of Discord takes.
func Discord(r run.Run, q run.Request, p run.Page, t run.Target, messages []json.RawMessage) ([]webhook.Body, error) {
	return chat(webhook.Discord, r, q, p, t, messages)
}

func chat(format string, r run.Run, q run.Request, p run.Page, t run.Target, messages []json.RawMessage) (bodies []webhook.Body, err error) {
	add := func(event string, n note) error {
		raw, err := n.in(format)
		if err != nil {
			return fmt.Errorf("write the body of %s: %w", event, err)
		}
		bodies = append(bodies, webhook.Body{JSON: raw, Event: event})
		return nil
	}
	for _, name := range p.Lifecycle() {
		if t.Asks(name) {
			if err := add(name, noteOfRun(name, r, q, p)); err != nil {
				return nil, err
			}
		}
	}
	for _, e := range p.Events {
		if t.Asks(e.Type) {
			if err := add(e.Type, noteOfEvent(e, r)); err != nil {
				return nil, err
			}
		}
	}
	return bodies, nil
}

func noteOfRun(name string, r run.Run, q run.Request, p run.Page) note {
	at, data := tellRun(name, r, q, p)
	n := note{title: sentences[name], subject: data.RunID, at: at}
	switch {
	case data.Output != nil:
		n.detail, n.good = data.Output.Result, true
	case data.ErrorMessage != nil:
		n.detail, n.bad = *data.ErrorMessage, true
	case data.Approval != nil:
		n.subject, n.detail = data.Approval.ID, data.Approval.Output
	}
	return n
}

func noteOfEvent(e events.Event, r run.Run) note {
	n := note{title: e.Type, subject: id.Show("run", r.ID), at: e.At}
	var about []string
	for _, word := range []string{e.TaskName, e.AgentRole} {
		if word != "" {
			about = append(about, word)
		}
	}
	n.detail = strings.Join(about, ", ")
	return n
}

// in writes the note for a chat. Nothing in it can mention or notify anybody.
func (n note) in(format string) ([]byte, error) {
	if format == webhook.Discord {
		return webhook.Marshal(n.discord())
	}
	return webhook.Marshal(n.slack())
}

// Limits of the chats, in the units of UTF-16 in which they may count.
const (
	slackText      = 3000
	discordTitle   = 256
	discordText    = 4096
	discordContent = 2000
)

type slackBody struct {
	Text   string       `json:"text"`
	Blocks []slackBlock `json:"blocks"`
}

type slackBlock struct {
	Type     string      `json:"type"`
	Text     *slackWords `json:"text,omitempty"`
	Elements []any       `json:"elements,omitempty"`
}

type slackWords struct {
	Type string `json:"type"`
	Text string `json:"text"`
	// Emoji false leaves ":name:" as it is; only plain text has it.
	Emoji *bool `json:"emoji,omitempty"`
}

func (n note) slack() slackBody {
	no := false
	plain := func(s string, most int) *slackWords { return &slackWords{"plain_text", cut(s, most, escapeSlack), &no} }
	b := slackBody{
		Text:   cut(strings.TrimSpace(n.title+" "+n.subject), slackText, escapeSlack),
		Blocks: []slackBlock{{Type: "section", Text: plain(n.title, slackText)}},
	}
	if n.detail != "" {
		b.Blocks = append(b.Blocks, slackBlock{Type: "section", Text: plain(n.detail, slackText)})
	}
	below := strings.TrimSpace(n.subject + " " + n.at.UTC().Format(events.TimeFormat))
	b.Blocks = append(b.Blocks, slackBlock{Type: "context", Elements: []any{plain(below, slackText)}})
	return b
}

// escapeSlack writes the characters with which Slack marks links and mentions.
func escapeSlack(r rune) string {
	switch r {
	case '&':
		return "&amp;"
	case '<':
		return "&lt;"
	case '>':
		return "&gt;"
	}
	return string(r)
}

type discordBody struct {
	Content         string          `json:"content"`
	Embeds          []discordEmbed  `json:"embeds"`
	AllowedMentions discordMentions `json:"allowed_mentions"`
}

type discordEmbed struct {
	Title       string         `json:"title"`
	Description string         `json:"description,omitempty"`
	Timestamp   *string        `json:"timestamp"`
	Color       int            `json:"color,omitempty"`
	Footer      *discordFooter `json:"footer,omitempty"`
}

type discordFooter struct {
	Text string `json:"text"`
}

// discordMentions without anything in Parse lets nobody be notified.
type discordMentions struct {
	Parse []string `json:"parse"`
}

const (
	green = 0x2ecc71
	red   = 0xe74c3c
)

func (n note) discord() discordBody {
	e := discordEmbed{Title: cut(n.title, discordTitle, plainRune), Description: cut(n.detail, discordText, plainRune), Timestamp: timestamp(n.at)}
	switch {
	case n.good:
		e.Color = green
	case n.bad:
		e.Color = red
	}
	if n.subject != "" {
		e.Footer = &discordFooter{n.subject}
	}
	return discordBody{
		Content: cut(strings.TrimSpace(n.title+" "+n.subject), discordContent, plainRune), Embeds: []discordEmbed{e},
		AllowedMentions: discordMentions{Parse: []string{}},
	}
}

func plainRune(r rune) string { return string(r) }

// cut escapes a text and ends it, with a sign that it goes on, where it would be longer than a chat takes.
func cut(s string, most int, escape func(rune) string) string {
	var b strings.Builder
	size, fits := 0, 0
	for _, r := range strings.ToValidUTF8(s, "\ufffd") {
		if size <= most-1 {
			fits = b.Len()
		}
		escaped := escape(r)
		if size += units(escaped); size > most {
			return b.String()[:fits] + "…"
		}
		b.WriteString(escaped)
	}
	return b.String()
}

// units counts as JavaScript does.
func units(s string) (n int) {
	for _, r := range s {
		n += utf16.RuneLen(r)
	}
	return n
}
