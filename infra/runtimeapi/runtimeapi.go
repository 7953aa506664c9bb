// Package runtimeapi runs deployable bootstraps as Lambda does, for tests: it starts the binary, serves it the Lambda
// Runtime API, hands it one invocation at a time, starts another process when all are busy, and kills one that misses its
// deadline. What calls the functions (routes, queues, the clock) is infra/host.
package runtimeapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"
)

// version begins every path of the Runtime API.
const version = "/2018-06-01/runtime/"

// patience is how long Lambda lets a process initialise before it gives up.
const patience = 10 * time.Second

// Function is one function: a bootstrap and its processes.
type Function struct {
	Name string
	// Bootstrap is the path of the binary.
	Bootstrap string
	// Env is the whole environment of a process, as "KEY=value", without AWS_LAMBDA_RUNTIME_API.
	Env []string
	// Own gives what the n-th process has in its environment beside Env; nil is nothing.
	Own func(n int) []string
	// Output takes what the processes print.
	Output io.Writer

	mu      sync.Mutex
	idle    []*process
	all     map[*process]bool
	started int
	closed  bool
}

// Process is a process of a function, for those who do something to it by a signal. N counts them from 1; Idle says that
// it waits for work.
type Process struct {
	N, PID int
	Idle   bool
}

// Processes gives the processes that are alive, in the order in which they were started.
func (f *Function) Processes() []Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	var alive []Process
	for p := range f.all {
		select {
		case <-p.gone:
			delete(f.all, p)
		default:
			alive = append(alive, Process{p.n, p.command.Process.Pid, slices.Contains(f.idle, p)})
		}
	}
	slices.SortFunc(alive, func(a, b Process) int { return a.N - b.N })
	return alive
}

// Invoke hands an event to a process that is idle, or to a new one, and gives its answer. ctx must have the deadline of
// the function; a process that misses it is killed. Otherwise ctx may end: what began goes on, as on Lambda.
func (f *Function) Invoke(ctx context.Context, event []byte) ([]byte, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, errors.New("an invocation needs a deadline")
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	work := invocation{id: uuid.NewString(), deadline: deadline, event: event, answer: make(chan answer, 1)}
	p, err := f.hand(ctx, work)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	select {
	case a := <-work.answer:
		f.put(p)
		return a.payload, a.err
	case <-p.gone:
		select {
		case a := <-work.answer: // it said how it went, and then ended: what Go does after a panic
			return a.payload, a.err
		default:
			return nil, fmt.Errorf("%s: the process ended during an invocation: %w", f.Name, p.err)
		}
	case <-ctx.Done():
		p.kill()
		return nil, fmt.Errorf("%s: timed out, and was killed", f.Name)
	}
}

// Stream is Invoke for a function whose answer streams: it comes back when the answer has begun. Whoever closes the body
// early does not end the invocation, as on Lambda.
func (f *Function) Stream(ctx context.Context, event []byte) (*events.LambdaFunctionURLStreamingResponse, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, errors.New("an invocation needs a deadline")
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	out, in := io.Pipe()
	work := invocation{id: uuid.NewString(), deadline: deadline, event: event, answer: make(chan answer, 1), stream: in}
	p, err := f.hand(ctx, work)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	go func() {
		defer cancel()
		select {
		case a := <-work.answer:
			f.put(p)
			in.CloseWithError(a.err) // nil is the end
		case <-p.gone:
			in.CloseWithError(fmt.Errorf("%s: the process ended during an invocation: %w", f.Name, p.err))
		case <-ctx.Done():
			p.kill()
			in.CloseWithError(fmt.Errorf("%s: timed out, and was killed", f.Name))
		}
	}()
	return begun(out)
}

// begun reads the beginning of a streamed answer: status and headers in JSON, and eight zeros.
func begun(out *io.PipeReader) (*events.LambdaFunctionURLStreamingResponse, error) {
	rest := bufio.NewReader(out)
	var prelude []byte
	for !bytes.HasSuffix(prelude, make([]byte, 8)) {
		b, err := rest.ReadByte()
		if err != nil {
			return nil, fmt.Errorf("read the beginning of a streamed answer: %w", err)
		}
		prelude = append(prelude, b)
	}
	var a struct {
		StatusCode int               `json:"statusCode"`
		Headers    map[string]string `json:"headers"`
		Cookies    []string          `json:"cookies"`
	}
	if err := json.Unmarshal(bytes.TrimRight(prelude, "\x00"), &a); err != nil {
		return nil, fmt.Errorf("read the beginning of a streamed answer: %w", err)
	}
	return &events.LambdaFunctionURLStreamingResponse{StatusCode: a.StatusCode, Headers: a.Headers, Cookies: a.Cookies, Body: struct {
		io.Reader
		io.Closer
	}{rest, out}}, nil
}

// Start starts a process, waits until it asks for work, and gives the time that took: what Lambda calls its init.
func (f *Function) Start() (time.Duration, error) {
	began := time.Now()
	f.mu.Lock()
	p, err := f.add()
	f.mu.Unlock()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", f.Name, err)
	}
	initialised := time.NewTimer(patience)
	defer initialised.Stop()
	select {
	case <-p.ready:
		took := time.Since(began)
		f.put(p)
		return took, nil
	case <-p.gone:
		return 0, fmt.Errorf("%s: the process ended before it asked for work: %w", f.Name, p.err)
	case <-initialised.C:
		p.kill()
		return 0, fmt.Errorf("%s: the process asked for no work within %s", f.Name, patience)
	}
}

// hand gives the work to a process. An idle one may have ended in the meantime, as after a panic; then another is asked.
func (f *Function) hand(ctx context.Context, work invocation) (*process, error) {
	for {
		p, fresh, err := f.take()
		if err != nil {
			return nil, err
		}
		initialised := time.NewTimer(patience)
		defer initialised.Stop()
		select {
		case p.work <- work:
			return p, nil
		case <-p.gone:
			if fresh {
				return nil, fmt.Errorf("the process ended before it asked for work: %w", p.err)
			}
		case <-initialised.C:
			p.kill()
			return nil, fmt.Errorf("the process asked for no work within %s", patience)
		case <-ctx.Done():
			p.kill()
			return nil, errors.New("timed out before the process asked for work")
		}
	}
}

// Kill ends every process at once, in the middle of whatever it does. The next invocation starts a new one.
func (f *Function) Kill() {
	f.mu.Lock()
	all := f.all
	f.all, f.idle = nil, nil
	f.mu.Unlock()
	for p := range all {
		p.kill()
	}
}

// Close kills every process and starts none any more.
func (f *Function) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.Kill()
}

// take gives an idle process, or a fresh one.
func (f *Function) take() (p *process, fresh bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last := len(f.idle) - 1; last >= 0 {
		p, f.idle = f.idle[last], f.idle[:last]
		return p, false, nil
	}
	p, err = f.add()
	return p, true, err
}

// add starts a process. The caller holds the lock.
func (f *Function) add() (*process, error) {
	if f.closed {
		return nil, errors.New("closed")
	}
	p, err := f.start()
	if err != nil {
		return nil, err
	}
	if f.all == nil {
		f.all = map[*process]bool{}
	}
	f.all[p] = true
	return p, nil
}

func (f *Function) put(p *process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[p] {
		f.idle = append(f.idle, p)
	}
}

// process is one execution environment: a process and the Runtime API that it alone is served.
type process struct {
	function string
	n        int
	work     chan invocation
	// ready is closed when the process asks for work for the first time.
	ready chan struct{}
	asked sync.Once
	// gone is closed when the process has ended; err is set before.
	gone chan struct{}
	err  error

	command *exec.Cmd
	server  *http.Server

	mu      sync.Mutex
	current invocation
}

type invocation struct {
	id       string
	deadline time.Time
	event    []byte
	answer   chan answer
	// stream takes a streamed answer as it comes; nil for a caller who wants it whole.
	stream *io.PipeWriter
}

type answer struct {
	payload []byte
	err     error
}

func (f *Function) start() (*process, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve the Runtime API: %w", err)
	}
	f.started++
	p := &process{function: f.Name, n: f.started, work: make(chan invocation), ready: make(chan struct{}), gone: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+version+"invocation/next", p.next)
	mux.HandleFunc("POST "+version+"invocation/{id}/response", p.response)
	mux.HandleFunc("POST "+version+"invocation/{id}/error", p.failure)
	mux.HandleFunc("POST "+version+"init/error", p.initFailure)
	p.server = &http.Server{Handler: mux}
	go p.server.Serve(listener)

	p.command = exec.Command(f.Bootstrap)
	p.command.Env = append([]string{"AWS_LAMBDA_RUNTIME_API=" + listener.Addr().String()}, f.Env...)
	if f.Own != nil {
		p.command.Env = append(p.command.Env, f.Own(p.n)...)
	}
	p.command.Stdout, p.command.Stderr = f.Output, f.Output
	if err := p.command.Start(); err != nil {
		p.server.Close()
		return nil, fmt.Errorf("start the bootstrap: %w", err)
	}
	go func() {
		err := p.command.Wait()
		p.server.Close()
		if err == nil {
			err = errors.New("it exited by itself")
		}
		p.err = err
		close(p.gone)
	}()
	return p, nil
}

// kill ends the process and waits until it is gone.
func (p *process) kill() {
	p.command.Process.Kill()
	<-p.gone
}

// next waits for work and gives it to the process.
func (p *process) next(w http.ResponseWriter, r *http.Request) {
	p.asked.Do(func() { close(p.ready) })
	var work invocation
	select {
	case work = <-p.work:
	case <-r.Context().Done():
		return
	}
	p.mu.Lock()
	p.current = work
	p.mu.Unlock()
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Lambda-Runtime-Aws-Request-Id", work.id)
	h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(work.deadline.UnixMilli(), 10))
	h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:"+p.function)
	h.Set("Lambda-Runtime-Trace-Id", "Root=1-00000000-000000000000000000000000;Sampled=0")
	w.Write(work.event)
}

func (p *process) response(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	stream := p.current.stream
	p.mu.Unlock()
	if stream != nil {
		// When nobody reads any more, settle takes the rest.
		_, _ = io.Copy(stream, r.Body)
	}
	p.settle(w, r, func(body []byte) answer {
		if broken := r.Trailer.Get("Lambda-Runtime-Function-Error-Type"); broken != "" {
			return answer{err: fmt.Errorf("%s broke off: %s", p.function, broken)}
		}
		return answer{payload: body}
	})
}

func (p *process) failure(w http.ResponseWriter, r *http.Request) {
	p.settle(w, r, func(body []byte) answer { return answer{err: describe(p.function, body)} })
}

// settle passes on what became of the current invocation, once.
func (p *process) settle(w http.ResponseWriter, r *http.Request, outcome func(body []byte) answer) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	work := p.current
	p.current = invocation{}
	p.mu.Unlock()
	if work.id != r.PathValue("id") {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	work.answer <- outcome(body)
	w.WriteHeader(http.StatusAccepted)
}

func (p *process) initFailure(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.WriteHeader(http.StatusAccepted)
}

// describe makes an error of what a function reports of itself.
func describe(function string, body []byte) error {
	var reported struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(body), &reported); err != nil || reported.Message == "" {
		return fmt.Errorf("%s failed and said %q", function, body)
	}
	return fmt.Errorf("%s failed: %s: %s", function, reported.Type, reported.Message)
}
