package main

import (
	"log"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/aws/jsii-runtime-go"

	"muster/infra"
	"muster/shared/config"
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
