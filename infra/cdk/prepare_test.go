package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"muster/shared/config"
	"muster/shared/id"
	"muster/shared/workspace"
)

// fakeAWS stands in for the aws command line: parameters are files in $PARAMETERS, and every command line is noted.
const fakeAWS = `#!/usr/bin/env bash
set -euo pipefail
echo "$*" >>"$PARAMETERS/.commands"
case "$1 $2" in
"sts get-caller-identity") [[ ! -e $PARAMETERS/.loggedout ]] ;;
"ssm get-parameter")
	if [[ -e $PARAMETERS/.down ]]; then echo "An error occurred (InternalServerError)" >&2; exit 254; fi
	if [[ ! -e $PARAMETERS/${4//\//_} ]]; then echo "An error occurred (ParameterNotFound)" >&2; exit 254; fi ;;
"ssm put-parameter") [[ $3 == --overwrite && $8 == --value ]]; echo -n "$7 $(cat "${9#file://}")" >"$PARAMETERS/${5//\//_}" ;;
*) exit 1 ;;
esac
`

// prepare runs the script on parameters in dir, and gives what it prints.
func prepare(t *testing.T, dir, path string, env ...string) (string, error) {
	t.Helper()
	script, err := filepath.Abs("prepare")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("bash", script)
	c.Env = append([]string{"PATH=" + path, "PARAMETERS=" + dir}, env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

func withFakeAWS(t *testing.T) (path string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "aws"), []byte(fakeAWS), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir + ":" + os.Getenv("PATH")
}

// parameter gives the type and the value of a parameter.
func parameter(t *testing.T, dir, name string) (kind, value string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(name, "/", "_")))
	if err != nil {
		t.Fatal(err)
	}
	kind, value, _ = strings.Cut(string(raw), " ")
	return kind, value
}

func TestPrepareMakesWhatIsAbsentAndShowsTokensOnce(t *testing.T) {
	dir, path := t.TempDir(), withFakeAWS(t)
	shown, err := prepare(t, dir, path, "GROQ_API_KEY=gsk-secret", "OTHER_API_KEY=not-a-model's")
	if err != nil {
		t.Fatalf("%v: %s", err, shown)
	}

	tokens := regexp.MustCompile(`mus_(ws|int)_[A-Za-z0-9_-]{43}\b`).FindAllString(shown, -1)
	if len(tokens) != 2 {
		t.Fatalf("want two tokens in this:\n%s", shown)
	}
	for i, name := range []string{workspaceTokenParameter, internalTokenParameter} {
		if kind, hash := parameter(t, dir, name); kind != "String" || hash != workspace.Hash(tokens[i]) {
			t.Errorf("%s is the %s %q, want the hash of its token", name, kind, hash)
		}
	}
	if kind, value := parameter(t, dir, sealingKeyParameter); kind != "SecureString" {
		t.Errorf("the sealing key is a %s", kind)
	} else if _, err := workspace.ParseKeys(value); err != nil {
		t.Error(err)
	}
	if _, value := parameter(t, dir, workspaceIDParameter); value == "" {
		t.Error("no workspace id")
	} else if _, ok := id.Parse("ws", value); !ok {
		t.Errorf("the workspace id is %q", value)
	}
	if kind, value := parameter(t, dir, modelKeys+"GROQ_API_KEY"); kind != "SecureString" || value != "gsk-secret" {
		t.Errorf("the model's key is the %s %q", kind, value)
	}

	commands, err := os.ReadFile(filepath.Join(dir, ".commands"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range append(tokens, "gsk-secret", "OTHER_API_KEY") {
		if strings.Contains(string(commands), secret) {
			t.Errorf("a command line, which everyone on the machine can read, had %s", secret)
		}
	}

	_, key := parameter(t, dir, sealingKeyParameter)
	again, err := prepare(t, dir, path)
	if err != nil {
		t.Fatalf("%v: %s", err, again)
	}
	if _, kept := parameter(t, dir, sealingKeyParameter); kept != key || again != "" {
		t.Errorf("the second time changed the key, or said %q", again)
	}
}

// Every API key that the stack hands to the runner by name must be one that the script keeps.
func TestPrepareKeepsEveryKeyThatTheStackNames(t *testing.T) {
	var names, env []string
	config.From(func(name string) string {
		if strings.HasSuffix(name, "_API_KEY") {
			names, env = append(names, name), append(env, name+"=key-of-"+name)
		}
		return ""
	})
	dir := t.TempDir()
	if out, err := prepare(t, dir, withFakeAWS(t), env...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range names {
		if _, value := parameter(t, dir, modelKeys+name); value != "key-of-"+name {
			t.Errorf("%s is kept as %q", name, value)
		}
	}
}

func TestPrepareStopsBeforeItCouldDoHarm(t *testing.T) {
	tests := []struct {
		name string
		path func(t *testing.T) string
		mark string
		want string
	}{
		{"without the aws command line", func(t *testing.T) string {
			dir := t.TempDir() // holds what the script says so with, and no aws
			for _, tool := range []string{"bash", "cat"} {
				found, err := exec.LookPath(tool)
				if err == nil {
					err = os.Symlink(found, filepath.Join(dir, tool))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			return dir
		}, "", "needs the aws command line"},
		{"without an account", withFakeAWS, ".loggedout", "not logged in"},
		{"when SSM cannot tell what is there, lest it replace a key", withFakeAWS, ".down", "cannot be read"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if test.mark != "" {
				if err := os.WriteFile(filepath.Join(dir, test.mark), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := prepare(t, dir, test.path(t))
			if err == nil || !strings.Contains(out, test.want) {
				t.Errorf("got %v, %q; want a failure that says %q", err, out, test.want)
			}
			if kept, _ := filepath.Glob(filepath.Join(dir, "_*")); len(kept) > 0 {
				t.Errorf("it kept %v", kept)
			}
		})
	}
}
