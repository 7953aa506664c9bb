package schedule_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/mean"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/schedule"
	"muster/shared/storetest"
)

// stage is schedules of one deployment, on a store that is made mean where a test says so.
type stage struct {
	*schedule.Schedules
	t      *testing.T
	now    time.Time
	store  *storetest.Memory
	d      crew.Deployment
	knocks map[string]int // by run
}

// Send implements queue.Sender.
func (s *stage) Send(_ context.Context, messages ...queue.Message) error {
	for _, m := range messages {
		var k run.RunMessage
		if err := json.Unmarshal([]byte(m.Body), &k); err != nil {
			return err
		}
		s.knocks[k.Run]++
	}
	return nil
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC), knocks: map[string]int{}}
	clock := func() time.Time { return s.now }
	s.store = &storetest.Memory{Now: clock, Records: map[record.Key]record.Record{}}
	crews := &crew.Store{Records: s.store, Now: clock}
	s.Schedules = &schedule.Schedules{
		Store: s.store, Crews: crews, Now: clock,
		Runs: &run.Service{Store: s.store, Crews: crews, Runs: s, Deliveries: s, Now: clock, Log: slog.New(slog.DiscardHandler)},
	}
	var err error
	if s.d, _, _, err = crews.Create(t.Context(), id.New(), "", files("topic"), nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func files(input string) map[string][]byte {
	return map[string][]byte{
		"agents.yaml": []byte("a:\n  role: R\n  goal: G\n  backstory: B\n"),
		"tasks.yaml":  []byte("t:\n  description: Look at {" + input + "}\n  expected_output: A report\n  agent: a\n"),
	}
}

func (s *stage) at(clock string) {
	s.t.Helper()
	var err error
	if s.now, err = time.Parse("2006-01-02 15:04:05", clock); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) create(c schedule.Settings) schedule.Schedule {
	s.t.Helper()
	if c.Inputs == nil {
		c.Inputs = map[string]any{"topic": "rain"}
	}
	made, err := s.Create(s.t.Context(), s.d, c, "", "")
	if err != nil {
		s.t.Fatal(err)
	}
	return made
}

// sweep wakes what is due.
func (s *stage) sweep() {
	s.t.Helper()
	if err := s.sweepWith(s.Schedules); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) sweepWith(schedules *schedule.Schedules) (err error) {
	for shard := range record.Shards {
		due, _ := s.store.Due(s.t.Context(), shard, s.now, 1000)
		for _, e := range due {
			if strings.HasPrefix(e.Part, schedule.Partition) {
				err = errors.Join(err, schedules.Wake(s.t.Context(), e.Key))
			}
		}
	}
	return err
}

// story tells the firings of a schedule, oldest first, as "nominal time: what became of it".
func (s *stage) story(c schedule.Schedule) []string {
	s.t.Helper()
	c, err := s.Get(s.t.Context(), c.DeploymentID, c.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	story := []string{}
	for _, f := range slices.Backward(c.Firings) {
		became := f.Reason
		if f.Run != "" {
			r, err := s.Runs.Get(s.t.Context(), f.Run)
			if err != nil {
				s.t.Fatal(err)
			}
			became = strings.TrimSpace("a run by " + r.Origin + ". " + f.Reason)
		}
		if f.Missed > 0 {
			became += fmt.Sprintf(" (and %d others)", f.Missed)
		}
		story = append(story, f.At.UTC().Format("02 15:04:05")+": "+became)
	}
	return story
}

// runs counts the runs of the deployment.
func (s *stage) runs() int {
	all, _ := s.store.List(s.t.Context(), "runs/"+s.d.ID, "", 1000)
	return len(all)
}

func (s *stage) want(what string, got, want any) {
	s.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const (
	ran    = "a run by schedule."
	missed = "It was missed: nothing swept in time."
)

func TestAScheduleFiresInTime(t *testing.T) {
	s := newStage(t)
	c := s.create(schedule.Settings{Expression: "cron(0/30 9 * * ? *)", Name: "Half an hour"})
	s.sweep()
	s.want("before its time", s.story(c), []string{})
	s.at("2026-11-23 09:30:59")
	s.sweep()
	s.sweep()
	s.want("at its time", s.story(c), []string{"23 09:30:00: " + ran})
	s.want("runs", s.runs(), 1)
	s.at("2026-11-24 09:01:30")
	s.sweep()
	s.want("the next day", s.story(c), []string{"23 09:30:00: " + ran, "24 09:00:00: " + ran})
}

func TestARateFiresAtItsBeginAndThenEverySoOften(t *testing.T) {
	s := newStage(t)
	c := s.create(schedule.Settings{Expression: "rate(2 minutes)"})
	later := s.create(schedule.Settings{Expression: "rate(2 minutes)", Start: s.now.Add(3 * time.Minute), End: s.now.Add(5 * time.Minute)})
	for range 20 {
		s.sweep()
		s.now = s.now.Add(30 * time.Second)
	}
	s.want("a rate", s.story(c), []string{"23 09:00:00: " + ran, "23 09:02:00: " + ran, "23 09:04:00: " + ran, "23 09:06:00: " + ran, "23 09:08:00: " + ran})
	s.want("a rate with bounds", s.story(later), []string{"23 09:03:00: " + ran, "23 09:05:00: " + ran})
}

func TestMissedFirings(t *testing.T) {
	for _, c := range []struct {
		name, expression string
		catchUp          schedule.CatchUp
		up               string
		want             []string
		runs             int
	}{
		{"a firing that is hardly late is not missed", "cron(0 10 * * ? *)", schedule.Skip, "2026-11-23 10:02:00", []string{"23 10:00:00: " + ran}, 1},
		{"skip drops it", "cron(0 10 * * ? *)", schedule.Skip, "2026-11-23 10:02:01", []string{"23 10:00:00: " + missed}, 0},
		{"skip drops many", "cron(0 * * * ? *)", schedule.Skip, "2026-11-23 13:30:00", []string{"23 13:00:00: " + missed + " (and 3 others)"}, 0},
		{"skip goes on with what is on time", "cron(0 * * * ? *)", schedule.Skip, "2026-11-23 13:00:30", []string{"23 12:00:00: " + missed + " (and 2 others)", "23 13:00:00: " + ran}, 1},
		{"once makes one run for many", "cron(0 * * * ? *)", schedule.Once, "2026-11-23 13:30:00", []string{"23 13:00:00: " + ran + " (and 3 others)"}, 1},
		{"once leaves it to the one on time", "cron(0 * * * ? *)", schedule.Once, "2026-11-23 13:00:30", []string{"23 12:00:00: " + missed + " (and 2 others)", "23 13:00:00: " + ran}, 1},
		{"once after years", "cron(0 0 1 1 ? *)", schedule.Once, "2036-06-01 00:00:00", []string{"01 00:00:00: " + ran + " (and 9 others)"}, 1},
		{"all makes a run for each", "cron(0 * * * ? *)", schedule.All, "2026-11-23 12:30:00", []string{"23 10:00:00: " + ran, "23 11:00:00: " + ran, "23 12:00:00: " + ran}, 3},
		{"all has a bound", "cron(0 * * * ? *)", schedule.All, "2026-12-23 12:30:00", []string{
			"23 03:00:00: " + ran, "23 04:00:00: " + ran, "23 05:00:00: " + ran, "23 06:00:00: " + ran, "23 07:00:00: " + ran,
			"23 08:00:00: " + ran, "23 09:00:00: " + ran, "23 10:00:00: " + ran, "23 11:00:00: " + ran, "23 12:00:00: " + ran,
		}, 100},
		{"all of one time", "at(2026-11-23T09:10:00)", schedule.All, "2027-12-23 12:30:00", []string{"23 09:10:00: " + ran}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			made := s.create(schedule.Settings{Expression: c.expression, CatchUp: c.catchUp})
			s.at(c.up)
			s.sweep()
			s.want("the firings", s.story(made), c.want)
			s.want("runs", s.runs(), c.runs)
			s.sweep()
			s.want("runs after another sweep", s.runs(), c.runs)
		})
	}
}

func TestAFiringThatCannotStartIsKeptWithItsReason(t *testing.T) {
	s := newStage(t)
	c := s.create(schedule.Settings{Expression: "rate(1 hour)"})
	pinned := s.create(schedule.Settings{Expression: "rate(1 hour)", VersionNumber: 1})
	s.sweep()
	if _, _, err := s.Crews.AddVersion(t.Context(), s.d.ID, files("product")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Crews.Promote(t.Context(), s.d.ID, crew.Production, 2); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(time.Hour)
	s.sweep()
	s.want("the version wants another input", s.story(c), []string{"23 09:00:00: " + ran, "23 10:00:00: Missing inputs: product"})
	s.want("a pinned version does not change", s.story(pinned), []string{"23 09:00:00: " + ran, "23 10:00:00: " + ran})

	if _, err := s.Crews.Change(t.Context(), s.d.ID, func(d *crew.Deployment) error {
		d.Traffic = crew.Traffic{MaxConcurrentRuns: 1, WhenFull: crew.Reject}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	other := s.create(schedule.Settings{Expression: "at(2026-11-23T11:00:00)", VersionNumber: 1})
	s.now = s.now.Add(time.Hour)
	s.sweep()
	got := []string{s.story(pinned)[2], s.story(other)[0]}
	slices.Sort(got)
	s.want("there is room for one run", got, []string{"23 11:00:00: As many runs are under way as may be at a time (1).", "23 11:00:00: " + ran})
}

func TestPausedSchedulesMissNothing(t *testing.T) {
	s := newStage(t)
	c := s.create(schedule.Settings{Expression: "rate(1 hour)", CatchUp: schedule.All, Paused: true})
	pause := func(paused bool) {
		t.Helper()
		if _, err := s.Change(t.Context(), s.d, c.ID, func(set *schedule.Settings) error { set.Paused = paused; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	s.sweep()
	s.want("made paused", s.story(c), []string{})
	s.now = s.now.Add(150 * time.Minute)
	pause(false)
	s.sweep()
	s.now = s.now.Add(30 * time.Minute)
	s.sweep()
	s.want("it goes on in its rhythm", s.story(c), []string{"23 12:00:00: " + ran})
	pause(true)
	s.now = s.now.Add(5 * time.Hour)
	s.sweep()
	s.want("paused again", len(s.story(c)), 1)
}

func TestChangesOfASchedule(t *testing.T) {
	s := newStage(t)
	c := s.create(schedule.Settings{Expression: "cron(0 10 * * ? *)"})
	change := func(f func(*schedule.Settings)) (schedule.Schedule, error) {
		return s.Change(t.Context(), s.d, c.ID, func(set *schedule.Settings) error { f(set); return nil })
	}
	s.at("2026-11-23 10:00:00")
	renamed, err := change(func(set *schedule.Settings) { set.Name = "Ten" })
	if err != nil || !renamed.Next.Equal(s.now) {
		t.Errorf("renamed when it is due: next is %s, %v", renamed.Next, err)
	}
	moved, err := change(func(set *schedule.Settings) { set.TimeZone = "Asia/Tokyo" })
	s.want("in another zone", moved.Coming(2), []time.Time{time.Date(2026, 11, 24, 1, 0, 0, 0, time.UTC), time.Date(2026, 11, 25, 1, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Error(err)
	}
	if _, err := change(func(set *schedule.Settings) { set.Inputs = nil }); !fault.Is(err, fault.Missing) {
		t.Errorf("without inputs: %v", err)
	}
	if _, err := change(func(set *schedule.Settings) { set.Expression = "at(2026-11-23T10:00:00)" }); !fault.Is(err, fault.Invalid) {
		t.Errorf("a time that is over: %v", err)
	}
	if _, _, err := s.Crews.AddVersion(t.Context(), s.d.ID, files("product")); err != nil {
		t.Fatal(err)
	}
	if s.d, err = s.Crews.Promote(t.Context(), s.d.ID, crew.Production, 2); err != nil {
		t.Fatal(err)
	}
	s.at("2300-01-01 00:00:00")
	if paused, err := change(func(set *schedule.Settings) { set.Paused = true }); err != nil || !paused.Next.IsZero() {
		t.Errorf("one whose version wants more, and that is over, may be paused: %v", err)
	}
	if _, err := change(func(set *schedule.Settings) { set.Paused = false }); !fault.Is(err, fault.Invalid) {
		t.Errorf("and not go on: %v", err)
	}
	if err := s.Delete(t.Context(), s.d.ID, c.ID); err != nil {
		t.Error(err)
	}
	if err := s.Wake(t.Context(), record.Key{Part: schedule.Partition + s.d.ID, Sort: c.ID}); err != nil {
		t.Errorf("an index that is behind: %v", err)
	}
	if _, err := s.Get(t.Context(), s.d.ID, c.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted: %v", err)
	}
}

func TestSchedulesThatAreRefused(t *testing.T) {
	s := newStage(t)
	good := map[string]any{"topic": "x"}
	for _, c := range []struct {
		name, because string
		set           schedule.Settings
	}{
		{"no expression", "must be cron(…)", schedule.Settings{Inputs: good}},
		{"missing inputs", "Missing inputs: topic", schedule.Settings{Expression: "rate(1 day)"}},
		{"an unknown zone", `There is no time zone "Mars/Olympus"`, schedule.Settings{Expression: "rate(1 day)", Inputs: good, TimeZone: "Mars/Olympus"}},
		{"the zone of a machine", `There is no time zone "Local"`, schedule.Settings{Expression: "rate(1 day)", Inputs: good, TimeZone: "Local"}},
		{"a file for a zone", `There is no time zone "../../etc/passwd"`, schedule.Settings{Expression: "rate(1 day)", Inputs: good, TimeZone: "../../etc/passwd"}},
		{"an unknown environment", "There is no environment", schedule.Settings{Expression: "rate(1 day)", Inputs: good, Environment: "testing"}},
		{"an unknown version", "There is no version 7; the newest is 1", schedule.Settings{Expression: "rate(1 day)", Inputs: good, VersionNumber: 7}},
		{"an unknown policy", `"catch_up" must be skip, once or all`, schedule.Settings{Expression: "rate(1 day)", Inputs: good, CatchUp: "some"}},
		{"an end before the start", `"start" must be before "end"`, schedule.Settings{Expression: "rate(1 day)", Inputs: good, Start: s.now, End: s.now}},
		{"an end that is over", "never fires any more", schedule.Settings{Expression: "rate(1 day)", Inputs: good, End: s.now.Add(-time.Hour)}},
		{"a day that never comes", "never fires any more", schedule.Settings{Expression: "cron(0 0 30 2 ? *)", Inputs: good}},
		{"large inputs", "at most 256 KiB", schedule.Settings{Expression: "rate(1 day)", Inputs: map[string]any{"topic": strings.Repeat("x", 256<<10)}}},
		{"a long name", "at most 100 characters", schedule.Settings{Expression: "rate(1 day)", Inputs: good, Name: strings.Repeat("x", 101)}},
	} {
		if _, err := s.Create(t.Context(), s.d, c.set, "", ""); err == nil || fault.KindOf(err) == fault.Internal || !strings.Contains(err.Error(), c.because) {
			t.Errorf("%s: got %v, want one that says %s", c.name, err, c.because)
		}
	}
	for range 100 {
		s.create(schedule.Settings{Expression: "rate(1 day)"})
	}
	if _, err := s.Create(t.Context(), s.d, schedule.Settings{Expression: "rate(1 day)", Inputs: good}, "", ""); !fault.Is(err, fault.Conflict) {
		t.Errorf("one too many: %v", err)
	}
}

// TestEachFiringStartsOneRunWhateverFails lets each call of two sweeps fail, before and after it was done; another sweep
// puts things right.
func TestEachFiringStartsOneRunWhateverFails(t *testing.T) {
	calls := 0
	for n := 0; n <= calls; n++ {
		for _, fate := range []mean.Fate{mean.Before, mean.After} {
			s := newStage(t)
			c := s.create(schedule.Settings{Expression: "rate(1 hour)", CatchUp: schedule.All})
			m := mean.Failing(n, fate)
			store := m.Store(s.store)
			broken := &schedule.Schedules{Store: store, Now: s.Now, Crews: &crew.Store{Records: store, Now: s.Now}}
			// The process that fails ends there: nobody repeats a call of unknown outcome.
			ctx, die := context.WithCancel(t.Context())
			m.Plan = dying(m.Plan, die)
			broken.Runs = &run.Service{Store: store, Crews: broken.Crews, Runs: s, Deliveries: s, Now: s.Now, Log: slog.New(slog.DiscardHandler)}
			s.at("2026-11-23 11:30:00")
			k := record.Key{Part: schedule.Partition + s.d.ID, Sort: c.ID}
			err := broken.Wake(ctx, k)
			if n == 0 {
				calls = len(m.Calls())
			} else if err == nil {
				t.Errorf("call %d (%s) failed, and nobody said so", n, m.Calls()[n-1].What)
			}
			s.sweep()
			s.want(fmt.Sprintf("firings when call %d fails", n), s.story(c), []string{"23 09:00:00: " + ran, "23 10:00:00: " + ran, "23 11:00:00: " + ran})
			s.want(fmt.Sprintf("runs when call %d fails", n), s.runs(), 3)
			for runID := range s.knocks {
				if s.knocks[runID] == 0 {
					t.Errorf("nobody knocked for %s", runID)
				}
			}
		}
	}
	if calls < 10 {
		t.Errorf("there were only %d calls", calls)
	}
}

func TestAFiringWhoseSweeperDiedWasNotMissed(t *testing.T) {
	for _, policy := range []schedule.CatchUp{schedule.Skip, schedule.Once, schedule.All} {
		s := newStage(t)
		c := s.create(schedule.Settings{Expression: "cron(0 * * * ? *)", CatchUp: policy})
		s.at("2026-11-23 10:00:00")
		s.store.Before = func(r record.Record) error {
			if r.Sort == c.ID {
				return errors.New("the process is dead")
			}
			return nil
		}
		if err := s.sweepWith(s.Schedules); err == nil {
			t.Error("nothing failed")
		}
		s.store.Before = nil
		s.at("2026-11-23 10:30:00")
		s.sweep()
		s.want("the firings", s.story(c), []string{"23 10:00:00: " + ran})
		s.want("runs", s.runs(), 1)
	}
}

// dying ends a context with the call that fails.
func dying(plan func(mean.Call) mean.Fate, die func()) func(mean.Call) mean.Fate {
	return func(c mean.Call) mean.Fate {
		fate := plan(c)
		if fate != mean.Fine {
			die()
		}
		return fate
	}
}

// TestSweepersInEachOthersWay: another sweeper does all the work between any two calls of one.
func TestSweepersInEachOthersWay(t *testing.T) {
	for n := 1; ; n++ {
		s := newStage(t)
		c := s.create(schedule.Settings{Expression: "rate(1 hour)", CatchUp: schedule.All})
		s.at("2026-11-23 11:00:00")
		m := mean.Failing(0, mean.Fine)
		reached := false
		m.Plan = func(call mean.Call) mean.Fate {
			if call.N == n {
				reached = true
				s.sweep()
			}
			return mean.Fine
		}
		store := m.Store(s.store)
		slow := &schedule.Schedules{Store: store, Now: s.Now, Crews: s.Crews}
		slow.Runs = &run.Service{Store: store, Crews: s.Crews, Runs: s, Deliveries: s, Now: s.Now, Log: slog.New(slog.DiscardHandler)}
		if err := slow.Wake(t.Context(), record.Key{Part: schedule.Partition + s.d.ID, Sort: c.ID}); err != nil {
			t.Fatal(err)
		}
		if !reached {
			return
		}
		s.want(fmt.Sprintf("firings with another sweeper before call %d", n), s.story(c), []string{"23 09:00:00: " + ran, "23 10:00:00: " + ran, "23 11:00:00: " + ran})
		s.want("runs", s.runs(), 3)
	}
}

func TestAKeyOfARunNowIsForgottenAsAnyOther(t *testing.T) {
	s := newStage(t)
	c := s.create(schedule.Settings{Expression: "cron(0 9 * * ? *)"})
	now := func() string {
		t.Helper()
		r, err := s.RunNow(t.Context(), c, nil, "key", "")
		if err != nil {
			t.Fatal(err)
		}
		return r.ID
	}
	first := now()
	if again := now(); again != first {
		t.Errorf("the same key gave run %s and run %s", first, again)
	}
	s.now = s.now.Add(record.KeyLife)
	if later := now(); later == first {
		t.Error("a day later the key still stands for the first run")
	}
}
