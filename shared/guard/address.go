package guard

import (
	"encoding/binary"
	"net/netip"
)

// closed holds what is not the public Internet, by the IANA special-purpose registries, and the metadata services of
// clouds where these lie elsewhere.
var closed = prefixes(
	"0.0.0.0/8",        // this network
	"10.0.0.0/8",       // private
	"100.64.0.0/10",    // carriers' NAT, and metadata of Alibaba Cloud
	"127.0.0.0/8",      // loopback: in a Lambda sandbox, the Runtime API
	"168.63.129.16/32", // Azure's host agent
	"169.254.0.0/16",   // link-local: metadata, container credentials
	"172.16.0.0/12",    // private
	"192.0.0.0/24",     // protocol assignments
	"192.0.2.0/24",     // documentation
	"192.88.99.0/24",   // 6to4 relays
	"192.168.0.0/16",   // private
	"198.18.0.0/15",    // benchmarks
	"198.51.100.0/24",  // documentation
	"203.0.113.0/24",   // documentation
	"224.0.0.0/4",      // multicast
	"240.0.0.0/4",      // reserved, and broadcast

	"2001::/23",     // protocol assignments, Teredo and ORCHID among them
	"2001:db8::/32", // documentation
	"2002::/16",     // 6to4: any IPv4 address
	"3fff::/20",     // documentation
)

var (
	// global is where public IPv6 addresses are; everything outside is loopback, unique local, link-local, site-local,
	// multicast, mapped, translated, discard-only, segment routing or not assigned.
	global   = netip.MustParsePrefix("2000::/3")
	nat64    = netip.MustParsePrefix("64:ff9b::/96")
	loopback = netip.MustParseAddr("127.0.0.1")
)

func prefixes(all ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(all))
	for i, s := range all {
		list[i] = netip.MustParsePrefix(s)
	}
	return list
}

// reachable tells whether this client may connect to the address.
func (o Options) reachable(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if o.AnyAddress || o.AllowLoopback && a.IsLoopback() {
		return true
	}
	for _, p := range o.Allow {
		if p.Contains(a) {
			return true
		}
	}
	return public(a)
}

// public tells whether the address belongs to the public Internet, looking also at the IPv4 address that some IPv6
// addresses stand for.
func public(a netip.Addr) bool {
	if a.Is6() {
		if nat64.Contains(a) {
			return public(last4(a))
		}
		if !global.Contains(a) || isatap(a) && !public(last4(a)) {
			return false
		}
	}
	for _, p := range closed {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsValid()
}

// isatap tells whether the address is that of a tunnel to the IPv4 address in its last four bytes.
func isatap(a netip.Addr) bool {
	b := a.As16()
	mark := binary.BigEndian.Uint32(b[8:12])
	return mark == 0x0000_5efe || mark == 0x0200_5efe
}

func last4(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}
