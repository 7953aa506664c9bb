// Package main is the Lambda function "sweeper": once a minute, it looks after what is due.
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
	backends, err := cloud.OpenForSockets(context.Background(), settings)
	if err != nil {
		log.Fatal(err)
	}
	lambda.Start(invoke.Tick(app.New(backends).Sweep))
}
