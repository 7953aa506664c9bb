package sweep

import (
	"encoding/json"
	"io"
	"maps"
	"slices"
	"time"
)

// EMF gives a Report that writes one line in the embedded metric format, which CloudWatch makes metrics of: one for each
// name, in the namespace Muster. A sweep that finds nothing writes nothing and costs nothing.
func EMF[Name ~string](w io.Writer, now func() time.Time) func(map[Name]int) {
	type metric struct{ Name, Unit string }
	type directive struct {
		Namespace  string
		Dimensions [][]string
		Metrics    []metric
	}
	return func(found map[Name]int) {
		line := map[string]any{}
		d := directive{Namespace: "Muster", Dimensions: [][]string{{}}}
		for _, finding := range slices.Sorted(maps.Keys(found)) {
			d.Metrics = append(d.Metrics, metric{string(finding), "Count"})
			line[string(finding)] = found[finding]
		}
		line["_aws"] = map[string]any{"Timestamp": now().UnixMilli(), "CloudWatchMetrics": []directive{d}}
		_ = json.NewEncoder(w).Encode(line) // a metric that cannot be written is no reason to fail a sweep
	}
}
