package docpreview

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

// replica is a gateway that counts its calls and has a health service.
type replica struct {
	docpreviewv1.UnimplementedPreviewJobServiceServer
	calls   atomic.Int64
	health  *health.Server
	server  *grpc.Server
	address string
}

func (r *replica) GetPreviewJob(context.Context, *docpreviewv1.GetPreviewJobRequest) (*docpreviewv1.PreviewJob, error) {
	r.calls.Add(1)
	return running, nil
}

func (r *replica) CreatePreviewJob(context.Context, *docpreviewv1.CreatePreviewJobRequest) (*docpreviewv1.PreviewJob, error) {
	r.calls.Add(1)
	return running, nil
}

func startReplica(t *testing.T) *replica {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	made := &replica{health: health.NewServer(), server: grpc.NewServer(), address: listener.Addr().String()}
	docpreviewv1.RegisterPreviewJobServiceServer(made.server, made)
	healthv1.RegisterHealthServer(made.server, made.health)
	made.serving(healthv1.HealthCheckResponse_SERVING)
	go func() { _ = made.server.Serve(listener) }()
	t.Cleanup(made.server.Stop)
	return made
}

func (r *replica) serving(status healthv1.HealthCheckResponse_ServingStatus) {
	r.health.SetServingStatus("docpreview.v1.PreviewJobService", status)
}

// forward is an address that stands for many: a connection goes to the replica that is named when it is made.
func forward(t *testing.T, to *atomic.Pointer[replica]) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			onward, err := net.Dial("tcp", to.Load().address)
			if err != nil {
				_ = from.Close()
				continue
			}
			go pipe(from, onward)
			go pipe(onward, from)
		}
	}()
	return listener.Addr().String()
}

func pipe(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}

func TestClientOfOneAddressSeesNoFailedCallWhileAReplicaDrains(t *testing.T) {
	first, second := startReplica(t), startReplica(t)
	var behind atomic.Pointer[replica]
	behind.Store(first)
	client := connect(t, forward(t, &behind))
	get := func() {
		if _, err := client.Get(t.Context(), &docpreviewv1.GetPreviewJobRequest{}); err != nil {
			t.Error(err)
		}
	}
	get()
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Add(1)
		go func() {
			defer callers.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				get()
				if _, err := client.Create(t.Context(), request); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	first.serving(healthv1.HealthCheckResponse_NOT_SERVING)
	begun := first.calls.Load()
	await(t, func() bool { return first.calls.Load() > begun+2000 }) // it drains, and still answers
	behind.Store(second)
	first.server.GracefulStop()
	await(t, func() bool { return second.calls.Load() > 200 })
	close(stop)
	callers.Wait()
}

func TestAddressThatIsNotServingIsAvoidedWhileThereIsAnother(t *testing.T) {
	stopping, serving := startReplica(t), startReplica(t)
	stopping.serving(healthv1.HealthCheckResponse_NOT_SERVING)
	addresses := manual.NewBuilderWithScheme("replicas")
	state := resolver.State{Endpoints: []resolver.Endpoint{
		{Addresses: []resolver.Address{{Addr: stopping.address}}}, {Addresses: []resolver.Address{{Addr: serving.address}}},
	}}
	addresses.InitialState(state)
	client := connect(t, "replicas:///", WithDialOptions(grpc.WithResolvers(addresses)))
	get := func() bool {
		_, err := client.Get(t.Context(), &docpreviewv1.GetPreviewJobRequest{})
		return err == nil
	}
	await(t, func() bool { return get() && serving.calls.Load() > 0 })
	before := stopping.calls.Load()
	for range 100 {
		if !get() {
			t.Error("a call failed")
		}
	}
	if got := stopping.calls.Load() - before; got != 0 {
		t.Errorf("%d calls went to the replica that is stopping", got)
	}
	stopping.serving(healthv1.HealthCheckResponse_SERVING)
	await(t, func() bool { return get() && stopping.calls.Load() > before })
}

// await asks until the condition holds: what another goroutine of gRPC does rings no bell.
func await(t *testing.T, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen")
		}
	}
}
