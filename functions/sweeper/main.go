// Package main is the Lambda function "sweeper": once a minute, it looks after what is due.
package main

import (
	"muster/shared/app"
	"muster/shared/cloud"
	"muster/shared/invoke"
)

func main() {
	cloud.Start(cloud.OpenForSockets, func(b app.Backends) any {
		return invoke.Tick(app.New(b).Sweep)
	})
}
