// Package main is the Lambda function "socket": it hears the connections of the WebSocket API.
package main

import (
	"muster/shared/app"
	"muster/shared/cloud"
	"muster/shared/invoke"
)

func main() {
	cloud.Start(cloud.OpenForSockets, func(b app.Backends) any {
		return invoke.Socket(app.New(b).Socket())
	})
}
