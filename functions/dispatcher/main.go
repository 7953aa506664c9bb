// Package main is the Lambda function "dispatcher": it tells receivers what happened.
package main

import (
	"muster/shared/app"
	"muster/shared/cloud"
	"muster/shared/invoke"
)

func main() {
	cloud.Start(cloud.OpenForSockets, func(b app.Backends) any {
		return invoke.Batch(app.New(b).Dispatcher, b.Deliveries)
	})
}
