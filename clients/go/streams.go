package docpreview

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// streamsPerConn is below the 100 concurrent streams that the gateway admits on a connection, one of which is the health
// check's. Further ones would wait in the client, silently, until another ends.
const streamsPerConn = 90

// streamPool gives watches and waits connections of their own, so that however many of them there are other calls go
// through. A connection without streams is closed by gRPC after a time, and opened again when it is needed.
type streamPool struct {
	connect func() (*grpc.ClientConn, error)
	mutex   sync.Mutex
	conns   []*pooledConn
	closed  bool
}

type pooledConn struct {
	*grpc.ClientConn
	streams int
}

// acquire returns a connection with room for one stream more; release must be called when that has ended.
func (p *streamPool) acquire() (conn *grpc.ClientConn, release func(), err error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.closed {
		return nil, nil, newError(codes.FailedPrecondition, nil, "the client is closed")
	}
	chosen := p.withRoom()
	if chosen == nil {
		made, err := p.connect()
		if err != nil {
			return nil, nil, err
		}
		chosen = &pooledConn{ClientConn: made}
		p.conns = append(p.conns, chosen)
	}
	chosen.streams++
	return chosen.ClientConn, func() {
		p.mutex.Lock()
		defer p.mutex.Unlock()
		chosen.streams--
	}, nil
}

// withRoom is the first that has room, so that the others become idle.
func (p *streamPool) withRoom() *pooledConn {
	for _, conn := range p.conns {
		if conn.streams < streamsPerConn {
			return conn
		}
	}
	return nil
}

func (p *streamPool) close() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.closed = true
	for _, conn := range p.conns {
		_ = conn.Close()
	}
}
