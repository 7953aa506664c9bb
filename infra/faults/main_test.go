package faults_test

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// soak asks for everything instead of a sample.
var soak = flag.Bool("soak", false, "play everything instead of a sample; takes minutes")

// every asks a soak for all points of the AWS adapters too, instead of a part.
var every = flag.Bool("every", false, "with -soak: play every point on the AWS adapters too")

// row is what a test has counted.
type row struct {
	what                string
	kills, faults, runs int
	// owners and zombies count completed model calls that were made again, cut those that were not completed the first time.
	owners, zombies, cut int
	// lost and twice count events that a receiver never had, or more than once.
	lost, twice int
	slowest     time.Duration
}

var (
	mu   sync.Mutex
	rows []row
)

// add counts a run.
func (r *row) add(c *scene) {
	r.runs++
	r.faults += len(c.met)
	r.owners += len(c.repeated)
	r.zombies += c.zombies
	r.cut += c.cut
	r.twice += c.twice
}

// tell keeps the row for the table, and holds it to what must never be.
func (r row) tell(t *testing.T) {
	t.Helper()
	t.Logf("%+v", r)
	if r.owners > 0 || r.lost > 0 {
		t.Errorf("%d completed model calls were repeated by owners, and %d events were lost", r.owners, r.lost)
	}
	mu.Lock()
	defer mu.Unlock()
	rows = append(rows, r)
}

// seed is where chance begins, -rapid.seed.
var seed uint64

// chances sets what rapid does unless it was told otherwise. `go test` does the same each time.
func chances() {
	unless := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { unless[f.Name] = true })
	set := func(name, value string) {
		if !unless[name] {
			_ = flag.Set(name, value) // rapid has it
		}
	}
	set("rapid.checks", "8")
	set("rapid.seed", "3")
	if *soak {
		set("rapid.checks", "60")
	}
	if *soak || os.Getenv("MUSTER_EMULATORS") != "" {
		set("rapid.seed", strconv.FormatInt(time.Now().UnixNano(), 10))
	}
	seed, _ = strconv.ParseUint(flag.Lookup("rapid.seed").Value.String(), 10, 64) // it is a number
}

func TestMain(m *testing.M) {
	flag.Parse()
	chances()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // what goes wrong on purpose is no news
	code := m.Run()
	if bin != "" {
		_ = os.RemoveAll(bin)
	}
	if *soak {
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "\tkills\tfaults\truns\tcompleted calls repeated\tby zombies\tcut calls repeated\tlost events\ttold twice\tslowest recovery\t")
		for _, r := range rows {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t\n", r.what, r.kills, r.faults, r.runs, r.owners, r.zombies, r.cut, r.lost, r.twice, r.slowest.Round(time.Millisecond))
		}
		_ = w.Flush()
	}
	os.Exit(code)
}
