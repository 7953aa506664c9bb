package record_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster/shared/fault"
	"muster/shared/record"
	"muster/shared/storetest"
)

var key = record.Key{Part: "R#1", Sort: "P#000007"}

// noise gives n bytes that no compression makes shorter.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func TestBlob_comes_back_as_it_was(t *testing.T) {
	for name, body := range map[string][]byte{
		"nothing":                    {},
		"one byte":                   {2},
		"a small page":               []byte(`{"seq":7}`),
		"prose":                      []byte(strings.Repeat("A tenant was charged twice. ", 4000)),
		"noise of one record":        noise(200 << 10),
		"noise of many parts":        noise(620 << 10),
		"prose of a megabyte":        []byte(strings.Repeat("all work and no play ", 50_000)),
		"noise of exactly one part":  noise(300<<10 - 1),
		"noise of one byte too many": noise(300 << 10),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, s := context.Background(), &storetest.Memory{}
			rev, err := record.PutBlob(ctx, s, record.Record{Key: key, Body: body})
			if err != nil || rev != 1 {
				t.Fatalf("PutBlob: rev %d, %v", rev, err)
			}
			got, err := record.GetBlob(ctx, s, key)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Body, body) || got.Rev != 1 {
				t.Errorf("got %d bytes of revision %d, want %d of revision 1", len(got.Body), got.Rev, len(body))
			}
			for _, r := range s.Puts {
				if len(r.Body) > 350_000 {
					t.Errorf("%s has %d bytes", r.Sort, len(r.Body))
				}
			}
		})
	}
}

func TestBlob_compresses_prose_and_leaves_small_bodies_readable(t *testing.T) {
	ctx, s := context.Background(), &storetest.Memory{}
	if _, err := record.PutBlob(ctx, s, record.Record{Key: key, Body: []byte(strings.Repeat("The pool is exhausted. ", 300))}); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Puts[0].Body); n > 500 {
		t.Errorf("6900 bytes of the same sentence take %d", n)
	}
}

func TestBlob_writes_parts_before_the_head_and_only_the_head_is_indexed(t *testing.T) {
	ctx, s := context.Background(), &storetest.Memory{}
	end := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := record.Record{Key: key, Body: noise(610 << 10), Due: end, List: "runs", Order: "7", Expires: end}
	if _, err := record.PutBlob(ctx, s, r); err != nil {
		t.Fatal(err)
	}
	last := len(s.Puts) - 1
	for _, p := range s.Puts[:last] {
		if !strings.HasPrefix(p.Sort, record.PartsPrefix+key.Sort+"#") || p.Part != key.Part {
			t.Errorf("a part lies at %v", p.Key)
		}
		if !p.Due.IsZero() || p.List != "" || !p.Expires.After(end) {
			t.Errorf("part %s: due %v, list %q, expires %v", p.Sort, p.Due, p.List, p.Expires)
		}
	}
	if h := s.Puts[last]; h.Key != key || !h.Due.Equal(end) || h.List != "runs" || h.Order != "7" || !h.Expires.Equal(end) {
		t.Errorf("the head is %+v", h)
	}
}

func TestBlob_keeps_the_condition(t *testing.T) {
	ctx, s := context.Background(), &storetest.Memory{}
	first, second := noise(301<<10), noise(302<<10)
	if _, err := record.PutBlob(ctx, s, record.Record{Key: key, Body: first}); err != nil {
		t.Fatal(err)
	}
	_, err := record.PutBlob(ctx, s, record.Record{Key: key, Body: second})
	if !fault.Is(err, fault.Conflict) {
		t.Fatalf("a second first put gave %v", err)
	}
	winner, ok := record.Current(err)
	if !ok {
		t.Fatal("the conflict does not say what won")
	}
	if winner, err = record.Inflate(ctx, s, winner); err != nil || !bytes.Equal(winner.Body, first) {
		t.Errorf("the winner has %d bytes, %v", len(winner.Body), err)
	}
	if rev, err := record.PutBlob(ctx, s, record.Record{Key: key, Rev: 1, Body: second}); err != nil || rev != 2 {
		t.Errorf("replacing: revision %d, %v", rev, err)
	}
	if got, err := record.GetBlob(ctx, s, key); err != nil || !bytes.Equal(got.Body, second) {
		t.Errorf("after replacing: %d bytes, %v", len(got.Body), err)
	}
}

// twice does every put twice, as an SDK does that lost the first answer.
type twice struct{ *storetest.Memory }

func (s twice) Put(ctx context.Context, r record.Record) (int64, error) {
	if _, err := s.Memory.Put(ctx, r); err != nil {
		return 0, err
	}
	return s.Memory.Put(ctx, r)
}

func TestBlob_in_parts_survives_a_repeated_write_whose_answer_was_lost(t *testing.T) {
	ctx, s := context.Background(), twice{&storetest.Memory{}}
	body := noise(610 << 10)
	if rev, err := record.PutBlob(ctx, s, record.Record{Key: key, Body: body}); err != nil || rev != 1 {
		t.Fatalf("revision %d, %v", rev, err)
	}
	if got, err := record.GetBlob(ctx, s, key); err != nil || !bytes.Equal(got.Body, body) {
		t.Errorf("%d bytes, %v", len(got.Body), err)
	}
}

func TestBlob_is_invisible_until_its_head_is_there(t *testing.T) {
	for _, fails := range []int{1, 2, 3} {
		ctx, s := context.Background(), &storetest.Memory{}
		s.After = func(n int, _ record.Record) error {
			if n == fails {
				return errors.New("the connection broke")
			}
			return nil
		}
		_, err := record.PutBlob(ctx, s, record.Record{Key: key, Body: noise(610 << 10)})
		if err == nil || fault.Is(err, fault.Conflict) {
			t.Fatalf("failing write %d gave %v", fails, err)
		}
		if _, err := record.GetBlob(ctx, s, key); !fault.Is(err, fault.NotFound) {
			t.Errorf("after failing write %d reading gave %v", fails, err)
		}
	}
}

func TestBlob_says_when_a_part_is_missing_or_damaged(t *testing.T) {
	for name, harm := range map[string]func(*storetest.Memory, record.Key){
		"2 of its 3 parts": func(s *storetest.Memory, k record.Key) { delete(s.Records, k) },
		"match their digest": func(s *storetest.Memory, k record.Key) {
			r := s.Records[k]
			r.Body[0] ^= 1
			s.Records[k] = r
		},
	} {
		ctx, s := context.Background(), &storetest.Memory{}
		if _, err := record.PutBlob(ctx, s, record.Record{Key: key, Body: noise(610 << 10)}); err != nil {
			t.Fatal(err)
		}
		harm(s, s.Puts[1].Key)
		if _, err := record.GetBlob(ctx, s, key); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error about %q, got %v", name, err)
		}
	}
}

func TestBlob_read_without_a_body_stays_without(t *testing.T) {
	r, err := record.Inflate(context.Background(), &storetest.Memory{}, record.Record{Key: key, Rev: 3})
	if err != nil || r.Body != nil || r.Rev != 3 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestBlob_of_any_content(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx, s := context.Background(), &storetest.Memory{}
		body := bytes.Repeat(rapid.SliceOf(rapid.Byte()).Draw(t, "piece"), rapid.IntRange(1, 300).Draw(t, "times"))
		if _, err := record.PutBlob(ctx, s, record.Record{Key: key, Body: body}); err != nil {
			t.Fatal(err)
		}
		if got, err := record.GetBlob(ctx, s, key); err != nil || !bytes.Equal(got.Body, body) {
			t.Fatalf("%d bytes came back as %d, %v", len(body), len(got.Body), err)
		}
	})
}

func FuzzInflate(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{1, 2, 3})
	f.Add([]byte("\x02{\"parts\":1}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _ = record.Inflate(context.Background(), &storetest.Memory{}, record.Record{Key: key, Body: body})
	})
}
