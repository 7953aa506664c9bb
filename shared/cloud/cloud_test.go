package cloud_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"muster/shared/cloud"
	"muster/shared/config"
	"muster/shared/engine/llm"
)

// parameterStore stands in for SSM: it answers GetParameter and notes what it was asked for.
type parameterStore struct {
	mu     sync.Mutex
	values map[string]string
	asked  []string
}

func (p *parameterStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Name           string
		WithDecryption bool
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("X-Amz-Target") != "AmazonSSM.GetParameter" || !in.WithDecryption {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, in.Name)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	value, there := p.values[in.Name]
	if !there {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]string{"__type": "ParameterNotFound"})
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"Parameter": map[string]string{"Name": in.Name, "Value": value, "Type": "SecureString"}})
}

// onAWS makes the SDK talk to a store of parameters, by the variables that it reads itself.
func onAWS(t *testing.T, values map[string]string) *parameterStore {
	t.Helper()
	store := &parameterStore{values: values}
	server := httptest.NewServer(store)
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL_SSM", server.URL)
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	return store
}

const keys = "k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="

func TestTheSealingKeyIsReadWhenFirstNeeded(t *testing.T) {
	store := onAWS(t, map[string]string{"/muster/sealing-key": keys})
	b, err := cloud.Open(t.Context(), config.Config{SealingKeyParameter: "/muster/sealing-key"})
	if err != nil {
		t.Fatal(err)
	}
	if len(store.asked) > 0 {
		t.Errorf("opening the backends asked for %v", store.asked)
	}
	for range 2 {
		sealed, err := b.Sealer.Seal(t.Context(), "ws", "record", "field", "secret")
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := b.Sealer.Open(t.Context(), "ws", "record", "field", sealed); err != nil || plain != "secret" {
			t.Errorf("got %q, %v, want the secret", plain, err)
		}
	}
	if want := []string{"/muster/sealing-key"}; !slices.Equal(store.asked, want) {
		t.Errorf("SSM was asked for %v, want %v", store.asked, want)
	}
}

func TestASealingKeyOfTheEnvironmentNeedsNoSSM(t *testing.T) {
	store := onAWS(t, nil)
	b, err := cloud.Open(t.Context(), config.Config{SealingKeys: keys})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Sealer.Seal(t.Context(), "ws", "record", "field", "secret"); err != nil || len(store.asked) > 0 {
		t.Errorf("got %v after asking for %v", err, store.asked)
	}
}

func TestKeysOfModels(t *testing.T) {
	settings := func(key string) llm.Settings {
		return llm.Settings{Providers: map[string]llm.Access{"groq": {APIKey: key}, "ollama": {BaseURL: "http://models.example:11434/v1"}}}
	}
	tests := []struct {
		name, key, want, fails string
	}{
		{name: "a key that names a parameter is read from there", key: "ssm:/muster/models/GROQ_API_KEY", want: "gsk-secret"},
		{name: "a key that is one stays", key: "gsk-other", want: "gsk-other"},
		{name: "a parameter that is not there is named with its provider", key: "ssm:/muster/models/NONE", fails: "groq"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			onAWS(t, map[string]string{"/muster/models/GROQ_API_KEY": "gsk-secret"})
			given := settings(test.key)
			b, err := cloud.OpenForRunner(t.Context(), config.Config{SealingKeys: keys, Models: given})
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("got %v, want an error that names %s", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := b.Models.Providers["groq"].APIKey; got != test.want {
				t.Errorf("got the key %q, want %q", got, test.want)
			}
			if got := b.Models.Providers["ollama"]; got != given.Providers["ollama"] {
				t.Errorf("got %+v for ollama, want what was given", got)
			}
			if given.Providers["groq"].APIKey != test.key {
				t.Error("the settings that were given are changed")
			}
		})
	}
}
