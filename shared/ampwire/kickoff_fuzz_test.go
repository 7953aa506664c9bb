package ampwire

import (
	"encoding/json"
	"testing"

	"muster/shared/fault"
	"muster/shared/httpapi"
)

func FuzzReadKickoff(f *testing.F) {
	for _, seed := range []string{
		`{"inputs":{"a":1,"stepWebhookUrl":"https://s.example"},"meta":[],"crewWebhookUrl":""}`,
		`{"webhooks":{"url":"https://w.example","events":["*"],"realtime":true,"authentication":{"strategy":"bearer","token":"t"}}}`,
		`{"webhooks":"","inputs":null,"humanInputWebhook":{}}`,
		`{"humanInputWebhook":{"url":"https://h.example","authentication":{"strategy":"basic","username":"a","password":"b"}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := httpapi.ParseObject(body)
		if err != nil {
			return
		}
		k, err := readKickoff(o)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v, want a fault that can be shown", err)
			}
			return
		}
		if _, err := json.Marshal(k.inputs); err != nil {
			t.Errorf("the inputs do not encode again: %v", err)
		}
		for _, field := range urlField {
			if _, there := k.inputs[field]; there {
				t.Errorf("%s is among the inputs", field)
			}
		}
		for _, target := range k.targets {
			if target.URL == "" || target.ID == "" {
				t.Errorf("a target to nowhere: %+v", target)
			}
		}
	})
}

func FuzzReadResume(f *testing.F) {
	for _, seed := range []string{
		`{"execution_id":"r","task_id":"t","human_feedback":"f","is_approve":true}`,
		`{"executionId":"r","taskId":"t","human_feedback":"f","isApprove":false,"taskWebhookUrl":"https://t.example"}`,
		`{"kickoff_id":"r","_":1,"task__id":"t","is_approve":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := httpapi.ParseObject(body)
		if err != nil {
			return
		}
		var q resume
		if o, err = inCamelCase(o); err == nil {
			q, err = readResume(o)
		}
		switch {
		case err != nil && !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Missing):
			t.Errorf("got %v, want a fault that can be shown", err)
		case err == nil && (q.run == "" || q.task == ""):
			t.Errorf("an answer to nothing: %+v", q)
		}
	})
}
