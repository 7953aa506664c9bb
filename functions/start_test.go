package functions_test

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"muster/infra"
	"muster/infra/runtimeapi"
)

// BenchmarkStart measures each bootstrap from the start of its process to its first request for work, and the size of its
// zip.
func BenchmarkStart(b *testing.B) {
	var names []string
	for _, f := range infra.Functions {
		names = append(names, f.Name)
	}
	bootstraps, err := runtimeapi.Build(b.Context(), "..", b.TempDir(), names...)
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range names {
		b.Run(name, func(b *testing.B) {
			zipped := zippedSize(b, bootstraps[name])
			var took time.Duration
			for b.Loop() {
				f := &runtimeapi.Function{Name: name, Bootstrap: bootstraps[name], Output: os.Stderr, Env: environment(
					"muster", "https://queues.example/runs", "https://queues.example/runs-dead", "https://queues.example/deliveries", "https://queues.example/deliveries-dead")}
				once, err := f.Start()
				if err != nil {
					b.Fatal(err)
				}
				took += once
				f.Close()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(took.Seconds()*1000/float64(b.N), "ms-to-next")
			b.ReportMetric(float64(zipped)/(1<<20), "MiB-zipped")
		})
	}
}

func zippedSize(b *testing.B, path string) int {
	b.Helper()
	binary, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer binary.Close()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	w, err := z.Create("bootstrap")
	if err == nil {
		_, err = io.Copy(w, binary)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	return out.Len()
}
