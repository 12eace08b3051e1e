package docpreview

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/stats"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

// connCounter is a server's stats handler that tells how many connections there are.
type connCounter struct{ changed chan int }

func (c connCounter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c connCounter) HandleRPC(context.Context, stats.RPCStats)                         {}
func (c connCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c connCounter) HandleConn(_ context.Context, event stats.ConnStats) {
	switch event.(type) {
	case *stats.ConnBegin:
		c.changed <- 1
	case *stats.ConnEnd:
		c.changed <- -1
	}
}

// busyGateway answers reads at once, and its watches and waits never end by themselves.
type busyGateway struct {
	docpreviewv1.UnimplementedPreviewJobServiceServer
}

func (busyGateway) GetPreviewJob(context.Context, *docpreviewv1.GetPreviewJobRequest) (*docpreviewv1.PreviewJob, error) {
	return running, nil
}

func (busyGateway) WaitPreviewJob(ctx context.Context, _ *docpreviewv1.WaitPreviewJobRequest) (*docpreviewv1.PreviewJob, error) {
	<-ctx.Done()
	return running, nil
}

func (busyGateway) WatchPreviewJob(_ *docpreviewv1.WatchPreviewJobRequest, to grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobResponse]) error {
	_ = to.Send(&docpreviewv1.WatchPreviewJobResponse{Job: running})
	<-to.Context().Done()
	return nil
}

// listen is the address of a server on a free port of this machine; it stops with the test.
func listen(t *testing.T, jobs docpreviewv1.PreviewJobServiceServer, options ...grpc.ServerOption) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	docpreviewv1.RegisterPreviewJobServiceServer(server, jobs)
	healthy := health.NewServer()
	healthy.SetServingStatus("docpreview.v1.PreviewJobService", healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(server, healthy)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func connect(t *testing.T, target string, options ...Option) *Client {
	t.Helper()
	client, err := New(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestAThousandWatchesAndWaitsLeaveReadsAloneAndTheirConnectionsAreClosedAfterwards(t *testing.T) {
	conns := connCounter{make(chan int, 1000)}
	address := listen(t, busyGateway{}, grpc.MaxConcurrentStreams(100), grpc.StatsHandler(conns))
	client := connect(t, address, func(o *options) { o.streamIdle = 100 * time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var streams, first sync.WaitGroup
	first.Add(500)
	for range 500 {
		streams.Add(2)
		go func() {
			defer streams.Done()
			for _, err := range client.Watch(ctx, watched) {
				if err == nil {
					first.Done()
				}
			}
		}()
		go func() {
			defer streams.Done()
			_, _ = client.Wait(ctx, &docpreviewv1.WaitPreviewJobRequest{})
		}()
	}
	first.Wait()
	reading, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	if _, err := client.Get(reading, &docpreviewv1.GetPreviewJobRequest{}); err != nil {
		t.Error(err)
	}
	cancel()
	streams.Wait()
	open, most := 0, 0
	for timeout := time.After(20 * time.Second); open != 1 || most != 1+12; { // that of the read stays
		select {
		case change := <-conns.changed:
			open += change
			most = max(most, open)
		case <-timeout:
			t.Fatalf("%d connections are open, there were %d", open, most)
		}
	}
}

func TestWatchOfAClosedClientFailsAtOnce(t *testing.T) {
	client, _ := serve(t, []any{says(succeeded)})
	_ = client.Close()
	if _, err := states(client.Watch(t.Context(), watched)); err == nil || errors.Is(err, Unavailable) {
		t.Errorf("got %v", err)
	}
}

func jobOf(id string, state docpreviewv1.PreviewJob_State) *docpreviewv1.WatchPreviewJobsResponse {
	job := &docpreviewv1.PreviewJob{JobId: id, State: state}
	return &docpreviewv1.WatchPreviewJobsResponse{Event: &docpreviewv1.WatchPreviewJobsResponse_Job{Job: job}}
}

func errorOf(id string) *docpreviewv1.WatchPreviewJobsResponse {
	failed := &docpreviewv1.WatchPreviewJobsResponse_JobError{JobId: id, Reason: docpreviewv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND}
	return &docpreviewv1.WatchPreviewJobsResponse{Event: &docpreviewv1.WatchPreviewJobsResponse_Error{Error: failed}}
}

func sends(err error, messages ...*docpreviewv1.WatchPreviewJobsResponse) manyStream {
	return func(_ *docpreviewv1.WatchPreviewJobsRequest, to grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobsResponse]) error {
		for _, message := range messages {
			if sent := to.Send(message); sent != nil {
				return sent
			}
		}
		return err
	}
}

func watchMany(t *testing.T, client *Client, ids ...string) (seen []string, err error) {
	t.Helper()
	for event, err := range client.WatchMany(t.Context(), &docpreviewv1.WatchPreviewJobsRequest{Bucket: bucket, JobIds: ids}) {
		if err != nil {
			return seen, err
		}
		if failed := event.GetError(); failed != nil {
			seen = append(seen, failed.GetJobId()+" "+failed.GetReason().String())
		} else {
			seen = append(seen, event.GetJob().GetJobId()+" "+event.GetJob().GetState().String())
		}
	}
	return seen, nil
}

const (
	runs = docpreviewv1.PreviewJob_STATE_RUNNING
	done = docpreviewv1.PreviewJob_STATE_SUCCESS
)

func TestWatchOfManyJobsGoesOnWithThoseThatHaveNotEnded(t *testing.T) {
	heartbeat := &docpreviewv1.WatchPreviewJobsResponse{
		Event: &docpreviewv1.WatchPreviewJobsResponse_Heartbeat_{Heartbeat: &docpreviewv1.WatchPreviewJobsResponse_Heartbeat{}},
	}
	client, fake := serve(t, []any{
		sends(failure(codes.Unavailable, "SHUTTING_DOWN", 10*time.Millisecond), jobOf("a", runs), heartbeat, jobOf("b", done), errorOf("c"), jobOf("d", runs)),
		sends(nil, jobOf("a", runs), jobOf("d", done), jobOf("a", done)),
	})
	seen, err := watchMany(t, client, "a", "b", "c", "d", "a")
	want := []string{
		"a STATE_RUNNING", "b STATE_SUCCESS", "c ERROR_REASON_JOB_NOT_FOUND", "d STATE_RUNNING", "d STATE_SUCCESS", "a STATE_SUCCESS",
	}
	if err != nil || !slices.Equal(seen, want) {
		t.Errorf("got %v, %v", seen, err)
	}
	first, second := fake.requests[0].(*docpreviewv1.WatchPreviewJobsRequest), fake.requests[1].(*docpreviewv1.WatchPreviewJobsRequest)
	if !slices.Equal(first.GetJobIds(), []string{"a", "b", "c", "d"}) || !slices.Equal(second.GetJobIds(), []string{"a", "d"}) {
		t.Errorf("asked for %v, then %v", first.GetJobIds(), second.GetJobIds())
	}
}

func TestMoreThanAThousandJobsAreWatchedInSeveralStreams(t *testing.T) {
	var ids []string
	for i := range 2500 {
		ids = append(ids, fmt.Sprint("d", i))
	}
	client, fake := serve(t, []any{manyStream(
		func(asked *docpreviewv1.WatchPreviewJobsRequest, to grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobsResponse]) error {
			for _, id := range asked.GetJobIds() {
				_ = to.Send(jobOf(id, done))
			}
			return nil
		})})
	seen, err := watchMany(t, client, ids...)
	slices.Sort(seen)
	if seen = slices.Compact(seen); err != nil || len(seen) != 2500 || fake.called() != 3 {
		t.Errorf("got %d jobs, %v over %d streams", len(seen), err, fake.called())
	}
}

func TestWatchOfManyJobsEndsWithErrorsThatLastAndWithItsReader(t *testing.T) {
	client, _ := serve(t, []any{sends(failure(codes.PermissionDenied, "NOT_PERMITTED", 0), jobOf("a", runs))})
	if seen, err := watchMany(t, client, "a", "b"); !errors.Is(err, PermissionDenied) || len(seen) != 1 {
		t.Errorf("got %v, %v", seen, err)
	}
	left := make(chan struct{})
	client, _ = serve(t, []any{manyStream(
		func(_ *docpreviewv1.WatchPreviewJobsRequest, to grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobsResponse]) error {
			_ = to.Send(jobOf("a", runs))
			_ = to.Send(jobOf("b", runs))
			<-to.Context().Done()
			close(left)
			return nil
		})})
	for range client.WatchMany(t.Context(), &docpreviewv1.WatchPreviewJobsRequest{JobIds: []string{"a", "b"}}) {
		break
	}
	select {
	case <-left:
	case <-time.After(5 * time.Second):
		t.Error("the stream goes on")
	}
}
