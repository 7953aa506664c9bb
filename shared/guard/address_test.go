package guard

import (
	"net/netip"
	"testing"
)

func TestAddresses(t *testing.T) {
	blocked := []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
		"169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1",
		"192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
		"240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::8.8.8.8", "::ffff:0:7f00:1",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808", "100::1", "2001::1",
		"2001:0:7f00:1::", "2001:1::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "3fff:fff::1",
		"4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "febf::1", "fec0::1", "ff02::1",
		"::5efe:7f00:1", "fe80::5efe:7f00:1", "2a00:1450::5efe:7f00:1", "2a00:1450::200:5efe:a00:1",
	}
	open := []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255", "128.0.0.1",
		"169.253.255.255", "169.255.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1", "192.0.3.1", "192.31.196.1",
		"192.167.255.255", "192.169.0.1", "198.17.255.255", "198.20.0.1", "198.51.101.1", "203.0.114.1", "223.255.255.255",
		"::ffff:8.8.8.8", "64:ff9b::808:808", "2000::1", "2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700::1111",
		"2a00:1450::200:5efe:808:808", "3ffe::1",
	}
	for _, s := range blocked {
		if (Options{}).reachable(netip.MustParseAddr(s)) {
			t.Errorf("%s is reachable and must be blocked", s)
		}
	}
	for _, s := range open {
		if !(Options{}).reachable(netip.MustParseAddr(s)) {
			t.Errorf("%s is blocked and must stay allowed", s)
		}
	}
}

func TestWhatOptionsOpen(t *testing.T) {
	private := Options{Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	for _, c := range []struct {
		name    string
		options Options
		address string
		want    bool
	}{
		{"loopback on purpose", Options{AllowLoopback: true}, "127.0.0.1", true},
		{"loopback in its mapped form", Options{AllowLoopback: true}, "::ffff:127.0.0.1", true},
		{"loopback of IPv6", Options{AllowLoopback: true}, "::1", true},
		{"loopback opens nothing else", Options{AllowLoopback: true}, "169.254.169.254", false},
		{"loopback opens no unspecified address", Options{AllowLoopback: true}, "0.0.0.0", false},
		{"a private prefix on purpose", private, "10.1.2.3", true},
		{"a private prefix in mapped form", private, "::ffff:10.1.2.3", true},
		{"the neighbour of an allowed prefix", private, "10.2.0.1", false},
		{"an allowed prefix behind NAT64", private, "64:ff9b::a01:203", false},
		{"the operator's own addresses", Options{AnyAddress: true}, "10.2.0.1", true},
		{"no address at all", Options{}, "", false},
	} {
		a, _ := netip.ParseAddr(c.address)
		if got := c.options.reachable(a); got != c.want {
			t.Errorf("%s: reachable(%s) = %t, want %t", c.name, c.address, got, c.want)
		}
	}
}

// However an IPv4 address is wrapped, what it wraps decides.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "8.8.8.8", "169.254.169.254", "192.88.99.1"} {
		a := netip.MustParseAddr(s).As4()
		f.Add(a[0], a[1], a[2], a[3], uint64(0x2a00_1450_0000_0000))
	}
	f.Fuzz(func(t *testing.T, a, b, c, d byte, network uint64) {
		v4 := netip.AddrFrom4([4]byte{a, b, c, d})
		want := Options{}.reachable(v4)
		wrap := func(prefix ...byte) netip.Addr {
			var whole [16]byte
			copy(whole[:], prefix)
			copy(whole[12:], v4.AsSlice())
			return netip.AddrFrom16(whole)
		}
		for _, same := range []netip.Addr{netip.AddrFrom16(v4.As16()), wrap(0, 0x64, 0xff, 0x9b)} {
			if got := (Options{}).reachable(same); got != want {
				t.Errorf("%s is reachable: %t, and %s: %t", v4, want, same, got)
			}
		}
		for _, never := range []netip.Addr{wrap(), wrap(0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff), wrap(0, 0x64, 0xff, 0x9b, 0, 1), wrap(0x20, 0x02, a, b, c, d), wrap(0x20, 0x01), wrap(0xfe, 0x80), wrap(0xfc)} {
			if (Options{}).reachable(never) {
				t.Errorf("%s is reachable", never)
			}
		}
		tunnel := wrap(byte(network>>56), byte(network>>48), byte(network>>40), byte(network>>32), byte(network>>24), byte(network>>16), byte(network>>8), byte(network), 0, 0, 0x5e, 0xfe)
		if !want && (Options{}).reachable(tunnel) {
			t.Errorf("%s is reachable, a tunnel to %s", tunnel, v4)
		}
	})
}
