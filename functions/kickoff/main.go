// Package main is the Lambda function "kickoff": it starts runs.
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
	lambda.Start(invoke.HTTP(app.New(backends).Kickoff()))
}
