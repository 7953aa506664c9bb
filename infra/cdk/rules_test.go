package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/infra"
	"muster/shared/config"
	"muster/shared/dynamo"
)

func way(t template) (complaints []string) {
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	kickoff := t.id("kickoff")
	if r := route(t, "POST /kickoff"); r == nil || t.serves(r) != kickoff {
		complain("POST /kickoff does not lead to the kickoff function")
	}
	if !t.calls("apigateway.amazonaws.com", kickoff) {
		complain("API Gateway may not call the kickoff function")
	}
	sends := func(function, key, queue string) {
		id := t.id(function)
		if t.refers(environment(t, function)[key]) != t.id(queue) {
			complain("%s is not told where the queue %s is", function, queue)
		}
		if !t.may(id, "sqs:SendMessage", t.id(queue)) {
			complain("%s may not send to the queue %s", function, queue)
		}
	}
	eats := func(function, queue string) {
		m := t.Resources[mapping(t, queue)]
		if m == nil || t.refers(m.Properties["FunctionName"]) != t.id(function) {
			complain("the queue %s does not feed %s", queue, function)
		}
		for _, action := range []string{"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"} {
			if !t.may(t.id(function), action, t.id(queue)) {
				complain("%s lacks %s on %s", function, action, queue)
			}
		}
		if !t.may(t.id(function), "sqs:SendMessage", t.id(queue+"-dead")) {
			complain("%s may not bury messages of %s", function, queue)
		}
		if dead := t.refers(at(t.Resources[t.id(queue)].Properties, "RedrivePolicy")); t.deadOf(queue) != t.id(queue+"-dead") {
			complain("what dies in %s goes to %q", queue, dead)
		}
	}
	sends("kickoff", config.RunsURLKey, infra.Runs)
	eats("runner", infra.Runs)
	sends("runner", config.DeliveriesURLKey, infra.Deliveries)
	eats("dispatcher", infra.Deliveries)
	return complaints
}

func ticks(t template) (complaints []string) {
	sweeper, tick := t.id("sweeper"), t.Resources[t.id("sweeper-tick")]
	if tick == nil || tick.Properties["ScheduleExpression"] != "rate(1 minute)" || tick.Properties["State"] != "ENABLED" ||
		t.refers(at(items(tick.Properties["Targets"])[0], "Arn")) != sweeper {
		complaints = append(complaints, "there is no tick a minute for the sweeper")
	}
	if !t.calls("events.amazonaws.com", sweeper) {
		complaints = append(complaints, "EventBridge may not call the sweeper")
	}
	for _, q := range infra.Queues {
		if !t.may(sweeper, "sqs:SendMessage", t.id(q.Name)) {
			complaints = append(complaints, "the sweeper may not send to "+q.Name)
		}
	}
	return complaints
}

func deadLetters(t template) (complaints []string) {
	for _, q := range infra.Queues {
		dead := t.Resources[t.deadOf(q.Name)]
		if dead == nil {
			complaints = append(complaints, q.Name+" has no dead-letter queue")
			continue
		}
		if number(dead.Properties["MessageRetentionPeriod"]) <= number(t.Resources[t.id(q.Name)].Properties["MessageRetentionPeriod"]) {
			complaints = append(complaints, "the dead-letter queue of "+q.Name+" forgets before the queue does")
		}
	}
	if got, want := len(t.of("AWS::SQS::Queue")), 2*len(infra.Queues); got != want {
		complaints = append(complaints, fmt.Sprintf("there are %d queues, want %d", got, want))
	}
	return complaints
}

func redrives(t template) (complaints []string) {
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	for _, f := range infra.Functions {
		for _, q := range infra.Queues {
			if !slices.Contains(f.May.Redrive, q.Name) {
				if t.may(t.id(f.Name), "sqs:StartMessageMoveTask", t.id(q.Name+"-dead")) {
					complain("%s may move the dead letters of %s", f.Name, q.Name)
				}
				continue
			}
			for _, action := range []string{
				"sqs:StartMessageMoveTask", "sqs:ListMessageMoveTasks", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes",
			} {
				if !t.may(t.id(f.Name), action, t.id(q.Name+"-dead")) {
					complain("%s lacks %s on the dead letters of %s", f.Name, action, q.Name)
				}
			}
			for _, action := range []string{"sqs:SendMessage", "sqs:GetQueueAttributes"} {
				if !t.may(t.id(f.Name), action, t.id(q.Name)) {
					complain("%s lacks %s on %s", f.Name, action, q.Name)
				}
			}
		}
	}
	return complaints
}

func alarms(t template) (complaints []string) {
	watched := func(metric, id string) bool {
		for _, a := range t.of("AWS::CloudWatch::Alarm") {
			if a.Properties["MetricName"] == metric && t.refers(at(items(a.Properties["Dimensions"])[0], "Value")) == id {
				return true
			}
		}
		return false
	}
	for _, q := range infra.Queues {
		if !watched("ApproximateNumberOfMessagesVisible", t.id(q.Name+"-dead")) {
			complaints = append(complaints, "no alarm watches the dead-letter queue of "+q.Name)
		}
	}
	if !watched("Errors", t.id("sweeper")) {
		complaints = append(complaints, "no alarm watches the sweeper")
	}
	return complaints
}

func noStars(t template) (complaints []string) {
	for id, p := range t.of("AWS::IAM::Policy") {
		for _, s := range items(at(p.Properties, "PolicyDocument", "Statement")) {
			for _, action := range items(at(s, "Action")) {
				if strings.HasSuffix(action.(string), "*") {
					complaints = append(complaints, fmt.Sprintf("%s allows %s", id, action))
				}
			}
			if slices.Contains(items(at(s, "Resource")), any("*")) {
				complaints = append(complaints, id+" grants on every resource")
			}
		}
	}
	for id, r := range t.of("AWS::IAM::Role") {
		if r.Properties["ManagedPolicyArns"] != nil {
			complaints = append(complaints, id+" has a managed policy, which allows more than is needed")
		}
	}
	return complaints
}

func logging(t template) (complaints []string) {
	owner := map[string]string{}
	for id, f := range t.of("AWS::Lambda::Function") {
		group := t.refers(at(f.Properties, "LoggingConfig", "LogGroup"))
		if group == "" || number(at(t.Resources[group].Properties, "RetentionInDays")) == 0 {
			complaints = append(complaints, id+" has no log group that forgets")
		} else if owner[group] != "" {
			complaints = append(complaints, id+" shares its log group with "+owner[group])
		}
		owner[group] = id
		if at(f.Properties, "LoggingConfig", "LogFormat") != "JSON" {
			complaints = append(complaints, id+" does not log JSON")
		}
		if !t.may(id, "logs:PutLogEvents", group) {
			complaints = append(complaints, id+" may not write its logs")
		}
	}
	return complaints
}

func timeouts(t template) (complaints []string) {
	limit := func(name, what string, most float64) {
		if got := number(t.Resources[t.id(name)].Properties["Timeout"]); got == 0 || got > most {
			complaints = append(complaints, fmt.Sprintf("%s may take %gs, and %s is %gs", name, got, what, most))
		}
	}
	for _, f := range infra.Functions {
		if f.Eats != nil {
			limit(f.Name, "the visibility of "+f.Eats.Queue, number(t.Resources[t.id(f.Eats.Queue)].Properties["VisibilityTimeout"]))
		}
		if f.Every > 0 {
			limit(f.Name, "the time between ticks", f.Every.Seconds())
		}
	}
	for _, route := range infra.Routes() {
		limit(infra.Front(route.Function), "API Gateway's patience", (30 * time.Second).Seconds())
	}
	return complaints
}

func partialFailures(t template) (complaints []string) {
	for id, m := range t.of("AWS::Lambda::EventSourceMapping") {
		if !cmp.Equal(items(m.Properties["FunctionResponseTypes"]), []any{"ReportBatchItemFailures"}) {
			complaints = append(complaints, id+" does not report failures one by one")
		}
	}
	return complaints
}

func assets(t template) (complaints []string) {
	for id, f := range t.of("AWS::Lambda::Function") {
		path, _ := f.Metadata["aws:asset:path"].(string)
		raw, err := os.ReadFile(filepath.Join(outDir, path, "bootstrap"))
		if path == "" || f.Metadata["aws:asset:property"] != "Code" || err != nil {
			complaints = append(complaints, fmt.Sprintf("sam does not find the code of %s: %v", id, err))
		} else if t.id(string(raw)) != id {
			complaints = append(complaints, fmt.Sprintf("%s has the bootstrap of %s", id, raw))
		}
	}
	return complaints
}

func functions(t template) (complaints []string) {
	if got, want := len(t.of("AWS::Lambda::Function")), len(infra.Functions); got != want {
		complaints = append(complaints, fmt.Sprintf("there are %d functions, want %d", got, want))
	}
	for _, f := range infra.Functions {
		r := t.Resources[t.id(f.Name)]
		if r == nil {
			complaints = append(complaints, "there is no function "+f.Name)
			continue
		}
		got := []any{r.Properties["Runtime"], r.Properties["Handler"], r.Properties["Architectures"], r.Properties["MemorySize"], r.Properties["Timeout"],
			r.Properties["ReservedConcurrentExecutions"]}
		want := []any{"provided.al2023", "bootstrap", []any{"arm64"}, float64(f.MemoryMB), f.Timeout.Seconds(), any(nil)}
		if f.Reserved > 0 {
			want[5] = float64(f.Reserved)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			complaints = append(complaints, f.Name+" is another (-want +got):\n"+diff)
		}
	}
	return complaints
}

func routes(t template) (complaints []string) {
	want, got := []string{"$default to " + t.id(infra.Otherwise)}, []string(nil)
	for _, r := range infra.Routes() {
		if r.Inside {
			continue
		}
		want = append(want, r.Method+" "+gatewayPath(r.Path)+" to "+t.id(infra.Front(r.Function)))
	}
	for _, r := range t.of("AWS::ApiGatewayV2::Route") {
		if t.ofSockets(r) {
			continue
		}
		got = append(got, fmt.Sprintf("%s to %s", r.Properties["RouteKey"], t.serves(r)))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		complaints = append(complaints, "routes (-want +got):\n"+diff)
	}
	return complaints
}

// url gives the one function URL, nil when there are more or fewer.
func (t template) url() *resource {
	all := t.of("AWS::Lambda::Url")
	for _, r := range all {
		if len(all) == 1 {
			return r
		}
	}
	return nil
}

func streams(t template) (complaints []string) {
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	for _, f := range infra.Functions {
		told := environment(t, f.Name)[config.StreamURLKey]
		if (told != nil) != (f.Name == infra.Otherwise) {
			complain("%s is told of the stream's URL: %v", f.Name, told)
		}
		if !f.Streams {
			continue
		}
		r := t.url()
		if r == nil {
			complain("there is not one function URL")
			continue
		}
		if t.refers(r.Properties["TargetFunctionArn"]) != t.id(f.Name) || r.Properties["InvokeMode"] != "RESPONSE_STREAM" || r.Properties["AuthType"] != "NONE" {
			complain("the function URL is %v", r.Properties)
		}
		open := false
		for _, p := range t.of("AWS::Lambda::Permission") {
			open = open || p.Properties["FunctionUrlAuthType"] == "NONE" && t.refers(p.Properties["FunctionName"]) == t.id(f.Name)
		}
		if !open {
			complain("nobody may call the URL of %s", f.Name)
		}
	}
	return complaints
}

func sockets(t template) (complaints []string) {
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	const push = "execute-api:ManageConnections"
	for _, f := range infra.Functions {
		grant := t.statement(f.Name, push)
		told := environment(t, f.Name)[config.SocketURLKey]
		if (grant != nil) != f.May.Push || (told != nil) != f.May.Push {
			complain("%s may push: %v, and is told where to: %v", f.Name, grant, told)
		}
		if grant != nil && !strings.HasSuffix(last(grant["Resource"]), "/ws/*/@connections/*") {
			complain("%s may push to %v", f.Name, grant["Resource"])
		}
		if !f.Sockets {
			continue
		}
		for _, key := range []string{"$connect", "$disconnect", "$default"} {
			r := t.Resources[t.socketRoute(key)]
			if r == nil || t.serves(r) != t.id(f.Name) {
				complain("%s of the WebSocket API does not lead to %s", key, f.Name)
			}
		}
		if !t.calls("apigateway.amazonaws.com", t.id(f.Name)) {
			complain("API Gateway may not call %s", f.Name)
		}
	}
	return complaints
}

func table(t template) (complaints []string) {
	r := t.Resources[t.id("table")]
	if r.DeletionPolicy != "Retain" {
		complaints = append(complaints, "the table goes with the stack")
	}
	// The template and shared/dynamo say the same in the same words, except for what CreateTable does not know.
	got := maps.Clone(r.Properties)
	for key, want := range map[string]object{
		"PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": true},
		"TimeToLiveSpecification":          {"AttributeName": expires, "Enabled": true},
	} {
		if diff := cmp.Diff(any(want), got[key]); diff != "" {
			complaints = append(complaints, key+" (-want +got):\n"+diff)
		}
		delete(got, key)
	}
	described, err := json.Marshal(dynamo.Table(""))
	var want object
	if err == nil {
		err = json.Unmarshal(described, &want)
	}
	if err != nil {
		return append(complaints, err.Error())
	}
	byName := cmpopts.SortSlices(func(a, b any) bool {
		return fmt.Sprint(at(a, "AttributeName"), a) < fmt.Sprint(at(b, "AttributeName"), b)
	})
	if diff := cmp.Diff(without(want), without(got), byName); diff != "" {
		complaints = append(complaints, "the table is not the one that shared/dynamo describes (-want +got):\n"+diff)
	}
	return complaints
}

func secrets(t template) (complaints []string) {
	whole, err := json.Marshal(t)
	if err != nil || strings.Contains(string(whole), secretKey) {
		complaints = append(complaints, fmt.Sprintf("the template holds a key (%v)", err))
	}
	for _, f := range infra.Functions {
		var got, want []string
		for _, s := range t.statements(t.id(f.Name)) {
			if slices.Contains(items(s["Action"]), any("ssm:GetParameter")) {
				for _, r := range items(s["Resource"]) {
					got = append(got, last(r))
				}
			}
		}
		if f.May.Unseal {
			want = append(want, ":parameter/muster/sealing-key")
		}
		if f.May.Think {
			want = append(want, ":parameter/muster/models/OPENAI_API_KEY")
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			complaints = append(complaints, f.Name+" reads parameters (-want +got):\n"+diff)
		}
	}
	if got := environment(t, "runner")["OPENAI_API_KEY"]; got != "ssm:/muster/models/OPENAI_API_KEY" {
		complaints = append(complaints, fmt.Sprintf("the runner is told the key %v", got))
	}
	return complaints
}

func tools(t template) (complaints []string) {
	for _, f := range infra.Functions {
		var got, want []string
		for _, s := range t.statements(t.id(f.Name)) {
			if slices.Contains(items(s["Action"]), any("lambda:InvokeFunction")) {
				for _, r := range items(s["Resource"]) {
					got = append(got, last(r))
				}
			}
		}
		if f.May.Call {
			want = []string{":function:crm-lookup", ":function:send-quote"}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			complaints = append(complaints, f.Name+" calls (-want +got):\n"+diff)
		}
	}
	return complaints
}

// What the rules and mutations look things up by.
