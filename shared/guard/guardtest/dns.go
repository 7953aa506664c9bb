package guardtest

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Names is a name server. It maps full names, with the dot at their end, to what they have, each time they are asked for:
// addresses, or one "cname other.example." A name that begins with "broken" is a failure of the server, one with "refused"
// is refused, "silent" is never answered, "garbled" is answered with nonsense; what is not there does not exist.
type Names map[string][]string

// Resolver starts a server of the names, over UDP and TCP, and gives a resolver that asks nobody else.
func (n Names) Resolver(t testing.TB) *net.Resolver { return n.InTurn(t) }

// InTurn starts a server that answers a resolver's first query of a type from n, the next ones from those that follow, and
// from the last one for ever: what a rebinding name does.
func (n Names) InTurn(t testing.TB, then ...Names) *net.Resolver {
	s := &nameServer{turns: append([]Names{n}, then...), asked: map[string]int{}}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close() })
	go s.packets(packets)
	streams := listen(t, s.stream)
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if strings.HasPrefix(network, "tcp") {
			return new(net.Dialer).DialContext(ctx, "tcp", streams)
		}
		return new(net.Dialer).DialContext(ctx, "udp", packets.LocalAddr().String())
	}}
}

type nameServer struct {
	turns []Names

	mu    sync.Mutex
	asked map[string]int
}

// maxPacket is what a resolver that says nothing else takes over UDP.
const maxPacket = 512

func (s *nameServer) packets(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := s.answer(buf[:n], maxPacket); answer != nil {
			c.WriteTo(answer, from)
		}
	}
}

func (s *nameServer) stream(c net.Conn) {
	defer c.Close()
	for {
		var size uint16
		if binary.Read(c, binary.BigEndian, &size) != nil {
			return
		}
		query := make([]byte, size)
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		answer := s.answer(query, 1<<16-1)
		if answer == nil {
			return
		}
		c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	}
}

// answer gives nil where none is to be sent.
func (s *nameServer) answer(query []byte, limit int) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := q.Name.String()
	has, known := s.turn(q)[name]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	switch {
	case strings.HasPrefix(name, "silent"):
		return nil
	case strings.HasPrefix(name, "garbled"):
		return append(query[:2:2], "\xff\xff nonsense"...)
	case strings.HasPrefix(name, "broken"):
		m.RCode = dnsmessage.RCodeServerFailure
	case strings.HasPrefix(name, "refused"):
		m.RCode = dnsmessage.RCodeRefused
	case !known:
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, one := range has {
		header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type} // with a TTL of 0
		if alias, ok := strings.CutPrefix(one, "cname "); ok {
			header.Type = dnsmessage.TypeCNAME
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(alias)}})
			continue
		}
		switch a := netip.MustParseAddr(one); {
		case q.Type == dnsmessage.TypeA && a.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	packed, err := m.Pack()
	if err == nil && len(packed) > limit {
		m.Truncated, m.Answers = true, nil
		packed, err = m.Pack()
	}
	if err != nil {
		return nil
	}
	return packed
}

// turn gives the names that answer this query.
func (s *nameServer) turn(q dnsmessage.Question) Names {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := q.Name.String() + q.Type.String()
	n := min(s.asked[key], len(s.turns)-1)
	s.asked[key]++
	return s.turns[n]
}
