package guard

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// maxURL is the longest URL taken, in bytes.
const maxURL = 8 << 10

// CheckURL tells whether a URL could be called, as far as that can be said without asking anybody: it is http or https, has
// a host and no user name, and does not spell out an address that is off limits. The error's text is safe to show.
// What passes is checked again when it is dialed.
func (c *Client) CheckURL(raw string) error {
	if len(raw) > maxURL {
		return invalid("The URL is too long.")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return invalid("This is not a valid URL.")
	}
	return c.check(u)
}

func (c *Client) check(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" {
		return invalid("The URL must begin with http:// or https://.")
	}
	if u.User != nil {
		return invalid("The URL must not hold a user name or password.")
	}
	host := u.Hostname()
	if u.Opaque != "" || strings.Trim(host, ".") == "" {
		return invalid("The URL has no host.")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return invalid("The URL's port is not a number from 1 to 65535.")
		}
	}
	return c.checkHost(host)
}

// checkHost refuses hosts that are an address off limits in any spelling. Numbers that are no plain address (127.1,
// 0x7f000001, 0177.0.0.1) are refused whatever they mean: some resolvers read them as addresses and some as names.
func (c *Client) checkHost(host string) error {
	ascii, err := idna.Lookup.ToASCII(host)
	if strings.Contains(host, ":") || isASCII(host) {
		ascii, err = host, nil
	}
	if err != nil {
		return invalid("The URL's host is not a valid name.")
	}
	if c.options.AnyAddress {
		return nil
	}
	ascii = strings.ToLower(strings.TrimSuffix(ascii, "."))
	if a, err := netip.ParseAddr(ascii); err == nil {
		// A zone is an interface of this machine.
		if a.Zone() != "" || !c.options.reachable(a) {
			return errBlocked
		}
		return nil
	}
	label := ascii[strings.LastIndexByte(ascii, '.')+1:]
	if strings.Contains(ascii, ":") || isNumber(label) || label == "localhost" && !c.options.reachable(loopback) {
		return errBlocked
	}
	return nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// isNumber tells whether a label is a number as inet_aton(3) reads them.
func isNumber(label string) bool {
	digits, hex := strings.CutPrefix(label, "0x")
	if !hex {
		return label != "" && strings.Trim(label, "0123456789") == ""
	}
	return strings.Trim(digits, "0123456789abcdef") == ""
}
