// Package main is the Lambda function "runner": it executes crews.
package main

import (
	"context"
	"log"
	"log/slog"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"muster/shared/app"
	"muster/shared/cloud"
	"muster/shared/config"
	"muster/shared/engine/llm/openai"
	"muster/shared/invoke"
)

func main() {
	slog.SetDefault(lambdacontext.NewLogger())
	settings, err := config.Read()
	if err != nil {
		log.Fatal(err)
	}
	backends, err := cloud.OpenForRunner(context.Background(), settings)
	if err != nil {
		log.Fatal(err)
	}
	backends.OpenAI = openai.New
	lambda.Start(invoke.Batch(app.New(backends).Runner, backends.Runs))
}
