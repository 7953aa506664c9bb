// Package main is the Lambda function "api": it answers everything over HTTP that does not start a run.
package main

import (
	"muster/shared/app"
	"muster/shared/cloud"
	"muster/shared/invoke"
	"muster/shared/trigger/cel"
)

func main() {
	cloud.Start(cloud.Open, func(b app.Backends) any {
		b.Rules = &cel.Rules{}
		return invoke.HTTP(app.New(b).HTTP())
	})
}
