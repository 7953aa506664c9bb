// Package emulator gives tests real servers that speak the protocols of AWS. Only tests import it.
//
// DynamoDB is dynoxide, a static binary, with DynamoDB Local as second opinion; SQS is ElasticMQ. Each is installed once
// by the ordinary client of its registry (npm, mvn), at the version below, into the user's cache folder; it is started
// once for each test binary, on a free port of the loopback interface, and dies with it.
//
// Tests that use them run when MUSTER_EMULATORS is set, as `make emulators` and `make test` do, so that `go test ./...`
// stays quick and offline. A tool that is missing skips the test with one line; where CI is set it fails it.
package emulator

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// DynamoDB gives the endpoint of dynoxide.
func DynamoDB(t testing.TB) string {
	t.Helper()
	return dynoxide.endpoint(t)
}

// DynamoDBLocal gives the endpoint of Amazon's own emulator.
func DynamoDBLocal(t testing.TB) string {
	t.Helper()
	return dynamoDBLocal.endpoint(t)
}

// SQS gives the endpoint of ElasticMQ.
func SQS(t testing.TB) string {
	t.Helper()
	return elasticMQ.endpoint(t)
}

// Config is the configuration of an AWS client that talks to an endpoint.
func Config(endpoint string) aws.Config {
	return aws.Config{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider("test", "test", ""),
	}
}

// server is one program, started at most once.
type server struct {
	name string
	// install gives the command that serves on a port, after it made sure that the program is there.
	install func() (serve func(port string) []string, err error)
	// health is the path that answers, with whatever status, when the server is ready.
	health string

	once sync.Once
	url  string
	err  error
	out  tail
	// held is the standard input of the program; were it forgotten, the collector would close it.
	held io.Closer
}

func (s *server) endpoint(t testing.TB) string {
	t.Helper()
	if os.Getenv("MUSTER_EMULATORS") == "" {
		t.Skip("needs emulators: `make emulators` runs it")
	}
	s.once.Do(func() { s.url, s.err = s.start() })
	if s.err == nil {
		return s.url
	}
	if os.Getenv("CI") != "" || !isMissing(s.err) {
		t.Fatalf("%s: %v", s.name, s.err)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s cannot be had on this machine: %v", s.name, s.err)
	return ""
}

// untilParentDies runs a command for as long as its own standard input is open, which ends with the process that holds the
// other end, however that process ends.
const untilParentDies = `"$@" </dev/null & child=$!; trap 'kill -9 $child' EXIT; cat >/dev/null`

func (s *server) start() (string, error) {
	serve, err := s.install()
	if err != nil {
		return "", err
	}
	port, err := freePort()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("sh", append([]string{"-c", untilParentDies, "sh"}, serve(port)...)...)
	cmd.Stdout, cmd.Stderr = &s.out, &s.out
	if s.held, err = cmd.StdinPipe(); err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	url := "http://127.0.0.1:" + port
	if err := waitFor(url + s.health); err != nil {
		return "", fmt.Errorf("it did not start: %w\n%s", err, s.out.String())
	}
	return url, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// patience is how long a server may take to start.
var patience = time.Minute

func waitFor(url string) error {
	client := &http.Client{Timeout: time.Second}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		var res *http.Response
		if res, err = client.Get(url); err == nil {
			io.Copy(io.Discard, res.Body)
			return res.Body.Close()
		}
	}
	return err
}

// tail keeps the end of what a server said.
type tail struct {
	mu   sync.Mutex
	said []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.said = append(t.said, p...)
	if over := len(t.said) - 8<<10; over > 0 {
		t.said = bytes.Clone(t.said[over:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.said))
}
