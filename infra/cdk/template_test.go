package main

import (
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/jsii-runtime-go"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/infra"
	"muster/shared/config"
	"muster/shared/dynamo"
)

// The stack is synthesised once, with an environment that holds a key, a model and a tool; all tests read its JSON.
var (
	outDir      string
	synthesised []byte
)

const secretKey = "sk-not-for-the-template"

func TestMain(m *testing.M) {
	os.Exit(func() int {
		defer jsii.Close()
		dir, err := os.MkdirTemp("", "muster-cdk-")
		if err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(dir)
		for _, f := range infra.Functions {
			folder := filepath.Join(dir, "dist", f.Name)
			if err := os.MkdirAll(folder, 0o755); err != nil {
				log.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, "bootstrap"), []byte(f.Name), 0o755); err != nil {
				log.Fatal(err)
			}
		}
		outDir = filepath.Join(dir, "cdk.out")
		env := map[string]string{"OPENAI_API_KEY": secretKey, "MODEL": "gpt-4.1-mini", config.ToolFunctionsKey: "crm-lookup, send-quote", config.MaxConcurrentRunsKey: "20"}
		synth(setting{Dist: filepath.Join(dir, "dist"), OutDir: outDir, Getenv: func(name string) string { return env[name] }})
		if synthesised, err = os.ReadFile(filepath.Join(outDir, "Muster.template.json")); err != nil {
			log.Fatal(err)
		}
		return m.Run()
	}())
}

// template is a CloudFormation template; object is any part of it.
type template struct {
	Parameters map[string]object
	Resources  map[string]*resource
	Outputs    map[string]object
}

type resource struct {
	Type           string
	Properties     object
	Metadata       object
	DeletionPolicy string
}

type object = map[string]any

func read(t *testing.T) template {
	t.Helper()
	var read template
	if err := json.Unmarshal(synthesised, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

// of gives the resources of a type by logical id.
func (t template) of(kind string) map[string]*resource {
	found := map[string]*resource{}
	for id, r := range t.Resources {
		if r.Type == kind {
			found[id] = r
		}
	}
	return found
}

// id finds a resource by the name it has in the stack.
func (t template) id(name string) string {
	for id, r := range t.Resources {
		if r.Metadata["aws:cdk:path"] == "Muster/"+name+"/Resource" {
			return id
		}
	}
	return ""
}

// at walks into a value by keys; nil when there is nothing.
func at(v any, keys ...string) any {
	for _, key := range keys {
		o, ok := v.(object)
		if !ok {
			return nil
		}
		v = o[key]
	}
	return v
}

func items(v any) []any {
	if list, ok := v.([]any); ok {
		return list
	}
	if v == nil {
		return nil
	}
	return []any{v}
}

// refers gives the logical id that an expression is about: that of its first Ref or Fn::GetAtt.
func (t template) refers(v any) string {
	switch v := v.(type) {
	case object:
		if id, ok := v["Ref"].(string); ok && t.Resources[id] != nil {
			return id
		}
		for _, inner := range []any{v["Fn::GetAtt"], v["Fn::Join"]} {
			if id := t.refers(inner); id != "" {
				return id
			}
		}
	case []any:
		for _, inner := range v {
			if id := t.refers(inner); id != "" {
				return id
			}
		}
	case string:
		if t.Resources[v] != nil {
			return v
		}
	}
	return ""
}

// statements gives what the function may do: the statements of the policies of its role.
func (t template) statements(function string) []object {
	var found []object
	role := t.refers(at(t.Resources[function].Properties, "Role"))
	for _, p := range t.of("AWS::IAM::Policy") {
		if t.refers(at(p.Properties, "Roles")) != role {
			continue
		}
		for _, s := range items(at(p.Properties, "PolicyDocument", "Statement")) {
			found = append(found, s.(object))
		}
	}
	return found
}

// may tells whether the function may do the action on the resource.
func (t template) may(function, action, on string) bool {
	return slices.ContainsFunc(t.statements(function), func(s object) bool {
		return slices.Contains(items(s["Action"]), any(action)) && t.refers(s["Resource"]) == on
	})
}

// A rule gives a sentence for each place where a template breaks it.
type rule struct {
	name  string
	check func(t template) []string
	// breaks changes a good template so that the rule must complain.
	breaks []mutation
}

type mutation struct {
	name string
	do   func(t template)
}

var rules = []rule{
	{"a run finds its way from the kickoff to the receiver, and what fails on the way to a dead-letter queue", way, []mutation{
		{"the kickoff route leads elsewhere", func(t template) {
			route(t, "POST /kickoff").Properties["Target"] = route(t, "GET /status/{id}").Properties["Target"]
		}},
		{"API Gateway may not call the kickoff", func(t template) {
			for id, p := range t.of("AWS::Lambda::Permission") {
				if t.refers(p.Properties["FunctionName"]) == t.id("kickoff") {
					delete(t.Resources, id)
				}
			}
		}},
		{"the kickoff is told another queue", func(t template) {
			environment(t, "kickoff")[config.RunsURLKey] = environment(t, "kickoff")[config.DeliveriesURLKey]
		}},
		{"the kickoff may not send", func(t template) { forbid(t, "kickoff", "sqs:SendMessage") }},
		{"nobody eats the runs", func(t template) { delete(t.Resources, mapping(t, "runs")) }},
		{"the runs are fed to the dispatcher", func(t template) {
			t.Resources[mapping(t, "runs")].Properties["FunctionName"] = object{"Ref": t.id("dispatcher")}
		}},
		{"the runner may not send deliveries", func(t template) { forbid(t, "runner", "sqs:SendMessage") }},
		{"the dispatcher may not delete", func(t template) { forbid(t, "dispatcher", "sqs:DeleteMessage") }},
		{"the dispatcher may not hide", func(t template) { forbid(t, "dispatcher", "sqs:ChangeMessageVisibility") }},
		{"the dead deliveries go to the dead runs", func(t template) {
			t.Resources[t.id("deliveries")].Properties["RedrivePolicy"] = t.Resources[t.id("runs")].Properties["RedrivePolicy"]
		}},
	}},
	{"every minute a tick reaches the sweeper, which may knock at both queues", ticks, []mutation{
		{"no tick", func(t template) { delete(t.Resources, t.id("sweeper-tick")) }},
		{"a tick an hour", func(t template) { t.Resources[t.id("sweeper-tick")].Properties["ScheduleExpression"] = "rate(1 hour)" }},
		{"EventBridge may not call the sweeper", func(t template) {
			for id, p := range t.of("AWS::Lambda::Permission") {
				if p.Properties["Principal"] == "events.amazonaws.com" {
					delete(t.Resources, id)
				}
			}
		}},
		{"the sweeper may not send", func(t template) { forbid(t, "sweeper", "sqs:SendMessage") }},
	}},
	{"every queue has a dead-letter queue that keeps longer than the queue does", deadLetters, []mutation{
		{"no redrive", func(t template) { delete(t.Resources[t.id("runs")].Properties, "RedrivePolicy") }},
		{"the dead die first", func(t template) { t.Resources[t.id("runs-dead")].Properties["MessageRetentionPeriod"] = 60.0 }},
	}},
	{"who may move dead letters back may do all that SQS does for them, and nobody else may", redrives, []mutation{
		{"the API may not begin", func(t template) { forbid(t, "api", "sqs:StartMessageMoveTask") }},
		{"the API may not receive", func(t template) { forbid(t, "api", "sqs:ReceiveMessage") }},
		{"the API may not delete", func(t template) { forbid(t, "api", "sqs:DeleteMessage") }},
		{"the API may not show again", func(t template) { forbid(t, "api", "sqs:ChangeMessageVisibility") }},
		{"the API may not send", func(t template) { forbid(t, "api", "sqs:SendMessage") }},
		{"the kickoff may", func(t template) {
			t.statements(t.id("kickoff"))[0]["Action"] = "sqs:StartMessageMoveTask"
			t.statements(t.id("kickoff"))[0]["Resource"] = object{"Fn::GetAtt": []any{t.id("runs-dead"), "Arn"}}
		}},
	}},
	{"an alarm watches every dead-letter queue and the sweeper's errors", alarms, []mutation{
		{"no alarm on dead runs", func(t template) { delete(t.Resources, t.id("runs-dead-alarm")) }},
		{"no alarm on the sweeper", func(t template) { delete(t.Resources, t.id("sweeper-alarm")) }},
	}},
	{"no grant is a bare star, or all of a service", noStars, []mutation{
		{"any resource", func(t template) { t.statements(t.id("runner"))[0]["Resource"] = "*" }},
		{"any action", func(t template) { t.statements(t.id("runner"))[0]["Action"] = []any{"sqs:SendMessage", "*"} }},
		{"any action of a service", func(t template) { t.statements(t.id("runner"))[0]["Action"] = "dynamodb:*" }},
		{"a managed policy", func(t template) {
			t.Resources[t.id("runner-role")].Properties["ManagedPolicyArns"] = []any{"arn:aws:iam::aws:policy/AWSLambdaExecute"}
		}},
	}},
	{"every function logs JSON into a group of its own that forgets", logging, []mutation{
		{"kept for ever", func(t template) { delete(t.Resources[t.id("api-logs")].Properties, "RetentionInDays") }},
		{"a group that AWS makes by itself", func(t template) { delete(t.Resources[t.id("api")].Properties, "LoggingConfig") }},
		{"plain text", func(t template) {
			at(t.Resources[t.id("api")].Properties, "LoggingConfig").(object)["LogFormat"] = "Text"
		}},
	}},
	{"timeouts fit what waits for them", timeouts, []mutation{
		{"a function that outlives its message's visibility", func(t template) { t.Resources[t.id("runs")].Properties["VisibilityTimeout"] = 899.0 }},
		{"a default visibility of 30 s", func(t template) { delete(t.Resources[t.id("deliveries")].Properties, "VisibilityTimeout") }},
		{"an API function that outlives API Gateway", func(t template) { t.Resources[t.id("api")].Properties["Timeout"] = 31.0 }},
		{"a sweep that outlives the next tick", func(t template) { t.Resources[t.id("sweeper")].Properties["Timeout"] = 61.0 }},
	}},
	{"messages fail one by one", partialFailures, []mutation{
		{"all or nothing", func(t template) { delete(t.Resources[mapping(t, "runs")].Properties, "FunctionResponseTypes") }},
	}},
	{"sam local finds the bootstrap of every function", assets, []mutation{
		{"no path", func(t template) { delete(t.Resources[t.id("runner")].Metadata, "aws:asset:path") }},
		{"no property", func(t template) { delete(t.Resources[t.id("runner")].Metadata, "aws:asset:property") }},
		{"a path that leads nowhere", func(t template) { t.Resources[t.id("runner")].Metadata["aws:asset:path"] = "asset.gone" }},
	}},
	{"the functions are those of the manifest, on arm64 without a managed runtime", functions, []mutation{
		{"one too few", func(t template) { delete(t.Resources, t.id("sweeper")) }},
		{"less memory", func(t template) { t.Resources[t.id("runner")].Properties["MemorySize"] = 128.0 }},
		{"no places kept for watchers", func(t template) { delete(t.Resources[t.id("stream")].Properties, "ReservedConcurrentExecutions") }},
		{"another machine", func(t template) { delete(t.Resources[t.id("runner")].Properties, "Architectures") }},
	}},
	{"the routes are those of the wires, and what no route serves is still answered", routes, []mutation{
		{"one too few", func(t template) { deleteRoute(t, "POST /kickoff") }},
		{"one too many", func(t template) { route(t, "POST /kickoff").Properties["RouteKey"] = "ANY /kickoff" }},
		{"no answer for the rest", func(t template) { deleteRoute(t, "$default") }},
	}},
	{"whoever watches is sent to the function that streams, and it to nobody else", streams, []mutation{
		{"it answers when it is done", func(t template) { t.url().Properties["InvokeMode"] = "BUFFERED" }},
		{"AWS asks who is there before it does", func(t template) { t.url().Properties["AuthType"] = "AWS_IAM" }},
		{"another function has a URL", func(t template) {
			t.url().Properties["TargetFunctionArn"] = object{"Fn::GetAtt": []any{t.id("api"), "Arn"}}
		}},
		{"nobody may call it", func(t template) {
			for id, p := range t.of("AWS::Lambda::Permission") {
				if p.Properties["FunctionUrlAuthType"] != nil {
					delete(t.Resources, id)
				}
			}
		}},
		{"the function that is asked does not know where", func(t template) { delete(environment(t, infra.Otherwise), config.StreamURLKey) }},
		{"the function that streams sends on to itself", func(t template) { environment(t, "stream")[config.StreamURLKey] = "https://example.com" }},
	}},
	{"what happens on connections reaches one function, and who tells connections may do that and nothing else", sockets, []mutation{
		{"nobody hears messages", func(t template) { delete(t.Resources, t.socketRoute("$default")) }},
		{"nobody hears that one is over", func(t template) { delete(t.Resources, t.socketRoute("$disconnect")) }},
		{"another function hears them", func(t template) {
			t.Resources[t.socketRoute("$connect")].Properties["Target"] = route(t, "POST /kickoff").Properties["Target"]
		}},
		{"the gateway may not call it", func(t template) {
			for id, p := range t.of("AWS::Lambda::Permission") {
				if t.refers(p.Properties["FunctionName"]) == t.id("socket") {
					delete(t.Resources, id)
				}
			}
		}},
		{"the dispatcher may not push", func(t template) { forbid(t, "dispatcher", "execute-api:ManageConnections") }},
		{"the dispatcher does not know where to", func(t template) { delete(environment(t, "dispatcher"), config.SocketURLKey) }},
		{"the kickoff may push", func(t template) { t.statements(t.id("kickoff"))[0]["Action"] = "execute-api:ManageConnections" }},
	}},
	{"the table is paid by use, recoverable, forgets what has expired, and outlives the stack", table, []mutation{
		{"provisioned", func(t template) { t.Resources[t.id("table")].Properties["BillingMode"] = "PROVISIONED" }},
		{"no recovery", func(t template) { delete(t.Resources[t.id("table")].Properties, "PointInTimeRecoverySpecification") }},
		{"no expiry", func(t template) { delete(t.Resources[t.id("table")].Properties, "TimeToLiveSpecification") }},
		{"deleted with the stack", func(t template) { t.Resources[t.id("table")].DeletionPolicy = "Delete" }},
		{"an index that shows less", func(t template) {
			index := items(t.Resources[t.id("table")].Properties["GlobalSecondaryIndexes"])[0].(object)
			index["Projection"] = object{"ProjectionType": "KEYS_ONLY"}
		}},
		{"no indexes", func(t template) { delete(t.Resources[t.id("table")].Properties, "GlobalSecondaryIndexes") }},
	}},
	{"only who may unseal can read the sealing key, and only the runner a model's", secrets, []mutation{
		{"the key itself", func(t template) { environment(t, "runner")["OPENAI_API_KEY"] = secretKey }},
		{"the sweeper reads the sealing key", func(t template) {
			p := t.Resources[t.id("sweeper-role/DefaultPolicy")].Properties
			statements := at(p, "PolicyDocument").(object)
			statements["Statement"] = append(items(statements["Statement"]), t.statement("kickoff", "ssm:GetParameter"))
		}},
		{"the runner cannot read its model's key", func(t template) { forbid(t, "runner", "ssm:GetParameter") }},
	}},
	{"the runner may call the functions that were named, and no others", tools, []mutation{
		{"one of Muster's own", func(t template) {
			t.statement("runner", "lambda:InvokeFunction")["Resource"] = object{"Fn::GetAtt": []any{t.id("api"), "Arn"}}
		}},
		{"the dispatcher calls too", func(t template) {
			p := t.Resources[t.id("dispatcher-role/DefaultPolicy")].Properties
			statements := at(p, "PolicyDocument").(object)
			statements["Statement"] = append(items(statements["Statement"]), t.statement("runner", "lambda:InvokeFunction"))
		}},
	}},
}

func TestTemplate(t *testing.T) {
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			for _, complaint := range rule.check(read(t)) {
				t.Error(complaint)
			}
			for _, mutation := range rule.breaks {
				broken := read(t)
				mutation.do(broken)
				if len(rule.check(broken)) == 0 {
					t.Errorf("the rule does not notice this: %s", mutation.name)
				}
			}
		})
	}
}

func TestOnlyWhoSendsToItsOwnQueueMayLoop(t *testing.T) {
	template := read(t)
	for _, f := range infra.Functions {
		want := "Terminate"
		if f.Eats != nil && slices.Contains(f.May.Send, f.Eats.Queue) {
			want = "Allow"
		}
		if got := at(template.Resources[template.id(f.Name)].Properties, "RecursiveLoop"); got != want {
			t.Errorf("%s: RecursiveLoop is %v, want %s", f.Name, got, want)
		}
	}
}

func TestEveryFunctionIsToldTheLimitsOfTheWorkspace(t *testing.T) {
	template := read(t)
	for _, f := range infra.Functions {
		got := at(template.Resources[template.id(f.Name)].Properties, "Environment", "Variables", config.MaxConcurrentRunsKey)
		if got != "20" {
			t.Errorf("%s is told %v", f.Name, got)
		}
	}
}

func TestTheDispatcherKnowsWhereAnswersCanBeGiven(t *testing.T) {
	template := read(t)
	for _, f := range infra.Functions {
		url := at(template.Resources[template.id(f.Name)].Properties, "Environment", "Variables", config.PublicURLKey)
		if (url != nil) != (f.Name == "dispatcher") {
			t.Errorf("%s is told the URL %v", f.Name, url)
		}
	}
}

func TestTemplateSaysWhereItIsReached(t *testing.T) {
	outputs := read(t).Outputs
	if len(outputs) != 3 || outputs["Url"] == nil || outputs["SocketUrl"] == nil || outputs["TriggerFunction"] == nil {
		t.Errorf("got the outputs %v, want Url, SocketUrl and TriggerFunction", outputs)
	}
}

func TestGatewayPath(t *testing.T) {
	for pattern, want := range map[string]string{
		"/status/{id}":     "/status/{id}",
		"/{$}":             "/",
		"/files/{path...}": "/files/{path+}",
	} {
		if got := gatewayPath(pattern); got != want {
			t.Errorf("gatewayPath(%q) = %q, want %q", pattern, got, want)
		}
	}
}

// The rules.

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

func number(v any) float64 {
	n, _ := v.(float64)
	return n
}

// without takes fields that say nothing out of a value: null, "" and [].
func without(v any) any {
	switch v := v.(type) {
	case object:
		full := object{}
		for key, value := range v {
			if value = without(value); value != nil && value != "" {
				full[key] = value
			}
		}
		return full
	case []any:
		var full []any
		for _, value := range v {
			full = append(full, without(value))
		}
		if len(full) == 0 {
			return nil
		}
		return full
	}
	return v
}

// last gives the end of an ARN put together by Fn::Join.
func last(v any) string {
	join := items(at(v, "Fn::Join"))
	if len(join) != 2 {
		return fmt.Sprint(v)
	}
	parts := items(join[1])
	return fmt.Sprint(parts[len(parts)-1])
}

func environment(t template, function string) object {
	o, _ := at(t.Resources[t.id(function)].Properties, "Environment", "Variables").(object)
	return o
}

// mapping gives the id of the event source mapping of a queue.
func mapping(t template, queue string) string {
	for id, m := range t.of("AWS::Lambda::EventSourceMapping") {
		if t.refers(m.Properties["EventSourceArn"]) == t.id(queue) {
			return id
		}
	}
	return ""
}

func (t template) deadOf(queue string) string {
	return t.refers(at(t.Resources[t.id(queue)].Properties, "RedrivePolicy", "deadLetterTargetArn"))
}

func route(t template, key string) *resource {
	for _, r := range t.of("AWS::ApiGatewayV2::Route") {
		if r.Properties["RouteKey"] == key && !t.ofSockets(r) {
			return r
		}
	}
	return nil
}

// ofSockets tells whether a route is one of the WebSocket API.
func (t template) ofSockets(route *resource) bool {
	api := t.Resources[t.refers(route.Properties["ApiId"])]
	return api != nil && api.Properties["ProtocolType"] == "WEBSOCKET"
}

// socketRoute gives the id of a route of the WebSocket API.
func (t template) socketRoute(key string) string {
	for id, r := range t.of("AWS::ApiGatewayV2::Route") {
		if r.Properties["RouteKey"] == key && t.ofSockets(r) {
			return id
		}
	}
	return ""
}

func deleteRoute(t template, key string) {
	for id, r := range t.Resources {
		if r == route(t, key) {
			delete(t.Resources, id)
		}
	}
}

// serves gives the function behind a route.
func (t template) serves(route *resource) string {
	integration := t.Resources[t.refers(route.Properties["Target"])]
	if integration == nil {
		return ""
	}
	return t.refers(integration.Properties["IntegrationUri"])
}

// calls tells whether a service of AWS may call the function.
func (t template) calls(service, function string) bool {
	for _, p := range t.of("AWS::Lambda::Permission") {
		if p.Properties["Principal"] == service && p.Properties["SourceArn"] != nil && t.refers(p.Properties["FunctionName"]) == function {
			return true
		}
	}
	return false
}

// statement gives the first statement that allows a function the action.
func (t template) statement(function, action string) object {
	for _, s := range t.statements(t.id(function)) {
		if slices.Contains(items(s["Action"]), any(action)) {
			return s
		}
	}
	return nil
}

// forbid takes an action out of everything that the function may do.
func forbid(t template, function, action string) {
	for _, s := range t.statements(t.id(function)) {
		s["Action"] = slices.DeleteFunc(slices.Clone(items(s["Action"])), func(a any) bool { return a == any(action) })
	}
}
