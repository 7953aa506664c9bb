package faults_test

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// soak asks for everything instead of a sample.
var soak = flag.Bool("soak", false, "play everything instead of a sample; takes minutes")

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

func TestMain(m *testing.M) {
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
