// Package main is the Lambda function "trigger": it takes what starts runs from outside, and answers once they run.
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
	"muster/shared/invoke"
	"muster/shared/trigger/cel"
)

func main() {
	slog.SetDefault(lambdacontext.NewLogger())
	settings, err := config.Read()
	if err != nil {
		log.Fatal(err)
	}
	backends, err := cloud.Open(context.Background(), settings)
	if err != nil {
		log.Fatal(err)
	}
	backends.Rules = &cel.Rules{}
	a := app.New(backends)
	lambda.Start(invoke.HTTPOr(a.Trigger(), a.Direct))
}
