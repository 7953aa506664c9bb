package record

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/uuid"
)

// A blob is a record whose body may have any size. What fits is one record, compressed when that saves something. What
// does not is cut into parts, which are written first, each under a key with a nonce of its own; the record itself, the
// head, comes last and names them. So whoever reads a head finds its parts whole, the head's condition decides for all of
// them, and parts of a head that lost its race, or was replaced, are only garbage. They lie in the head's partition below
// PartsPrefix, where no domain keeps anything else, and expire a little after the head they were written for.

// PartsPrefix begins the Sort of every part of a blob: "B#<sort of the head>#<nonce>#<number>".
const PartsPrefix = "B#"

const (
	// partSize keeps a record with its keys and indexes well below the 400 KB that DynamoDB takes.
	partSize = 300 << 10
	// smallBody is not worth compressing: with its keys it is one write unit of DynamoDB as it is.
	smallBody = 700
	// partsOutlive is how much longer parts are kept than their head, so that a reader of the head finds them.
	partsOutlive = time.Hour
)

// The first byte of a blob's Body says how to read the rest.
const (
	asIs     = 0 // the body
	deflated = 1 // the body, deflated
	inParts  = 2 // a head as JSON; the parts together are a Body with a first byte of its own
)

// head names the parts of a body.
type head struct {
	Nonce  string `json:"nonce"`
	Parts  int    `json:"parts"`
	SHA256 string `json:"sha256"`
}

// PutBlob is Put for a body of any size; GetBlob and Inflate read it. Due, List, Order, Expires and the condition on Rev are those of the head. When
// the condition fails because an earlier try of this very call got through, that is a success.
func PutBlob(ctx context.Context, s Store, r Record) (rev int64, err error) {
	body, err := pack(r.Body)
	if err != nil {
		return 0, fmt.Errorf("compress %s %s: %w", r.Part, r.Sort, err)
	}
	if len(body) <= partSize {
		r.Body = body
		return s.Put(ctx, r)
	}

	sum := sha256.Sum256(body)
	h := head{Nonce: uuid.NewString(), SHA256: hex.EncodeToString(sum[:])}
	for ; len(body) > 0; h.Parts++ {
		n := min(partSize, len(body))
		part := Record{Key: h.part(r.Key, h.Parts), Body: body[:n]}
		if !r.Expires.IsZero() {
			part.Expires = r.Expires.Add(partsOutlive)
		}
		if _, err := s.Put(ctx, part); err != nil && !sameBody(err, part.Body) {
			return 0, fmt.Errorf("write part %d of %s %s: %w", h.Parts, r.Part, r.Sort, hideConflict(err))
		}
		body = body[n:]
	}
	named, err := json.Marshal(h)
	if err != nil {
		return 0, fmt.Errorf("write the head of %s %s: %w", r.Part, r.Sort, err)
	}
	r.Body = append([]byte{inParts}, named...)
	rev, err = s.Put(ctx, r)
	if sameBody(err, r.Body) {
		mine, _ := Current(err)
		return mine.Rev, nil
	}
	return rev, err
}

// GetBlob is Get for what PutBlob wrote.
func GetBlob(ctx context.Context, s Store, k Key) (Record, error) {
	r, err := s.Get(ctx, k)
	if err != nil {
		return Record{}, err
	}
	return Inflate(ctx, s, r)
}

// Inflate gives a record that PutBlob wrote, and Get, Scan, Due, List or Current found, its body back. A record that an index
// returned without a body stays without.
func Inflate(ctx context.Context, s Store, r Record) (Record, error) {
	body, err := unpack(ctx, s, r)
	if err != nil {
		return Record{}, fmt.Errorf("read %s %s: %w", r.Part, r.Sort, err)
	}
	r.Body = body
	return r, nil
}

func (h head) part(k Key, n int) Key { return Key{k.Part, fmt.Sprintf("%s%04d", h.prefix(k), n)} }

func (h head) prefix(k Key) string { return PartsPrefix + k.Sort + "#" + h.Nonce + "#" }

// sameBody tells whether a condition failed because the very bytes to be written are there. Heads and parts hold, or lie
// under, a fresh nonce, so that nobody else can have written them.
func sameBody(err error, body []byte) bool {
	there, ok := Current(err)
	return ok && bytes.Equal(there.Body, body)
}

// hideConflict keeps a failure of a part from being taken for a lost race of the head.
func hideConflict(err error) error { return errors.New(err.Error()) }

var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(io.Discard, flate.DefaultCompression) // fails for a wrong level only
	return w
}}

var inflaters = sync.Pool{New: func() any { return flate.NewReader(bytes.NewReader(nil)) }}

func inflate(data []byte) ([]byte, error) {
	r := inflaters.Get().(io.Reader)
	defer inflaters.Put(r)
	if err := r.(flate.Resetter).Reset(bytes.NewReader(data), nil); err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// pack puts the first byte before a body and compresses it if that makes it shorter.
func pack(body []byte) ([]byte, error) {
	if len(body) > smallBody {
		var out bytes.Buffer
		out.Grow(len(body) / 2)
		out.WriteByte(deflated)
		w := deflaters.Get().(*flate.Writer)
		defer deflaters.Put(w)
		w.Reset(&out)
		if _, err := w.Write(body); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		if out.Len() <= len(body) {
			return out.Bytes(), nil
		}
	}
	return append([]byte{asIs}, body...), nil
}

// unpack undoes PutBlob.
func unpack(ctx context.Context, s Store, r Record) ([]byte, error) {
	if len(r.Body) == 0 {
		return nil, nil
	}
	form, rest := r.Body[0], r.Body[1:]
	switch form {
	case asIs:
		return rest, nil
	case deflated:
		return inflate(rest)
	case inParts:
		var h head
		if err := json.Unmarshal(rest, &h); err != nil {
			return nil, fmt.Errorf("decode the head: %w", err)
		}
		whole, err := join(ctx, s, r.Key, h)
		if err != nil {
			return nil, err
		}
		if len(whole) == 0 || whole[0] == inParts {
			return nil, errors.New("the parts hold no body")
		}
		return unpack(ctx, s, Record{Key: r.Key, Body: whole})
	}
	return nil, fmt.Errorf("the body begins with %d, which PutBlob never writes", form)
}

// join reads the parts that a head names and checks that they are all there and unharmed.
func join(ctx context.Context, s Store, k Key, h head) ([]byte, error) {
	parts, err := s.Scan(ctx, Prefix(k.Part, h.prefix(k)))
	if err != nil {
		return nil, fmt.Errorf("read its parts: %w", err)
	}
	if len(parts) != h.Parts {
		return nil, fmt.Errorf("it has %d of its %d parts", len(parts), h.Parts)
	}
	var whole []byte
	for _, p := range parts {
		whole = append(whole, p.Body...)
	}
	if sum := sha256.Sum256(whole); hex.EncodeToString(sum[:]) != h.SHA256 {
		return nil, errors.New("its parts do not match their digest")
	}
	return whole, nil
}
