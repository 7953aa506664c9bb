package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsscheduler"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsschedulertargets"
	"github.com/aws/jsii-runtime-go"
	"github.com/google/go-cmp/cmp"
)

// daily is what the guide of schedules shows, in a stack of somebody's own. infra/guides compares the lines.
func daily(stack awscdk.Stack) {
	muster := awslambda.Function_FromFunctionAttributes(stack, jsii.String("Muster"), &awslambda.FunctionAttributes{
		FunctionArn:     jsii.String("arn:aws:lambda:eu-central-1:123456789012:function:Muster-trigger"), // TriggerFunction
		SameEnvironment: jsii.Bool(true),
	})
	awsscheduler.NewSchedule(stack, jsii.String("Daily"), &awsscheduler.ScheduleProps{
		Schedule: awsscheduler.ScheduleExpression_Expression(jsii.String("cron(0 9 ? * MON-FRI *)"), awscdk.TimeZone_EUROPE_BERLIN()),
		Target: awsschedulertargets.NewLambdaInvoke(muster, &awsschedulertargets.ScheduleTargetBaseProps{
			Input: awsscheduler.ScheduleTargetInput_FromObject(map[string]any{
				"deployment":   "dep_…",
				"environment":  "production",
				"inputs":       map[string]any{"date": "today"},
				"execution_id": awsscheduler.ContextAttribute_ExecutionId(),
			}),
		}),
	})
}

func TestAScheduleOfTheUsersOwn(t *testing.T) {
	dir := t.TempDir()
	app := awscdk.NewApp(&awscdk.AppProps{Outdir: jsii.String(dir)})
	daily(awscdk.NewStack(app, jsii.String("Mine"), nil))
	app.Synth(nil)
	text, err := os.ReadFile(filepath.Join(dir, "Mine.template.json"))
	if err != nil {
		t.Fatal(err)
	}
	var made struct {
		Resources map[string]struct {
			Type       string
			Properties struct {
				ScheduleExpression, ScheduleExpressionTimezone string
				Target                                         struct{ Input string }
			}
		}
	}
	if err := json.Unmarshal(text, &made); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, r := range made.Resources {
		if r.Type != "AWS::Scheduler::Schedule" {
			continue
		}
		found++
		var input map[string]any
		if err := json.Unmarshal([]byte(r.Properties.Target.Input), &input); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"deployment": "dep_…", "environment": "production", "inputs": map[string]any{"date": "today"}, "execution_id": "<aws.scheduler.execution-id>"}
		if diff := cmp.Diff(want, input); diff != "" {
			t.Errorf("the input (-want +got):\n%s", diff)
		}
		if got := r.Properties.ScheduleExpressionTimezone; got != "Europe/Berlin" {
			t.Errorf("the time zone is %q", got)
		}
	}
	if found != 1 || !strings.Contains(string(text), "lambda:InvokeFunction") {
		t.Errorf("%d schedules, in\n%s", found, text)
	}
}
