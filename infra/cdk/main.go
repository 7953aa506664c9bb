// Package main turns infra's manifest into CloudFormation, by the AWS CDK. It is the only importer of the CDK, and the
// everyday make targets leave it out.
//
// It is run by `make synth` without the CDK's command line, or by the command line itself (cdk.json). Either way it wants
// the functions built (dist/<function>/bootstrap) and Node present. What depends on the installation is read when the
// template is deployed, from SSM parameters that `make deploy` has put there (see the names in stack.go), so the template
// holds no token, hash or key; of the environment it takes the names of `lambda` tools' functions and the settings of models.
package main

import (
	"os"

	"github.com/aws/jsii-runtime-go"
)

func main() {
	defer jsii.Close()
	synth(setting{Dist: "dist", Getenv: os.Getenv})
}
