package guard

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestCheckURL(t *testing.T) {
	strangers, local := New(Options{}), New(Options{AllowLoopback: true})
	operator := New(Options{AnyAddress: true})
	for _, c := range []struct {
		name   string
		client *Client
		url    string
		want   string // class, "" for none
	}{
		{"an ordinary URL", strangers, "https://example.com/hook?x=1", ""},
		{"http", strangers, "http://example.com", ""},
		{"upper case", strangers, "HTTPS://Example.COM/", ""},
		{"any port", strangers, "https://example.com:8443/", ""},
		{"a public address", strangers, "http://8.8.8.8/", ""},
		{"a public IPv6 address", strangers, "http://[2606:4700::1111]:80/", ""},
		{"a name in another script", strangers, "https://bücher.example/", ""},
		{"a name beginning with digits", strangers, "https://1and1.com/", ""},
		{"a name of hex digits", strangers, "https://0x7f.example.com/", ""},
		{"a name with a trailing dot", strangers, "https://example.com./", ""},

		{"an empty URL", strangers, "", Invalid},
		{"no scheme", strangers, "example.com/hook", Invalid},
		{"a file", strangers, "file:///etc/passwd", Invalid},
		{"gopher", strangers, "gopher://example.com/", Invalid},
		{"javascript", strangers, "javascript:alert(1)", Invalid},
		{"ftp", strangers, "ftp://example.com/", Invalid},
		{"no host", strangers, "http://", Invalid},
		{"a dot for a host", strangers, "http://./", Invalid},
		{"an opaque URL", strangers, "http:example.com", Invalid},
		{"a user", strangers, "https://user@example.com/", Invalid},
		{"a password", strangers, "https://user:secret@example.com/", Invalid},
		{"port 0", strangers, "http://example.com:0/", Invalid},
		{"a port too high", strangers, "http://example.com:65536/", Invalid},
		{"a space in the host", strangers, "http://exa mple.com/", Invalid},
		{"a line break", strangers, "http://example.com/\r\nX: y", Invalid},
		{"a backslash", strangers, `http://example.com\@127.0.0.1/`, Invalid},
		{"a very long URL", strangers, "https://example.com/" + strings.Repeat("x", maxURL), Invalid},

		{"loopback", strangers, "http://127.0.0.1/", Blocked},
		{"loopback, short", strangers, "http://127.1/", Blocked},
		{"loopback, decimal", strangers, "http://2130706433/", Blocked},
		{"loopback, hexadecimal", strangers, "http://0x7f000001/", Blocked},
		{"loopback, hexadecimal parts", strangers, "http://0x7f.0.0.0x1/", Blocked},
		{"loopback, octal", strangers, "http://0177.0.0.1/", Blocked},
		{"zero", strangers, "http://0/", Blocked},
		{"an empty hexadecimal number", strangers, "http://0x/", Blocked},
		{"a trailing dot", strangers, "http://127.0.0.1./", Blocked},
		{"full-width digits", strangers, "http://１２７.０.０.１/", Blocked},
		{"circled digits", strangers, "http://①②⑦.⓪.⓪.①/", Blocked},
		{"an ideographic full stop", strangers, "http://127。0。0。1/", Blocked},
		{"localhost", strangers, "http://localhost:9001/2018-06-01/runtime/invocation/next", Blocked},
		{"a name below localhost", strangers, "http://a.LOCALHOST./", Blocked},
		{"IPv6 loopback", strangers, "http://[::1]/", Blocked},
		{"mapped", strangers, "http://[::ffff:127.0.0.1]/", Blocked},
		{"compatible", strangers, "http://[::127.0.0.1]/", Blocked},
		{"translated", strangers, "http://[::ffff:0:7f00:1]/", Blocked},
		{"NAT64", strangers, "http://[64:ff9b::7f00:1]/", Blocked},
		{"a zone", strangers, "http://[fe80::1%25lo]/", Blocked},
		{"a zone of a public address", strangers, "http://[2606:4700::1111%25lo]/", Blocked},
		{"metadata", strangers, "http://169.254.169.254/latest/meta-data/", Blocked},
		{"metadata over IPv6", strangers, "http://[fd00:ec2::254]/", Blocked},

		{"loopback where it is allowed", local, "http://127.0.0.1:8080/", ""},
		{"localhost where it is allowed", local, "http://localhost:8080/", ""},
		{"metadata where loopback is allowed", local, "http://169.254.169.254/", Blocked},
		{"short forms where loopback is allowed", local, "http://127.1/", Blocked},
		{"anything of the operator", operator, "http://ollama.internal:11434/v1", ""},
		{"a private address of the operator", operator, "http://10.0.0.7/v1", ""},
		{"a file of the operator", operator, "file:///etc/passwd", Invalid},
		{"a user of the operator", operator, "http://u:p@10.0.0.7/v1", Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.client.CheckURL(c.url)
			if got := Class(err); got != c.want {
				t.Fatalf("CheckURL(%q) = %v, class %q, want %q", c.url, err, got, c.want)
			}
			if c.want == Blocked && err.Error() != "This address cannot be reached from here." {
				t.Errorf("the sentence tells more than that it is blocked: %s", err)
			}
		})
	}
}

func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{"https://example.com", "http://127.1", "http://[::1]:80/", "http://①②⑦.0.0.1", "http:a", "http://[fe80::1%25lo]/",
		"http://0x7f.1", "http://a%80/", "http://８.８.８.８/"} {
		f.Add(s)
	}
	c := New(Options{})
	f.Fuzz(func(t *testing.T, raw string) {
		if c.CheckURL(raw) != nil {
			return
		}
		u, err := url.Parse(raw)
		if err != nil || u.User != nil || u.Hostname() == "" {
			t.Fatalf("%q passed, although it parses as %+v, %v", raw, u, err)
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && !public(a.Unmap()) {
			t.Fatalf("%q passed, although its host is %s", raw, a)
		}
	})
}
