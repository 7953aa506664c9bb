package crew

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"muster/shared/fault"
	"muster/shared/record"
	"muster/shared/storetest"
)

var ctx = context.Background()

func newStore() (*Store, *storetest.Memory) {
	m := &storetest.Memory{}
	return &Store{Records: m, Now: func() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC) }}, m
}

func create(t *testing.T, s *Store, name string) Deployment {
	t.Helper()
	d, _, _, err := s.Create(ctx, "w1", name, yamlCrew, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// other gives the files of the test's crew with another name.
func other(name string) map[string][]byte {
	return with(yamlCrew, map[string]string{"crew.yaml": "name: " + name})
}

func TestStore_creates_a_deployment_with_its_first_version_in_both_environments(t *testing.T) {
	s, _ := newStore()
	files := with(yamlCrew, map[string]string{"crew.yaml": "name: Notes\ninputs: {year: 2026}\nmotto: go\n"})
	d, v, warnings, err := s.Create(ctx, "w1", "", files, func(id string) (string, error) { return "sealed for " + id, nil })
	if err != nil {
		t.Fatal(err)
	}
	p := Pointer{VersionID: v.ID, Number: 1, Inputs: []string{"topic", "year"}, Required: []string{"topic"}}
	want := Deployment{
		ID: d.ID, WorkspaceID: "w1", Name: "Notes", CreatedAt: time.Date(2026, 5, 1, 12, 0, 0, 123e6, time.UTC), WebhookSecret: "sealed for " + d.ID,
		Environments: map[string]Pointer{"production": p, "staging": p}, Versions: 1, Digest: Digest(files), rev: 1,
	}
	unexported := gocmp.AllowUnexported(Deployment{})
	if diff := gocmp.Diff(want, d, unexported); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got, err := s.Deployment(ctx, d.ID); err != nil || gocmp.Diff(want, got, unexported) != "" {
		t.Errorf("read back: %+v, %v", got, err)
	}
	if len(warnings) != 1 || warnings[0].Path != "crew.yaml: motto" {
		t.Errorf("warnings %v", warnings)
	}
	agents := []Member{{AgentID(d.ID, "researcher"), "researcher", "{topic} Researcher"}, {AgentID(d.ID, "writer"), "writer", "Writer"}}
	if diff := gocmp.Diff(agents, v.Agents); diff != "" || v.Name != "Notes" || v.DeploymentID != d.ID || v.Number != 1 {
		t.Errorf("version %+v", v)
	}
	for _, get := range []func() (Version, error){
		func() (Version, error) { return s.Version(ctx, v.ID) },
		func() (Version, error) { return s.VersionByNumber(ctx, d.ID, 1) },
	} {
		if got, err := get(); err != nil || gocmp.Diff(v, got) != "" {
			t.Errorf("read back: %+v, %v", got, err)
		}
	}
	if got, err := s.Files(ctx, v.ID); err != nil || gocmp.Diff(files, got) != "" {
		t.Errorf("files: %v", err)
	}
	parsed, _, _ := Parse(files)
	if got, err := s.Definition(ctx, v.ID); err != nil || gocmp.Diff(parsed, got) != "" {
		t.Errorf("definition: %v", err)
	}
}

func TestStore_tells_a_kickoff_all_in_one_read(t *testing.T) {
	s, m := newStore()
	d := create(t, s, "a")
	m.Reads = 0
	got, err := s.Deployment(ctx, d.ID)
	if err != nil {
		t.Fatal(err)
	}
	p, err := got.Environment("")
	if err != nil || p.Number != 1 {
		t.Errorf("production is %+v, %v", p, err)
	}
	if diff := gocmp.Diff([]string{"year"}, p.MissingInputs(map[string]any{"topic": "x"})); diff != "" {
		t.Error(diff)
	}
	if m.Reads != 1 {
		t.Errorf("%d reads", m.Reads)
	}
}

func TestStore_reads_a_definition_once(t *testing.T) {
	s, m := newStore()
	d := create(t, s, "a")
	id := d.Environments[Production].VersionID
	for range 3 {
		if _, err := s.Definition(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if m.Reads != 2 { // the version and its definition
		t.Errorf("%d reads", m.Reads)
	}
}

func TestStore_keeps_new_versions_waiting_until_they_are_promoted(t *testing.T) {
	s, _ := newStore()
	d := create(t, s, "a")
	v2, _, err := s.AddVersion(ctx, d.ID, with(other("two"), map[string]string{"crew.yaml": "inputs: {topic: x}"}))
	if err != nil || v2.Number != 2 {
		t.Fatalf("version %+v, %v", v2, err)
	}
	numbers := func() [3]int {
		t.Helper()
		d, err := s.Deployment(ctx, d.ID)
		if err != nil {
			t.Fatal(err)
		}
		return [3]int{d.Environments[Production].Number, d.Environments[Staging].Number, d.Versions}
	}
	if got := numbers(); got != [3]int{1, 1, 2} {
		t.Errorf("after adding: %v", got)
	}
	if d, err := s.Promote(ctx, d.ID, Staging, 2); err != nil || !slices.Equal(d.Environments[Staging].Required, []string{"year"}) {
		t.Errorf("promoted: %+v, %v", d, err)
	}
	if got := numbers(); got != [3]int{1, 2, 2} {
		t.Errorf("after promoting: %v", got)
	}
	for range 2 {
		if _, err := s.Promote(ctx, d.ID, Staging, 1); err != nil {
			t.Fatal(err)
		}
	}
	if got := numbers(); got != [3]int{1, 1, 2} {
		t.Errorf("after rolling back: %v", got)
	}
	v1, err := s.VersionByNumber(ctx, d.ID, 1)
	if err != nil || !slices.Equal([]string{v1.Agents[0].ID, v1.Agents[1].ID}, []string{v2.Agents[0].ID, v2.Agents[1].ID}) {
		t.Errorf("agents have other ids in another version: %v, %v", v1.Agents, v2.Agents)
	}
}

func TestStore_shows_unchanged_content_by_its_digest(t *testing.T) {
	s, _ := newStore()
	d := create(t, s, "a")
	if d.Digest != Digest(with(yamlCrew, nil)) {
		t.Error("the same files have another digest")
	}
	for name, files := range map[string]map[string][]byte{
		"another byte": other("x"), "another name": {"agents.yml": yamlCrew["agents.yaml"], "tasks.yaml": yamlCrew["tasks.yaml"]},
		"a moved border": {"a": []byte("bc")},
	} {
		if Digest(files) == d.Digest {
			t.Errorf("%s has the same digest", name)
		}
	}
	if Digest(map[string][]byte{"a": []byte("bc")}) == Digest(map[string][]byte{"ab": []byte("c")}) {
		t.Error("name and content run into each other")
	}
	v, _, err := s.AddVersion(ctx, d.ID, yamlCrew)
	if err != nil || v.Number != 2 || v.Digest != d.Digest {
		t.Errorf("the same files added: %+v, %v", v, err)
	}
}

func TestStore_refuses(t *testing.T) {
	s, _ := newStore()
	d := create(t, s, "a")
	const nobody = "00000000-0000-7000-8000-000000000000"
	create := func(name string, files map[string][]byte) error {
		_, _, _, err := s.Create(ctx, "w1", name, files, nil)
		return err
	}
	promote := func(id, env string, n int) error { _, err := s.Promote(ctx, id, env, n); return err }
	for name, c := range map[string]struct {
		err  error
		kind fault.Kind
		want string
	}{
		"a wrong definition":          {create("", map[string][]byte{"x": nil}), fault.Invalid, "crew.jsonc: is missing"},
		"a long name":                 {create(strings.Repeat("ä", 101), yamlCrew), fault.Invalid, "at most 100 characters"},
		"a name with a line break":    {create("a\nb", yamlCrew), fault.Invalid, "readable"},
		"another environment":         {promote(d.ID, "testing", 1), fault.Invalid, "no environment 'testing'"},
		"an environment without name": {promote(d.ID, "", 1), fault.Invalid, "no environment ''"},
		"a version that is not there": {promote(d.ID, Production, 2), fault.NotFound, "no version 2; the newest is 1"},
		"version nought":              {promote(d.ID, Production, 0), fault.NotFound, "no version 0"},
		"an unknown deployment":       {promote(nobody, Production, 1), fault.NotFound, "no such deployment"},
		"adding to an unknown one":    {func() error { _, _, err := s.AddVersion(ctx, nobody, yamlCrew); return err }(), fault.NotFound, "no such deployment"},
		"an unknown version":          {func() error { _, err := s.Version(ctx, nobody); return err }(), fault.NotFound, "no such version"},
		"files of an unknown version": {func() error { _, err := s.Files(ctx, nobody); return err }(), fault.NotFound, "no such version"},
		"its definition":              {func() error { _, err := s.Definition(ctx, nobody); return err }(), fault.NotFound, "no such version"},
		"reading another environment": {func() error { _, err := d.Environment("qa"); return err }(), fault.Invalid, "production and staging"},
	} {
		if !fault.Is(c.err, c.kind) || !strings.Contains(fault.Message(c.err), c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if _, err := s.Deployment(ctx, d.ID); err != nil {
		t.Error(err)
	}
}

func TestStore_lets_a_check_refuse_what_was_parsed(t *testing.T) {
	s, m := newStore()
	s.Check = func(d Definition, _ map[string][]byte) error {
		return fault.New(fault.Invalid, "There is no model for %s.", d.Name)
	}
	_, _, _, err := s.Create(ctx, "w1", "", yamlCrew, nil)
	if fault.Message(err) != "There is no model for crew." || len(m.Records) != 0 {
		t.Errorf("%v, %d records", err, len(m.Records))
	}
}

func TestStore_lists_the_deployments_of_a_workspace_newest_first(t *testing.T) {
	s, _ := newStore()
	for i := range 103 {
		create(t, s, fmt.Sprint(i))
	}
	if _, _, _, err := s.Create(ctx, "w2", "elsewhere", yamlCrew, nil); err != nil {
		t.Fatal(err)
	}
	all, err := s.Deployments(ctx, "w1")
	if err != nil || len(all) != 103 || all[0].Name != "102" || all[102].Name != "0" {
		t.Errorf("%d deployments, %v", len(all), err)
	}
	if none, err := s.Deployments(ctx, "w3"); err != nil || len(none) != 0 {
		t.Errorf("%v, %v", none, err)
	}
}

func TestStore_keeps_big_files(t *testing.T) {
	s, _ := newStore()
	big := map[string]string{"data.bin": strings.Repeat("noise\x00\xff", 60_000), "empty": ""}
	_, v, _, err := s.Create(ctx, "w1", "", with(yamlCrew, big), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Files(ctx, v.ID); err != nil || !bytes.Equal(got["data.bin"], []byte(big["data.bin"])) || len(got["empty"]) != 0 || len(got) != 4 {
		t.Errorf("%d files, %v", len(got), err)
	}
}

func TestStore_gives_concurrent_versions_numbers_of_their_own(t *testing.T) {
	s, _ := newStore()
	d := create(t, s, "a")
	const writers = 6
	var wg sync.WaitGroup
	numbers := make([]int, writers)
	for i := range writers {
		wg.Go(func() {
			v, _, err := s.AddVersion(ctx, d.ID, other(fmt.Sprintf("crew %d", i)))
			if err != nil {
				t.Error(err)
			}
			numbers[i] = v.Number
			if _, err := s.Promote(ctx, d.ID, Staging, 1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	sorted := slices.Sorted(slices.Values(numbers))
	if !slices.Equal(sorted, []int{2, 3, 4, 5, 6, 7}) {
		t.Errorf("numbers %v", sorted)
	}
	for i, n := range numbers {
		if v, err := s.VersionByNumber(ctx, d.ID, n); err != nil || v.Name != fmt.Sprintf("crew %d", i) {
			t.Errorf("version %d is %q, %v", n, v.Name, err)
		}
	}
	if got, err := s.Deployment(ctx, d.ID); err != nil || got.Versions != 7 {
		t.Errorf("the deployment knows of %d versions, %v", got.Versions, err)
	}
}

func TestStore_finishes_the_version_of_a_writer_that_died(t *testing.T) {
	s, m := newStore()
	d := create(t, s, "a")
	m.Before = func(r record.Record) error {
		if r.Sort == "DEPLOYMENT" {
			return errors.New("the machine is gone")
		}
		return nil
	}
	if _, _, err := s.AddVersion(ctx, d.ID, other("lost")); err == nil {
		t.Fatal("a version was added without telling its deployment")
	}
	m.Before = nil
	v, _, err := s.AddVersion(ctx, d.ID, other("next"))
	if err != nil || v.Number != 3 {
		t.Fatalf("version %d, %v", v.Number, err)
	}
	if v, err := s.VersionByNumber(ctx, d.ID, 2); err != nil || v.Name != "lost" {
		t.Errorf("version 2 is %q, %v", v.Name, err)
	}
	if got, _ := s.Deployment(ctx, d.ID); got.Versions != 3 || got.Digest != v.Digest {
		t.Errorf("the deployment is at %d", got.Versions)
	}
}

func TestStore_knows_its_own_version_when_the_answer_was_lost(t *testing.T) {
	s, m := newStore()
	d := create(t, s, "a")
	lossy := &Store{Records: repeating{m}, Now: s.Now}
	v, _, err := lossy.AddVersion(ctx, d.ID, other("two"))
	if err != nil || v.Number != 2 || v.Name != "two" {
		t.Fatalf("version %+v, %v", v, err)
	}
	if got, _ := s.Deployment(ctx, d.ID); got.Versions != 2 {
		t.Errorf("the deployment is at %d", got.Versions)
	}
}

// repeating does every put twice, as an SDK does that lost the first answer.
type repeating struct{ *storetest.Memory }

func (m repeating) Put(ctx context.Context, r record.Record) (int64, error) {
	if _, err := m.Memory.Put(ctx, r); err != nil {
		return 0, err
	}
	return m.Memory.Put(ctx, r)
}

func TestCache_forgets_what_was_not_used_for_longest(t *testing.T) {
	var c cache[Definition]
	for i := range cacheSize {
		c.put(fmt.Sprint(i), Definition{MaxRPM: i})
	}
	c.get("0")
	c.put("new", Definition{})
	c.put("new", Definition{})
	if _, ok := c.get("1"); ok {
		t.Error("the one used least is still there")
	}
	if d, ok := c.get("0"); !ok || d.MaxRPM != 0 || c.order.Len() != cacheSize {
		t.Errorf("the one used last is gone, or %d are kept", c.order.Len())
	}
}

func TestFiles_are_read_once_unless_they_are_large(t *testing.T) {
	ctx, records := context.Background(), &storetest.Memory{}
	s := &Store{Records: records}
	for name, c := range map[string]struct{ size, reads int }{"small": {1 << 10, 2}, "large": {1 << 20, 4}} {
		_, v, _, err := s.Create(ctx, "w", "", with(yamlCrew, map[string]string{"knowledge/x.txt": strings.Repeat("x", c.size)}), nil)
		if err != nil {
			t.Fatal(err)
		}
		records.Reads = 0
		for range 2 {
			if files, err := s.Files(ctx, v.ID); err != nil || len(files["knowledge/x.txt"]) != c.size {
				t.Fatalf("%s: %d bytes, %v", name, len(files["knowledge/x.txt"]), err)
			}
		}
		if records.Reads != c.reads {
			t.Errorf("%s: %d reads, want %d", name, records.Reads, c.reads)
		}
	}
}
