// Package main is the Lambda function "trigger": it takes what starts runs from outside, and answers once they run.
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
		a := app.New(b)
		return invoke.HTTPOr(a.Trigger(), a.Direct)
	})
}
