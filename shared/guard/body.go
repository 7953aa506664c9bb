package guard

import (
	"errors"
	"io"
)

// ReadBody reads at most limit bytes of a response body. truncated tells that there was more, or that the body broke off:
// what was read is given either way, with the error that broke it. It does not close the body.
func ReadBody(body io.Reader, limit int64) (data []byte, truncated bool, err error) {
	data, err = io.ReadAll(io.LimitReader(body, limit+1))
	if int64(len(data)) > limit {
		return data[:limit], true, nil
	}
	if err != nil {
		if errors.Is(err, errTooLarge) {
			return data, true, nil
		}
		return data, true, classify(err)
	}
	return data, false, nil
}

// cappedBody fails with errTooLarge when the body is longer than the client takes.
type cappedBody struct {
	body io.ReadCloser
	left int64
}

func (b *cappedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.body.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return n - 1, errTooLarge
	}
	return n, err
}

func (b *cappedBody) Close() error { return b.body.Close() }
