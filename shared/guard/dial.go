package guard

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// dial resolves the name and connects to the first of its addresses that is allowed and answers.
func (c *Client) dial(ctx context.Context, network, hostport string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, invalid("The URL has no usable host and port.")
	}
	addrs, err := c.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return c.connect(ctx, network, addrs, port)
}

func (c *Client) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, c.resolving)
	defer cancel()
	all, err := c.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, dnsFailure(err)
	}
	var allowed []netip.Addr
	for _, a := range all {
		if c.options.reachable(a) {
			allowed = append(allowed, a)
		}
	}
	if len(allowed) == 0 {
		return nil, errBlocked
	}
	return allowed[:min(len(allowed), maxAddresses)], nil
}

// connect tries one address after the other; each gets its fair share of the time that is left.
func (c *Client) connect(ctx context.Context, network string, addrs []netip.Addr, port string) (net.Conn, error) {
	dialer := net.Dialer{ControlContext: c.control, KeepAlive: 15 * time.Second}
	end, _ := ctx.Deadline()
	var first error
	for i, a := range addrs {
		share, cancel := context.WithTimeout(ctx, time.Until(end)/time.Duration(len(addrs)-i))
		conn, err := dialer.DialContext(share, network, net.JoinHostPort(a.String(), port))
		cancel()
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	if errors.Is(first, errBlocked) {
		return nil, errBlocked
	}
	return nil, failed(Connect, connectMessage(first), first)
}

// control is called with the address of the socket about to be connected: the last word, whatever led here.
func (c *Client) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !c.options.reachable(to.Addr()) {
		return errBlocked
	}
	return nil
}

// dialTLS is dial with the handshake, which is made here so that its failures are known as such.
func (c *Client) dialTLS(ctx context.Context, network, hostport string) (net.Conn, error) {
	plain, err := c.dial(ctx, network, hostport)
	if err != nil {
		return nil, err
	}
	config := c.tls.Clone()
	config.ServerName, _, _ = net.SplitHostPort(hostport)
	ctx, cancel := context.WithTimeout(ctx, c.handshaking)
	defer cancel()
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		plain.Close()
		return nil, tlsFailure(err)
	}
	return conn, nil
}
