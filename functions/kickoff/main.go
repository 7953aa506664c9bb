// Package main is the Lambda function "kickoff": it starts runs.
package main

import (
	"muster/shared/app"
	"muster/shared/cloud"
	"muster/shared/invoke"
)

func main() {
	cloud.Start(cloud.Open, func(b app.Backends) any {
		return invoke.HTTP(app.New(b).Kickoff())
	})
}
