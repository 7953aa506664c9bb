package runtimeapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"muster/infra/runtimeapi"
)

// asBootstrap, when set, makes this test binary a bootstrap.
const asBootstrap = "MUSTER_TEST_BOOTSTRAP"

func TestMain(m *testing.M) {
	switch os.Getenv(asBootstrap) {
	case "":
		os.Exit(m.Run())
	case "broken":
		os.Exit(3)
	case "streaming":
		lambda.Start(stream)
	default:
		lambda.Start(handle)
	}
}

// handle does what the event says, and tells who did it.
func handle(ctx context.Context, event string) (string, error) {
	lc, ok := lambdacontext.FromContext(ctx)
	if !ok || lc.AwsRequestID == "" || !strings.HasSuffix(lc.InvokedFunctionArn, ":function:test") {
		return "", fmt.Errorf("the context of the invocation is %+v", lc)
	}
	switch event {
	case "fail":
		return "", errors.New("as asked")
	case "panic":
		panic("as asked")
	case "exit":
		os.Exit(7)
	case "hang":
		select {} // takes no notice of its deadline
	case "number":
		return os.Getenv("MUSTER_TEST_NUMBER"), nil
	case "meet":
		// Two invocations at the same time in two processes: each waits for a file of the other.
		return fmt.Sprint(os.Getpid()), meet()
	}
	return fmt.Sprint(os.Getpid()), nil
}

// stream writes a piece, and another when the test has made a file; then it breaks off if the event says so.
func stream(_ context.Context, event string) (*events.LambdaFunctionURLStreamingResponse, error) {
	if event == "fail" {
		return nil, errors.New("as asked")
	}
	out, in := io.Pipe()
	go func() {
		fmt.Fprint(in, "one")
		for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
			if _, err := os.Stat(os.Getenv("MEET")); err == nil {
				break
			}
		}
		fmt.Fprint(in, "two")
		if event == "break" {
			in.CloseWithError(errors.New("as asked"))
		}
		in.Close()
	}()
	return &events.LambdaFunctionURLStreamingResponse{StatusCode: 201, Headers: map[string]string{"A": "b"}, Body: out}, nil
}

func TestAStreamIsReadWhileItIsWritten(t *testing.T) {
	for _, test := range []struct{ event, error string }{{"whole", ""}, {"break", "broke off"}} {
		t.Run(test.event, func(t *testing.T) {
			gate := filepath.Join(t.TempDir(), "gate")
			f := function(t, asBootstrap+"=streaming", "MEET="+gate)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := f.Stream(ctx, []byte(`"fail"`)); err == nil || !strings.Contains(err.Error(), "as asked") {
				t.Errorf("a function that fails gives %v", err)
			}
			answer, err := f.Stream(ctx, []byte(`"`+test.event+`"`))
			if err != nil {
				t.Fatal(err)
			}
			piece := make([]byte, 10)
			n, err := answer.Body.Read(piece)
			if err != nil || answer.StatusCode != 201 || answer.Headers["A"] != "b" || string(piece[:n]) != "one" {
				t.Fatalf("the beginning is %+v, %q, %v", answer, piece[:n], err)
			}
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(answer.Body)
			if string(rest) != "two" || (err == nil) != (test.error == "") || err != nil && !strings.Contains(err.Error(), test.error) {
				t.Errorf("the rest is %q, %v", rest, err)
			}
		})
	}
}

func meet() error {
	dir := os.Getenv("MEET")
	mine := fmt.Sprint(dir, "/", os.Getpid())
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		return err
	}
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		if there, err := os.ReadDir(dir); err != nil || len(there) == 2 {
			return err
		}
	}
}

// function is one whose bootstrap is this test binary.
func function(t *testing.T, env ...string) *runtimeapi.Function {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := &runtimeapi.Function{Name: "test", Bootstrap: binary, Env: append([]string{asBootstrap + "=yes"}, env...), Output: t.Output()}
	t.Cleanup(f.Close)
	return f
}

func invoke(t *testing.T, f *runtimeapi.Function, event string, timeout time.Duration) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	out, err := f.Invoke(ctx, []byte(`"`+event+`"`))
	return string(out), err
}

func TestInvocations(t *testing.T) {
	const long = time.Minute
	tests := []struct {
		name   string
		event  string
		error  string
		kept   bool // the process answers the next invocation too
		timely time.Duration
	}{
		{name: "an answer comes back, and the process waits for more", event: "say", kept: true, timely: long},
		{name: "an error comes back, and the process waits for more", event: "fail", error: "as asked", kept: true, timely: long},
		{name: "a panic comes back, and another process takes over", event: "panic", error: "as asked", timely: long},
		{name: "a process that ends is an error, and another takes over", event: "exit", error: "exit status 7", timely: long},
		{name: "a process that misses its deadline is killed, and another takes over", event: "hang", error: "timed out", timely: 300 * time.Millisecond},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := function(t)
			before, err := invoke(t, f, "say", long)
			if err != nil {
				t.Fatal(err)
			}
			_, err = invoke(t, f, test.event, test.timely)
			if test.error == "" && err != nil || test.error != "" && (err == nil || !strings.Contains(err.Error(), test.error)) {
				t.Errorf("got the error %v, want %q", err, test.error)
			}
			after, err := invoke(t, f, "say", long)
			if err != nil {
				t.Fatal(err)
			}
			if kept := before == after; kept != test.kept {
				t.Errorf("process %s, then %s; want the same one: %v", before, after, test.kept)
			}
		})
	}
}

func TestTwoInvocationsHaveTwoProcesses(t *testing.T) {
	f := function(t, "MEET="+t.TempDir())
	var answers [2]string
	var both sync.WaitGroup
	for i := range answers {
		both.Go(func() {
			var err error
			if answers[i], err = invoke(t, f, "meet", time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if answers[0] == answers[1] {
		t.Errorf("process %s did both", answers[0])
	}
}

func TestKillEndsAnInvocationAndTheNextOneIsServed(t *testing.T) {
	f := function(t)
	first, err := invoke(t, f, "say", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := invoke(t, f, "hang", time.Minute)
		ended <- err
	}()
	for killed := false; !killed; {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a killed invocation answered")
			}
			killed = true
		default:
			f.Kill() // until it has met the invocation
		}
	}
	second, err := invoke(t, f, "say", time.Minute)
	if err != nil || first == second {
		t.Errorf("got process %s and then %s, %v; want another one", first, second, err)
	}
}

func TestProcessesAreCountedAndTheDeadAreNotThere(t *testing.T) {
	f := function(t)
	f.Own = func(n int) []string { return []string{fmt.Sprint("MUSTER_TEST_NUMBER=", n)} }
	for n := 1; n <= 2; n++ {
		if _, err := invoke(t, f, "say", time.Minute); err != nil {
			t.Fatal(err)
		}
		if there := f.Processes(); len(there) != 1 || there[0].N != n || there[0].PID == 0 || !there[0].Idle {
			t.Errorf("got the processes %v, want number %d", there, n)
		}
		if got, err := invoke(t, f, "number", time.Minute); err != nil || got != fmt.Sprintf(`"%d"`, n) {
			t.Errorf("process %d has %s of its own, %v", n, got, err)
		}
		if _, err := invoke(t, f, "exit", time.Minute); err == nil {
			t.Error("it did not exit")
		}
		if there := f.Processes(); len(there) != 0 {
			t.Errorf("got the processes %v, want none", there)
		}
	}
}

func TestABootstrapThatDoesNotStartIsAnError(t *testing.T) {
	f := function(t)
	f.Env = []string{asBootstrap + "=broken"}
	if _, err := invoke(t, f, "say", time.Minute); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v, want that the process ended with status 3", err)
	}
}

func TestAStartedProcessServesTheNextInvocation(t *testing.T) {
	f := function(t)
	if took, err := f.Start(); err != nil || took <= 0 {
		t.Fatalf("got %s, %v", took, err)
	}
	first, err := invoke(t, f, "say", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := invoke(t, f, "say", time.Minute); err != nil || first != second {
		t.Errorf("got process %s and then %s, %v; want the started one", first, second, err)
	}

	f.Env = []string{asBootstrap + "=broken"}
	if _, err := f.Start(); err == nil {
		t.Error("a broken bootstrap started")
	}
}

func TestClosedMeansNoMoreProcesses(t *testing.T) {
	f := function(t)
	f.Close()
	if out, err := invoke(t, f, "say", time.Minute); err == nil {
		t.Errorf("got %s from a closed function", out)
	}
}
