// Package main is the Lambda function "runner": it executes crews.
package main

import (
	"muster/shared/app"
	"muster/shared/cloud"
	"muster/shared/engine/llm/openai"
	"muster/shared/invoke"
)

func main() {
	cloud.Start(cloud.OpenForRunner, func(b app.Backends) any {
		b.OpenAI = openai.New
		return invoke.Batch(app.New(b).Runner, b.Runs)
	})
}
