package emulator

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be a server that is started, and the process that starts it.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		fmt.Println(http.ListenAndServe("127.0.0.1:"+os.Args[2], http.NotFoundHandler()))
		os.Exit(1)
	case len(os.Args) == 2 && os.Args[1] == "start":
		s := server{health: "/", install: func() (func(string) []string, error) {
			return func(port string) []string { return []string{os.Args[0], "serve", port} }, nil
		}}
		fmt.Println(s.start())
		select {}
	}
	os.Exit(m.Run())
}

func TestAServerDiesWithTheProcessThatStartedIt(t *testing.T) {
	starter := exec.Command(os.Args[0], "start")
	out, err := starter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := starter.Start(); err != nil {
		t.Fatal(err)
	}
	defer starter.Wait()
	defer starter.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url, _, _ := strings.Cut(line, " ")
	if err := waitFor(url); err != nil {
		t.Fatalf("it started with %q and does not answer: %v", line, err)
	}
	if err := starter.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		res, err := http.Get(url)
		if err != nil {
			return
		}
		res.Body.Close()
		if time.Now().After(deadline) {
			t.Fatal("the server is still there")
		}
	}
}

func TestAServerThatDoesNotStartSaysWhy(t *testing.T) {
	defer func(before time.Duration) { patience = before }(patience)
	patience = 300 * time.Millisecond
	s := server{health: "/", install: func() (func(string) []string, error) {
		return func(string) []string { return []string{"sh", "-c", "echo no such luck >&2; exit 1"} }, nil
	}}
	if _, err := s.start(); err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("got %v", err)
	}
}
