package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"time"
)

// taker is a receiver in a process of its own, which takes everything that is posted to it.
type taker struct {
	Plain, TLS  string
	Certificate []byte

	process *exec.Cmd
}

// serveTaker is that process. It ends when its input does.
func serveTaker() {
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if wait, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
			time.Sleep(wait)
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewUnstartedServer(handler)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that nobody needs any more
	secure.StartTLS()
	json.NewEncoder(os.Stdout).Encode(taker{Plain: plain.URL, TLS: secure.URL, Certificate: secure.Certificate().Raw})
	io.Copy(io.Discard, os.Stdin)
}

func startTaker(ctx context.Context) (*taker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	t := &taker{process: exec.CommandContext(ctx, self, "-taker")}
	t.process.Stderr = os.Stderr
	if _, err := t.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := t.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := t.process.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, t)
	}
	if err != nil {
		t.stop()
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	return t, nil
}

func (t *taker) stop() {
	t.process.Process.Kill()
	t.process.Wait()
}

// roots trusts the receiver.
func (t *taker) roots() (*x509.CertPool, error) {
	cert, err := x509.ParseCertificate(t.Certificate)
	if err != nil {
		return nil, errors.New("the receiver's certificate cannot be read")
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, nil
}

// url is where the receiver takes a while to answer.
func (t *taker) url(secure bool, wait time.Duration) string {
	base := t.Plain
	if secure {
		base = t.TLS
	}
	return base + "/?wait=" + wait.String()
}
