package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2integrations"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsdynamodb"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awseventstargets"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsssm"
	"github.com/aws/jsii-runtime-go"

	"muster/infra"
	"muster/shared/config"
	"muster/shared/dynamo"
	"muster/shared/engine/llm"
)

// The SSM parameters of an installation. infra/cdk/deploy makes those that are absent.
const (
	sealingKeyParameter     = "/muster/sealing-key"            // SecureString, read by the functions
	workspaceIDParameter    = "/muster/workspace-id"           // String, put into the functions' environment
	workspaceTokenParameter = "/muster/workspace-token-sha256" // String, likewise
	internalTokenParameter  = "/muster/internal-token-sha256"  // String, likewise
	modelKeys               = "/muster/models/"                // and the name of the variable: SecureString, read by the runner
)

// expires is the attribute by which shared/dynamo lets DynamoDB delete an item.
const expires = "expires"

// setting is what a stack depends on.
type setting struct {
	// Dist has a folder with a bootstrap for each function.
	Dist string
	// OutDir is where the cloud assembly goes; "" leaves that to the CDK (CDK_OUTDIR).
	OutDir string
	Getenv func(string) string
}

// stack is the stack as far as it is built.
type stack struct {
	awscdk.Stack
	setting
	table  awsdynamodb.Table
	queues map[string]pair
	// functions are by name, and environment is what all of them are told.
	functions   map[string]awslambda.Function
	environment map[string]*string
	// streamURL is the URL of the function that streams.
	streamURL *string
	// socketAPI is the WebSocket API, and sockets its one stage.
	socketAPI awsapigatewayv2.WebSocketApi
	sockets   awsapigatewayv2.WebSocketStage
}

// pair is a queue and its dead-letter queue.
type pair struct{ queue, dead awssqs.Queue }

// synth writes the cloud assembly.
func synth(s setting) {
	props := &awscdk.AppProps{AnalyticsReporting: jsii.Bool(false)}
	if s.OutDir != "" {
		props.Outdir = &s.OutDir
		props.Context = &map[string]any{"aws:cdk:enable-asset-metadata": true, "aws:cdk:enable-path-metadata": true}
	}
	app := awscdk.NewApp(props)
	st := &stack{
		Stack: awscdk.NewStack(app, str("Muster"), &awscdk.StackProps{
			Description: str("Muster runs AI crews and tells the world about it by webhooks."),
		}),
		setting:   s,
		queues:    map[string]pair{},
		functions: map[string]awslambda.Function{},
	}
	st.addTable()
	st.addQueues()
	st.setEnvironment()
	st.addSockets()
	for _, f := range infra.Functions {
		st.addFunction(f)
	}
	st.addRoutes()
	app.Synth(nil)
}

// addTable adds the one table, as shared/dynamo describes it. It stays when the stack goes.
func (s *stack) addTable() {
	described := dynamo.Table("")
	s.table = awsdynamodb.NewTable(s.Stack, str("table"), &awsdynamodb.TableProps{
		PartitionKey:        attribute(described.KeySchema[0].AttributeName),
		SortKey:             attribute(described.KeySchema[1].AttributeName),
		BillingMode:         awsdynamodb.BillingMode(described.BillingMode),
		TimeToLiveAttribute: str(expires),
		PointInTimeRecoverySpecification: &awsdynamodb.PointInTimeRecoverySpecification{
			PointInTimeRecoveryEnabled: jsii.Bool(true),
		},
		RemovalPolicy: awscdk.RemovalPolicy_RETAIN,
	})
	for _, index := range described.GlobalSecondaryIndexes {
		props := &awsdynamodb.GlobalSecondaryIndexProps{
			IndexName:      index.IndexName,
			PartitionKey:   attribute(index.KeySchema[0].AttributeName),
			SortKey:        attribute(index.KeySchema[1].AttributeName),
			ProjectionType: awsdynamodb.ProjectionType(index.Projection.ProjectionType),
		}
		if shown := index.Projection.NonKeyAttributes; shown != nil {
			props.NonKeyAttributes = jsii.Strings(shown...)
		}
		s.table.AddGlobalSecondaryIndex(props)
	}
}

func attribute(name *string) *awsdynamodb.Attribute {
	return &awsdynamodb.Attribute{Name: name, Type: awsdynamodb.AttributeType_STRING}
}

// addQueues adds each queue with its dead-letter queue, and an alarm on the latter: what is in there needs a person.
func (s *stack) addQueues() {
	for _, q := range infra.Queues {
		dead := awssqs.NewQueue(s.Stack, str(q.Name+"-dead"), &awssqs.QueueProps{
			RetentionPeriod: duration(q.DeadRetention),
			Encryption:      awssqs.QueueEncryption_SQS_MANAGED,
		})
		queue := awssqs.NewQueue(s.Stack, str(q.Name), &awssqs.QueueProps{
			VisibilityTimeout: duration(q.Visibility),
			RetentionPeriod:   duration(q.Retention),
			Encryption:        awssqs.QueueEncryption_SQS_MANAGED,
			DeadLetterQueue:   &awssqs.DeadLetterQueue{Queue: dead, MaxReceiveCount: jsii.Number(q.Receives)},
		})
		s.queues[q.Name] = pair{queue, dead}
		dead.MetricApproximateNumberOfMessagesVisible(&awscloudwatch.MetricOptions{
			Period: duration(time.Minute), Statistic: str("Maximum"),
		}).CreateAlarm(s.Stack, str(q.Name+"-dead-alarm"), &awscloudwatch.CreateAlarmOptions{
			AlarmDescription:   str("Messages of the queue " + q.Name + " could not be processed and wait in its dead-letter queue."),
			Threshold:          jsii.Number(0),
			ComparisonOperator: awscloudwatch.ComparisonOperator_GREATER_THAN_THRESHOLD,
			EvaluationPeriods:  jsii.Number(1),
			TreatMissingData:   awscloudwatch.TreatMissingData_NOT_BREACHING,
		})
	}
}

// setEnvironment fills in what every function is told. A parameter's value is read when the stack is deployed.
func (s *stack) setEnvironment() {
	parameter := func(name string) *string {
		return awsssm.StringParameter_ValueForStringParameter(s.Stack, str(name), nil)
	}
	runs, deliveries := s.queues[infra.Runs], s.queues[infra.Deliveries]
	s.environment = map[string]*string{
		config.TableKey:               s.table.TableName(),
		config.RunsURLKey:             runs.queue.QueueUrl(),
		config.RunsDeadURLKey:         runs.dead.QueueUrl(),
		config.DeliveriesURLKey:       deliveries.queue.QueueUrl(),
		config.DeliveriesDeadURLKey:   deliveries.dead.QueueUrl(),
		config.SealingKeyParameterKey: str(sealingKeyParameter),
		config.WorkspaceIDKey:         parameter(workspaceIDParameter),
		config.WorkspaceTokenKey:      parameter(workspaceTokenParameter),
	}
	// What the trigger of agents needs is named as far as it is there.
	if infra.Agents().Orchestrator {
		s.environment[config.OrchestratorKey] = runs.queue.QueueName()
	}
	if infra.Agents().ContainerProvider {
		s.environment[config.ContainerProviderKey] = str("runner")
	}
	if infra.Agents().LogWriter {
		s.environment[config.LogWriterKey] = s.table.TableName()
	}
	if infra.Agents().InternalToken {
		s.environment[config.InternalTokenKey] = parameter(internalTokenParameter)
	}
	for _, name := range []string{config.MaxConcurrentRunsKey, config.WhenFullKey, config.MaxKickoffsKey, config.LeaseKey, config.PrivateNetworksKey} {
		if value := s.Getenv(name); value != "" {
			s.environment[name] = str(value)
		}
	}
}

// addFunction adds a function with its log group, what invokes it, and its grants.
func (s *stack) addFunction(f infra.Function) {
	logs := awslogs.NewLogGroup(s.Stack, str(f.Name+"-logs"), &awslogs.LogGroupProps{
		Retention:     awslogs.RetentionDays_ONE_MONTH,
		RemovalPolicy: awscdk.RemovalPolicy_DESTROY,
	})
	role := awsiam.NewRole(s.Stack, str(f.Name+"-role"), &awsiam.RoleProps{
		AssumedBy: awsiam.NewServicePrincipal(str("lambda.amazonaws.com"), nil),
	})
	environment := make(map[string]*string, len(s.environment))
	for key, value := range s.environment {
		environment[key] = value
	}
	fn := awslambda.NewFunction(s.Stack, str(f.Name), &awslambda.FunctionProps{
		Description:                  str(f.Does),
		Runtime:                      awslambda.Runtime_PROVIDED_AL2023(),
		Architecture:                 s.architecture(),
		Handler:                      str("bootstrap"),
		Code:                         awslambda.Code_FromAsset(str(s.Dist+"/"+f.Name), nil),
		MemorySize:                   jsii.Number(f.MemoryMB),
		ReservedConcurrentExecutions: reserved(f),
		Timeout:                      duration(f.Timeout),
		Environment:                  &environment,
		Role:                         role,
		LogGroup:                     logs,
		LoggingFormat:                awslambda.LoggingFormat_JSON,
		ApplicationLogLevelV2:        awslambda.ApplicationLogLevel_INFO,
		RecursiveLoop:                recursion(f),
		SystemLogLevelV2:             awslambda.SystemLogLevel_WARN, // drops the three platform lines of every invocation, which cost money
	})
	s.functions[f.Name] = fn

	allow(fn, *logs.LogGroupArn(), "logs:CreateLogStream", "logs:PutLogEvents")
	if f.Eats != nil {
		eaten := s.queues[f.Eats.Queue]
		fn.AddEventSourceMapping(str(f.Eats.Queue), &awslambda.EventSourceMappingOptions{
			EventSourceArn:          eaten.queue.QueueArn(),
			BatchSize:               jsii.Number(f.Eats.Size),
			MaxConcurrency:          jsii.Number(f.Eats.Concurrency),
			ReportBatchItemFailures: jsii.Bool(true),
		})
		allow(fn, *eaten.queue.QueueArn(), "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes")
		allow(fn, *eaten.dead.QueueArn(), "sqs:SendMessage")
	}
	if f.Every > 0 {
		s.addTick(f, fn)
	}
	if f.Streams {
		s.addURL(fn)
	}
	if f.Sockets {
		s.hear(fn)
	}
	s.grant(f, fn)
}

// reserved is how many invocations are kept for the function, nil for none.
func reserved(f infra.Function) *float64 {
	if f.Reserved == 0 {
		return nil
	}
	return jsii.Number(f.Reserved)
}

// addURL gives a function that streams its own URL. Who may use it, the function decides by token and ticket, as everywhere.
// Whoever asks at the usual place is sent there.
func (s *stack) addURL(fn awslambda.Function) {
	s.streamURL = fn.AddFunctionUrl(&awslambda.FunctionUrlOptions{
		AuthType: awslambda.FunctionUrlAuthType_NONE, InvokeMode: awslambda.InvokeMode_RESPONSE_STREAM,
	}).Url()
}

// addSockets adds the WebSocket API.
func (s *stack) addSockets() {
	s.socketAPI = awsapigatewayv2.NewWebSocketApi(s.Stack, str("sockets"), &awsapigatewayv2.WebSocketApiProps{
		ApiName: str("muster-sockets"), RouteSelectionExpression: str("$request.body.type"),
	})
	s.sockets = awsapigatewayv2.NewWebSocketStage(s.Stack, str("sockets-stage"), &awsapigatewayv2.WebSocketStageProps{
		WebSocketApi: s.socketAPI, StageName: str(strings.TrimPrefix(infra.SocketPath, "/")), AutoDeploy: jsii.Bool(true),
		// A client that cannot stop talking is everybody's cost.
		Throttle: &awsapigatewayv2.ThrottleSettings{RateLimit: jsii.Number(500), BurstLimit: jsii.Number(1000)},
	})
	awscdk.NewCfnOutput(s.Stack, str("SocketUrl"), &awscdk.CfnOutputProps{
		Description: str("The URL of the workspace WebSocket."),
		Value:       s.sockets.Url(),
	})
}

// hear gives a function what happens on the connections of the WebSocket API. Who may open one, the function decides by
// token, as everywhere.
func (s *stack) hear(fn awslambda.Function) {
	for _, route := range []string{"$connect", "$disconnect", "$default"} {
		s.socketAPI.AddRoute(str(route), &awsapigatewayv2.WebSocketRouteOptions{
			Integration: awsapigatewayv2integrations.NewWebSocketLambdaIntegration(str("socket-"+strings.TrimPrefix(route, "$")), fn, nil),
		})
	}
}

// recursion lets a function send to the queue it eats: a run that is over knocks for the next one that waits for its slot,
// and Lambda would take sixteen in a row for a loop.
func recursion(f infra.Function) awslambda.RecursiveLoop {
	if f.Eats != nil && slices.Contains(f.May.Send, f.Eats.Queue) {
		return awslambda.RecursiveLoop_ALLOW
	}
	return awslambda.RecursiveLoop_TERMINATE
}

// architecture is arm64, which costs less and starts sooner, unless the functions were built for another machine: sam
// runs them on the one it is called on.
func (s *stack) architecture() awslambda.Architecture {
	if s.Getenv("ARCH") == "amd64" {
		return awslambda.Architecture_X86_64()
	}
	return awslambda.Architecture_ARM_64()
}

// grant allows what the manifest says the function may do, action by action.
func (s *stack) grant(f infra.Function, fn awslambda.Function) {
	if f.May.Keep {
		allow(fn, *s.table.TableArn(), "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem", "dynamodb:Query")
		for _, index := range dynamo.Table("").GlobalSecondaryIndexes {
			allow(fn, *s.table.TableArn()+"/index/"+*index.IndexName, "dynamodb:Query")
		}
	}
	for _, name := range f.May.Send {
		allow(fn, *s.queues[name].queue.QueueArn(), "sqs:SendMessage")
	}
	for _, name := range f.May.Redrive {
		// SQS moves in the name of whoever asked: who may not receive, delete and send may not have it done either.
		allow(fn, *s.queues[name].dead.QueueArn(), "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility", "sqs:DeleteMessage",
			"sqs:GetQueueAttributes", "sqs:StartMessageMoveTask", "sqs:ListMessageMoveTasks")
		allow(fn, *s.queues[name].queue.QueueArn(), "sqs:SendMessage", "sqs:GetQueueAttributes")
	}
	if f.May.Unseal {
		allow(fn, s.parameterARN(sealingKeyParameter), "ssm:GetParameter")
	}
	if f.May.Push {
		fn.AddEnvironment(str(config.SocketURLKey), s.sockets.CallbackUrl(), nil)
		allow(fn, *s.Stack.FormatArn(&awscdk.ArnComponents{
			Service: str("execute-api"), Resource: s.socketAPI.ApiId(), ResourceName: str(*s.sockets.StageName() + "/*/@connections/*"),
		}), "execute-api:ManageConnections")
	}
	if f.May.Think {
		s.addModels(fn)
	}
	if f.May.Call {
		s.addTools(fn)
	}
}

// addModels hands on the settings of models from the environment of whoever deploys. Keys are not handed on: the function
// is told the name of the SecureString that infra/cdk/deploy keeps the key in.
func (s *stack) addModels(fn awslambda.Function) {
	var names []string
	llm.FromEnv(func(name string) string {
		names = append(names, name)
		return ""
	})
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		value := s.Getenv(name)
		switch {
		case value == "":
		case strings.HasSuffix(name, "_API_KEY"):
			fn.AddEnvironment(str(name), str("ssm:"+modelKeys+name), nil)
			allow(fn, s.parameterARN(modelKeys+name), "ssm:GetParameter")
		default:
			fn.AddEnvironment(str(name), str(value), nil)
		}
	}
}

// addTools lets the function call the functions of `lambda` tools, and no others.
func (s *stack) addTools(fn awslambda.Function) {
	tools := s.Getenv(config.ToolFunctionsKey)
	if tools == "" {
		return
	}
	fn.AddEnvironment(str(config.ToolFunctionsKey), str(tools), nil)
	for name := range strings.SplitSeq(tools, ",") {
		if name = strings.TrimSpace(name); strings.Trim(name, letters) != "" || name == "" {
			panic(fmt.Sprintf("%s: %q is not the name of a Lambda function", config.ToolFunctionsKey, name))
		}
		allow(fn, s.functionARN(name), "lambda:InvokeFunction")
	}
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// addTick adds the clock of a function. A lost tick is not repeated: the next one does its work.
func (s *stack) addTick(f infra.Function, fn awslambda.Function) {
	fn.ConfigureAsyncInvoke(&awslambda.EventInvokeConfigOptions{RetryAttempts: jsii.Number(0)})
	awsevents.NewRule(s.Stack, str(f.Name+"-tick"), &awsevents.RuleProps{
		Description: str(f.Does),
		Schedule:    awsevents.Schedule_Rate(duration(f.Every)),
		Targets: &[]awsevents.IRuleTarget{
			awseventstargets.NewLambdaFunction(fn, &awseventstargets.LambdaFunctionProps{RetryAttempts: jsii.Number(0)}),
		},
	})
	fn.MetricErrors(&awscloudwatch.MetricOptions{Period: duration(5 * time.Minute), Statistic: str("Sum")}).
		CreateAlarm(s.Stack, str(f.Name+"-alarm"), &awscloudwatch.CreateAlarmOptions{
			AlarmDescription:   str("The " + f.Name + " keeps failing: what was lost on the way is not found again."),
			Threshold:          jsii.Number(3),
			ComparisonOperator: awscloudwatch.ComparisonOperator_GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
			EvaluationPeriods:  jsii.Number(1),
			TreatMissingData:   awscloudwatch.TreatMissingData_NOT_BREACHING,
		})
}

// addRoutes adds the HTTP API with the routes of the wires, and one for everything else.
func (s *stack) addRoutes() {
	integrations := map[string]awsapigatewayv2integrations.HttpLambdaIntegration{}
	serve := func(name string) awsapigatewayv2integrations.HttpLambdaIntegration {
		if s.functions[name] == nil {
			panic(fmt.Sprintf("a route names the function %q, which the manifest does not have", name))
		}
		if integrations[name] == nil {
			integrations[name] = awsapigatewayv2integrations.NewHttpLambdaIntegration(str(name), s.functions[name],
				&awsapigatewayv2integrations.HttpLambdaIntegrationProps{ScopePermissionToRoute: jsii.Bool(false)})
		}
		return integrations[name]
	}
	api := awsapigatewayv2.NewHttpApi(s.Stack, str("http"), &awsapigatewayv2.HttpApiProps{
		ApiName:            str("muster"),
		DefaultIntegration: serve(infra.Otherwise),
	})
	for _, route := range infra.Routes() {
		if route.Inside {
			continue
		}
		api.AddRoutes(&awsapigatewayv2.AddRoutesOptions{
			Path:        str(gatewayPath(route.Path)),
			Methods:     &[]awsapigatewayv2.HttpMethod{awsapigatewayv2.HttpMethod(route.Method)},
			Integration: serve(infra.Front(route.Function)),
		})
	}
	// Questions to people go out with links to this API.
	s.functions["dispatcher"].AddEnvironment(str(config.PublicURLKey), api.ApiEndpoint(), nil)
	s.functions[infra.Otherwise].AddEnvironment(str(config.StreamURLKey), s.streamURL, nil)
	awscdk.NewCfnOutput(s.Stack, str("TriggerFunction"), &awscdk.CfnOutputProps{
		Description: str("A schedule or a rule of EventBridge that starts runs targets this function."),
		Value:       s.functions["trigger"].FunctionArn(),
	})
	awscdk.NewCfnOutput(s.Stack, str("Url"), &awscdk.CfnOutputProps{
		Description: str("The base URL of this installation."),
		Value:       api.ApiEndpoint(),
	})
}

// gatewayPath spells a path pattern of net/http as API Gateway does.
func gatewayPath(pattern string) string {
	pattern = strings.TrimSuffix(pattern, "{$}")
	return strings.ReplaceAll(pattern, "...}", "+}")
}

// allow grants actions on one resource.
func allow(fn awslambda.Function, resource string, actions ...string) {
	fn.AddToRolePolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Actions:   jsii.Strings(actions...),
		Resources: jsii.Strings(resource),
	}))
}

// parameterARN names an SSM parameter by its path, which begins with a slash.
func (s *stack) parameterARN(path string) string {
	return *s.Stack.FormatArn(&awscdk.ArnComponents{Service: str("ssm"), Resource: str("parameter" + path), ArnFormat: awscdk.ArnFormat_NO_RESOURCE_NAME})
}

// functionARN names a Lambda function of this account that the stack does not make.
func (s *stack) functionARN(name string) string {
	return *s.Stack.FormatArn(&awscdk.ArnComponents{Service: str("lambda"), Resource: str("function"), ResourceName: str(name), ArnFormat: awscdk.ArnFormat_COLON_RESOURCE_NAME})
}

func str(s string) *string { return &s }

func duration(d time.Duration) awscdk.Duration {
	return awscdk.Duration_Seconds(jsii.Number(d.Seconds()))
}
