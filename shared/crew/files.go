package crew

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster/shared/fault"
)

// The limits of the files of one version.
const (
	MaxFilesSize = 5 << 20
	maxFiles     = 1000
	maxPath      = 255
	// maxDocument limits each file that is parsed; knowledge is not.
	maxDocument = 1 << 20
)

// Digest names the content of files: the same names with the same bytes give the same digest.
func Digest(files map[string][]byte) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for _, part := range [][]byte{[]byte(name), files[name]} {
			_ = binary.Write(h, binary.BigEndian, uint64(len(part)))
			h.Write(part)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// checkFiles holds the files to the limits and their names to plain relative paths.
func checkFiles(files map[string][]byte) error {
	if len(files) == 0 {
		return fault.New(fault.Invalid, "The deployment has no files; it needs crew.jsonc with agents/*.jsonc, or agents.yaml and tasks.yaml.")
	}
	if len(files) > maxFiles {
		return fault.New(fault.TooLarge, "The deployment has %d files; at most %d are allowed.", len(files), maxFiles)
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if reason := badPath(name); reason != "" {
			return fault.New(fault.Invalid, "The file name %q %s.", shorten(name), reason)
		}
		size += len(name) + len(files[name])
	}
	if size > MaxFilesSize {
		return fault.New(fault.TooLarge, "The files have %d bytes together; at most %d (5 MiB) are allowed.", size, MaxFilesSize)
	}
	return nil
}

// badPath says what is wrong with a file name, "" when nothing is.
func badPath(name string) string {
	switch {
	case name == "" || len(name) > maxPath:
		return fmt.Sprintf("must have 1 to %d bytes", maxPath)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return "must be readable text"
	case strings.Contains(name, `\`):
		return "must have slashes and no backslashes"
	case path.IsAbs(name) || name == ".." || strings.HasPrefix(path.Clean(name), "../"):
		return "must stay inside the deployment"
	case path.Clean(name) != name || name == ".":
		return "must be a plain path, such as config/agents.yaml"
	}
	return ""
}

// packFiles makes one archive of the files, always the same bytes for the same files.
func packFiles(files map[string][]byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// unpackFiles undoes packFiles.
func unpackFiles(archive []byte) (map[string][]byte, error) {
	files := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			return nil, err
		}
	}
}

// shorten keeps what a message quotes to a readable length.
func shorten(s string) string {
	const most = 80
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}
