package emulator

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

var dynoxide = server{
	name: "DynamoDB (dynoxide)",
	install: func() (func(string) []string, error) {
		arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
		module := "@dynoxide/" + runtime.GOOS + "-" + arch
		dir, err := installed("dynoxide-1.2.1", func(dir string) error {
			return run(dir, "npm", "install", "--prefix", dir, "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", module+"@1.2.1")
		})
		return func(port string) []string {
			return []string{filepath.Join(dir, "node_modules", module, "dynoxide"), "--port", port}
		}, err
	},
	health: "/",
}

var dynamoDBLocal = server{
	name: "DynamoDB Local",
	install: func() (func(string) []string, error) {
		dir, err := maven("com.amazonaws", "DynamoDBLocal", "2.6.1")
		return func(port string) []string {
			return []string{
				"java", "-Djava.library.path=" + dir, "-cp", filepath.Join(dir, "*"),
				"com.amazonaws.services.dynamodbv2.local.main.ServerRunner", "-inMemory", "-disableTelemetry", "-port", port,
			}
		}, err
	},
	health: "/",
}

var elasticMQ = server{
	name: "SQS (ElasticMQ)",
	install: func() (func(string) []string, error) {
		dir, err := maven("org.elasticmq", "elasticmq-server_2.13", "1.7.1")
		return func(port string) []string {
			return []string{
				"java", "-Drest-sqs.bind-hostname=127.0.0.1", "-Drest-sqs.bind-port=" + port, "-Drest-stats.enabled=false",
				"-Dnode-address.host=127.0.0.1", "-Dnode-address.port=" + port, "-cp", filepath.Join(dir, "*"), "org.elasticmq.server.Main",
			}
		}, err
	},
	health: "/health",
}

// errMissing is a tool that is not there or could not fetch what it was asked for.
var errMissing = errors.New("missing")

func isMissing(err error) bool { return errors.Is(err, errMissing) }

// maven installs the jar and all it needs into one folder.
func maven(group, artifact, version string) (dir string, err error) {
	if _, err := exec.LookPath("java"); err != nil {
		return "", fmt.Errorf("%w: %w", errMissing, err)
	}
	return installed(artifact+"-"+version, func(dir string) error {
		pom := filepath.Join(dir, "pom.xml")
		text := fmt.Sprintf(`<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>muster</groupId><artifactId>emulator</artifactId><version>1</version>
  <dependencies><dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency></dependencies>
</project>`, group, artifact, version)
		if err := os.WriteFile(pom, []byte(text), 0o644); err != nil {
			return err
		}
		return run(dir, "mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DoutputDirectory="+dir)
	})
}

// installed gives the folder in the cache, and fills it if it is not there. A folder is either whole or absent, and test
// binaries that run side by side install one after the other.
func installed(name string, fill func(dir string) error) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "muster", "emulators")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	temp, err := os.MkdirTemp(cache, name+"-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	if err := fill(temp); err != nil {
		return "", err
	}
	return dir, os.Rename(temp, dir)
}

func run(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s: %w\n%s", errMissing, name, err, out)
	}
	return nil
}
