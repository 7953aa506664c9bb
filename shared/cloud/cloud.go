// Package cloud opens the backends on AWS that the configuration names: DynamoDB for records, SQS for the queues, SSM for
// keys, Lambda for tools. Nothing is asked of AWS before it is needed, except for the API keys of models: a function that
// is told of one fetches it at its cold start.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"os"
	"strings"
	"time"

	lambdaruntime "github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"muster/shared/agentwire"
	"muster/shared/app"
	"muster/shared/config"
	"muster/shared/dynamo"
	"muster/shared/engine/llm"
	"muster/shared/engine/tool"
	"muster/shared/guard"
	"muster/shared/lambdatool"
	"muster/shared/push"
	"muster/shared/run"
	"muster/shared/sqs"
	"muster/shared/sweep"
	"muster/shared/workspace"
)

// Start is the main of a Lambda function. It reads the configuration, opens the backends (by Open, or by one that opens more),
// and serves what is made of them: a handler as lambda.Start takes it. What is missing ends the process with a sentence in
// the log.
func Start(open func(context.Context, config.Config) (app.Backends, error), handler func(app.Backends) any) {
	slog.SetDefault(lambdacontext.NewLogger())
	settings, err := config.Read()
	if err != nil {
		log.Fatal(err)
	}
	backends, err := open(context.Background(), settings)
	if err != nil {
		log.Fatal(err)
	}
	lambdaruntime.Start(handler(backends))
}

// indexLag is how far the indexes of the table may be behind; mostly it is much less.
const indexLag = 2 * time.Second

// Open gives the backends that every function needs. Region, credentials and endpoints are the SDK's to find, in the
// environment that Lambda gives or where a person's machine has them, but never by asking a metadata service, which costs
// a second where there is none.
func Open(ctx context.Context, c config.Config) (app.Backends, error) {
	b, _, err := open(ctx, c)
	return b, err
}

// OpenForRunner gives those of Open and what runs need: the API keys of models, and the functions of tools.
func OpenForRunner(ctx context.Context, c config.Config) (app.Backends, error) {
	b, sdk, err := open(ctx, c)
	if err != nil {
		return app.Backends{}, err
	}
	if b.Models, err = (parameters{ssm.NewFromConfig(sdk)}).models(ctx, c.Models); err != nil {
		return app.Backends{}, err
	}
	b.Functions, b.FunctionNames = lambdatool.New(lambda.NewFromConfig(sdk)), c.ToolFunctions
	return b, nil
}

// OpenForSockets gives the backends of Open, and what sends to the connections of the WebSocket API.
func OpenForSockets(ctx context.Context, c config.Config) (app.Backends, error) {
	b, sdk, err := open(ctx, c)
	if err != nil {
		return app.Backends{}, err
	}
	if c.SocketURL != "" {
		b.Push, b.Lag = push.New(sdk, c.SocketURL), indexLag
	}
	return b, nil
}

// Functions calls Lambda functions from a machine of one's own: those of AWS, or of whatever AWS_ENDPOINT_URL_LAMBDA names,
// which may not care for a region and credentials.
func Functions(ctx context.Context) (tool.Invoker, error) {
	sdk, err := load(ctx)
	if err != nil {
		return nil, err
	}
	if sdk.Region == "" {
		sdk.Region = "us-east-1"
	}
	if _, err := sdk.Credentials.Retrieve(ctx); err != nil {
		sdk.Credentials = credentials.NewStaticCredentialsProvider("local", "local", "")
	}
	return lambdatool.New(lambda.NewFromConfig(sdk)), nil
}

func load(ctx context.Context) (aws.Config, error) {
	sdk, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	if err != nil {
		return sdk, fmt.Errorf("configure the AWS SDK: %w", err)
	}
	return sdk, nil
}

func open(ctx context.Context, c config.Config) (app.Backends, aws.Config, error) {
	sdk, err := load(ctx)
	if err != nil {
		return app.Backends{}, sdk, err
	}
	queues := awssqs.NewFromConfig(sdk)
	return app.Backends{
		Records:    dynamo.New(dynamodb.NewFromConfig(sdk), c.Table),
		Runs:       sqs.New(queues, c.Runs.URL, c.Runs.DeadURL),
		Deliveries: sqs.New(queues, c.Deliveries.URL, c.Deliveries.DeadURL),
		Callers:    c.Callers,
		Sealer:     parameters{ssm.NewFromConfig(sdk)}.sealer(c),
		Models:     c.Models,
		Traffic:    c.Traffic,
		Guard:      guard.Options{Allow: c.PrivateNetworks},
		PublicURL:  c.PublicURL,
		StreamURL:  c.StreamURL,
		Agents: agentwire.Needs{
			Orchestrator: c.Orchestrator != "", ContainerProvider: c.ContainerProvider != "", LogWriter: c.LogWriter != "", InternalToken: c.InternalToken,
		},
		Lease:  c.Lease,
		Report: sweep.EMF[run.Finding](os.Stdout, time.Now), // what Lambda writes to the log, CloudWatch makes metrics of
		Count:  sweep.EMF[string](os.Stdout, time.Now),
	}, sdk, nil
}

// parameters reads SecureStrings.
type parameters struct{ client *ssm.Client }

func (p parameters) read(ctx context.Context, name string) (string, error) {
	out, err := p.client.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String(name), WithDecryption: aws.Bool(true)})
	if err != nil {
		return "", fmt.Errorf("read the SSM parameter %s: %w", name, err)
	}
	if out.Parameter == nil || aws.ToString(out.Parameter.Value) == "" {
		return "", fmt.Errorf("read the SSM parameter %s: %w", name, errEmpty)
	}
	return *out.Parameter.Value, nil
}

var errEmpty = errors.New("it is empty")

func (p parameters) sealer(c config.Config) *workspace.Sealer {
	return workspace.FetchKeys(func(ctx context.Context) (string, error) {
		if c.SealingKeys != "" {
			return c.SealingKeys, nil
		}
		return p.read(ctx, c.SealingKeyParameter)
	})
}

// models puts in the API keys that the settings only name.
func (p parameters) models(ctx context.Context, s llm.Settings) (llm.Settings, error) {
	s.Providers = maps.Clone(s.Providers)
	for prefix, access := range s.Providers {
		name, named := strings.CutPrefix(access.APIKey, "ssm:")
		if !named {
			continue
		}
		key, err := p.read(ctx, name)
		if err != nil {
			return llm.Settings{}, fmt.Errorf("get the API key of %s: %w", prefix, err)
		}
		access.APIKey = key
		s.Providers[prefix] = access
	}
	return s, nil
}
