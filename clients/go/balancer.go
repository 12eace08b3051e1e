package docpreview

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/roundrobin"
	"google.golang.org/grpc/connectivity"
	_ "google.golang.org/grpc/health" // client-side health checking, named in the service config
	"google.golang.org/grpc/resolver"
)

// balancerName is the load-balancing policy of this package: round_robin, which avoids connections whose gateway reports
// itself as not serving, except when all do. A stopping gateway reports so and still answers for some seconds. Where one
// address stands for many gateways (a Kubernetes ClusterIP, a proxy) there is no other connection to go to, and round_robin
// alone would fail each call until the gateway has closed this one.
const balancerName = "docpreview_round_robin"

func init() { balancer.Register(lenientBuilder{}) }

type lenientBuilder struct{}

func (lenientBuilder) Name() string { return balancerName }

func (lenientBuilder) Build(conn balancer.ClientConn, options balancer.BuildOptions) balancer.Balancer {
	lenient := &lenientConn{ClientConn: conn, connected: map[balancer.SubConn]bool{}}
	return balancer.Get(roundrobin.Name).Build(lenient, options)
}

// lenientConn is what round_robin sees of the channel.
type lenientConn struct {
	balancer.ClientConn
	mutex     sync.Mutex                // round_robin has goroutines of its own
	connected map[balancer.SubConn]bool // whatever their health
}

// NewSubConn notes which connections there are. round_robin hears of them afterwards.
func (l *lenientConn) NewSubConn(addresses []resolver.Address, options balancer.NewSubConnOptions) (balancer.SubConn, error) {
	var made balancer.SubConn
	listener := options.StateListener
	options.StateListener = func(state balancer.SubConnState) {
		l.mutex.Lock()
		if state.ConnectivityState == connectivity.Ready {
			l.connected[made] = true
		} else {
			delete(l.connected, made)
		}
		l.mutex.Unlock()
		listener(state)
	}
	made, err := l.ClientConn.NewSubConn(addresses, options)
	return made, err
}

// UpdateState replaces "none is healthy" by the connections that there are.
func (l *lenientConn) UpdateState(state balancer.State) {
	l.mutex.Lock()
	connected := slices.Collect(maps.Keys(l.connected))
	l.mutex.Unlock()
	if state.ConnectivityState == connectivity.TransientFailure && len(connected) > 0 {
		state = balancer.State{ConnectivityState: connectivity.Ready, Picker: &anyOf{conns: connected}}
	}
	l.ClientConn.UpdateState(state)
}

// anyOf picks one connection after the other.
type anyOf struct {
	conns []balancer.SubConn
	next  atomic.Uint32
}

func (a *anyOf) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{SubConn: a.conns[a.next.Add(1)%uint32(len(a.conns))]}, nil
}
