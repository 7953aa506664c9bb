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
