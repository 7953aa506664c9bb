// Package main is the Lambda function "stream": it shows runs to those who watch them.
package main

import (
	"muster/shared/app"
	"muster/shared/cloud"
	"muster/shared/invoke"
)

func main() {
	cloud.Start(cloud.Open, func(b app.Backends) any {
		return invoke.Stream(app.New(b).Stream()).Answer
	})
}
