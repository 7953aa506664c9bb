package guides

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

func TestThreads(t *testing.T) {
	d := deploy(t, "audience", "topic")
	d.shell(t).run(t, "threads", "thread.sh", "run.sh", "enqueue.sh")
	all := d.runs(t)
	if len(all) != 2 {
		t.Fatalf("%d runs", len(all))
	}
	for i, topic := range []string{"retries", "queues"} {
		if all[i].Status != "succeeded" || all[i].Input["topic"] != topic {
			t.Errorf("%+v", all[i])
		}
	}
	var listed struct {
		Threads []struct {
			ID string `json:"thread_id"`
		} `json:"threads"`
	}
	d.home.call(t, "GET", "/v1/threads", d.Token, nil, &listed)
	d.shell(t, "THREAD="+listed.Threads[0].ID).run(t, "threads", "history.sh").says(t, 0, `"idle"`, `"audience": "engineers"`, `"topic": "retries"`, all[0].ID)
}

func TestWatchingRuns(t *testing.T) {
	const page = "watching-runs"
	d := deploy(t)
	r := d.begin(t, nil)
	s := d.shell(t, "RUN="+r.ID, "LAST_SEEN=2").run(t, page, "sse.sh", "lines.sh", "poll.sh", "resume.sh", "ticket.sh")
	s.says(t, 0, "id: 1\n", `"type":"run.started"`, `"type":"complete"`)
	s.says(t, 1, "run.started", "complete")
	if strings.TrimSpace(s.said[1]) != strings.TrimSpace(s.said[2]) {
		t.Errorf("the lines are\n%s\nand the long poll\n%s", s.said[1], s.said[2])
	}
	if strings.Contains(s.said[3], "id: 2\n") || !strings.Contains(s.said[3], `"type":"complete"`) {
		t.Errorf("after the second there is %s", s.said[3])
	}
	var ticket map[string]any
	if err := json.Unmarshal([]byte(s.said[4]), &ticket); err != nil {
		t.Fatal(err)
	}
	alike(t, "the ticket", ticket, sample(t, page, "ticket.json"))

	// A browser's EventSource, as a package.
	dir := write(t, map[string]string{"page.cjs": `
const { EventSource } = require('` + filepath.Join(node.at(t), "node_modules", "eventsource") + `')
` + snippet(t, page, "watch.js") + `
watch(process.argv[2], (type, data, seq) => console.log(seq, type, data.status ?? ''))
`})
	out, err := run(t, dir, nil, "node", "page.cjs", d.home.URL+ticket["url"].(string))
	if err != nil || !strings.HasPrefix(out, "1 run.started") || !strings.HasSuffix(strings.TrimSpace(out), "complete succeeded") {
		t.Errorf("the page: %v\n%s", err, out)
	}
	lines := strings.Fields(s.said[1])
	// The same address as a WebSocket.
	dir = write(t, map[string]string{"page.cjs": `
const { WebSocket } = require('` + filepath.Join(node.at(t), "node_modules", "ws") + `')
const socket = new WebSocket(process.argv[2])
socket.onmessage = ({ data }) => console.log(JSON.parse(data).type)
socket.onerror = ({ message }) => console.log(message)
`})
	out, err = run(t, dir, nil, "node", "page.cjs", strings.Replace(d.home.URL, "http", "ws", 1)+ticket["url"].(string))
	if err != nil || !strings.HasPrefix(out, "run.started") || !strings.HasSuffix(strings.TrimSpace(out), "complete") {
		t.Errorf("the WebSocket: %v\n%s", err, out)
	}
	if status, _ := d.get(t, "/v1/runs/"+r.ID+"/events?last_seq="+lines[len(lines)-2]); status != http.StatusNoContent {
		t.Errorf("after the end: %d", status)
	}
}

func TestTheWebSocketOfAWorkspace(t *testing.T) {
	d := deploy(t)
	// The WebSocket of a browser, as a package. The run is started once the channel is open.
	dir := write(t, map[string]string{"page.cjs": `
const { WebSocket } = require('` + filepath.Join(node.at(t), "node_modules", "ws") + `')
` + snippet(t, "watching-runs", "socket.js") + `
const [base, token, deployment] = process.argv.slice(2)
const send = listen(base.replace('http', 'ws') + '/ws', token, 'crew:' + deployment, (type, payload) => {
  console.log(type, payload?.run_id ?? '', payload?.seq ?? '', payload?.message ?? '')
  if (type === 'pong' && again) again = clearInterval(again), fetch(base + '/v1/runs', { method: 'POST', headers: { Authorization: 'Bearer ' + token }, body: '{"input": {}}' })
  if (type === 'run.completed') process.exit(0)
})
let again = setInterval(() => { try { send({ type: 'ping' }) } catch {} }, 100) // it throws until the socket is open
setTimeout(() => process.exit(1), 30000)
`})
	out, err := run(t, dir, nil, "node", "page.cjs", d.home.URL, d.Token, d.ID)
	r := d.started(t, nil)
	if err != nil || !strings.Contains(out, "run.started "+r.ID) || !strings.Contains(out, "agent.log "+r.ID) || !strings.Contains(out, "run.completed "+r.ID) {
		t.Errorf("%v\n%s", err, out)
	}
}
