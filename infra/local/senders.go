package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// signature gives what a sender puts in the place of {signature}, at a time in seconds.
type signature func(secret, at, body string) string

// hexOf is the hex HMAC-SHA256 of before, which may name the {timestamp}, and the body.
func hexOf(before string) signature {
	return func(secret, at, body string) string {
		return hex.EncodeToString(sum([]byte(secret), strings.ReplaceAll(before, "{timestamp}", at)+body))
	}
}

// standard is the signature of Standard Webhooks for the delivery id.
func standard(id string) signature {
	return func(secret, at, body string) string {
		key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_")) // a wrong key signs wrongly
		return base64.StdEncoding.EncodeToString(sum(key, id+"."+at+"."+body))
	}
}

// password is no signature: user and password, as they are sent.
func password(secret, _, _ string) string { return base64.StdEncoding.EncodeToString([]byte(secret)) }

func sum(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// byHook makes an incoming webhook with settings, and sends it a request of testevents. sign gives what goes in the place of
// the signature.
func (h *home) byHook(name string, settings map[string]any, sign signature) func(context.Context, keptDeployment) (begun, error) {
	return func(ctx context.Context, d keptDeployment) (begun, error) {
		asked := map[string]any{"name": name}
		maps.Copy(asked, settings)
		var made struct {
			Token  string `json:"token"`
			Secret string `json:"secret"`
		}
		if err := h.call(ctx, "POST", "/v1/deployments/"+d.ID+"/webhooks/incoming", d.Token, asked, &made); err != nil {
			return begun{}, err
		}
		secret := made.Secret
		if own, ok := settings["secret"].(string); ok {
			secret = own
		}
		return h.send(ctx, name, secret, sign, "{token}", made.Token)
	}
}

func (h *home) byAgent(ctx context.Context, d keptDeployment) (begun, error) {
	var described struct {
		Agents []struct {
			ID string `json:"id"`
		} `json:"agents"`
	}
	if err := h.call(ctx, "GET", "/v1/deployments/"+d.ID, d.Token, nil, &described); err != nil {
		return begun{}, err
	}
	if len(described.Agents) == 0 {
		return begun{}, fmt.Errorf("%s has no agents", d.Name)
	}
	var made struct {
		Secret string `json:"secret"`
	}
	agent := described.Agents[0].ID
	if err := h.call(ctx, "POST", "/api/v1/agents/"+agent+"/webhook-secret/rotate", d.Token, struct{}{}, &made); err != nil {
		return begun{}, err
	}
	return h.send(ctx, "agent", made.Secret, hexOf(""), "{crew}", d.ID, "{agent}", agent)
}

// send sends a request of testevents/trigger/requests, with values, as name and value in turn, in the place of what is in
// braces there.
func (h *home) send(ctx context.Context, name, secret string, sign signature, values ...string) (begun, error) {
	text, err := os.ReadFile(filepath.Join(h.triggers, "trigger", "requests", name+".http"))
	if err != nil {
		return begun{}, err
	}
	head, body, _ := strings.Cut(string(text), "\n\n")
	body, at := strings.TrimSuffix(body, "\n"), strconv.FormatInt(time.Now().Unix(), 10)
	values = append(values, "{timestamp}", at)
	if sign != nil {
		values = append(values, "{signature}", sign(secret, at, body))
	}
	head = strings.NewReplacer(values...).Replace(head)
	q, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\n\n")))
	if err != nil {
		return begun{}, fmt.Errorf("read the request %s: %w", name, err)
	}
	here, err := url.Parse(h.here)
	if err != nil {
		return begun{}, err
	}
	q.URL.Scheme, q.URL.Host, q.RequestURI = here.Scheme, here.Host, ""
	q.Body, q.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	response, err := http.DefaultClient.Do(q.WithContext(ctx))
	if err != nil {
		return begun{}, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return begun{}, err
	}
	var s started
	if err := json.Unmarshal(answer, &s); err != nil || s.RunID == "" {
		return begun{}, fmt.Errorf("%d %s", response.StatusCode, answer)
	}
	path, _, _ := strings.Cut(strings.TrimPrefix(string(text), "POST "), " ")
	return begun{s.RunID, fmt.Sprintf("POST %s, %d bytes from %s", path, len(body), q.UserAgent()), response.StatusCode}, nil
}
