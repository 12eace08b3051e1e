package docpreview

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

const bucket = "examplebucket-1250000000"

var (
	request    = &docpreviewv1.CreatePreviewJobRequest{Bucket: bucket, InputObject: "a"}
	idempotent = &docpreviewv1.CreatePreviewJobRequest{Bucket: bucket, InputObject: "a", RequestId: NewRequestID()}
	watched    = &docpreviewv1.WatchPreviewJobRequest{Bucket: bucket, JobId: "d1"}
	running    = &docpreviewv1.PreviewJob{JobId: "d1", State: docpreviewv1.PreviewJob_STATE_RUNNING}
	succeeded  = &docpreviewv1.PreviewJob{JobId: "d1", State: docpreviewv1.PreviewJob_STATE_SUCCESS}
)

// gateway answers with scripted replies in order, and repeats the last one.
type gateway struct {
	docpreviewv1.UnimplementedPreviewJobServiceServer
	docpreviewv1.UnimplementedUploadServiceServer
	mutex    sync.Mutex
	answers  []any // an error, a job, a list, or what a stream does
	calls    []metadata.MD
	requests []proto.Message
}

type stream func(grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobResponse]) error

type manyStream func(*docpreviewv1.WatchPreviewJobsRequest, grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobsResponse]) error

func (g *gateway) next(ctx context.Context, request proto.Message) any {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	sent, _ := metadata.FromIncomingContext(ctx)
	g.calls = append(g.calls, sent)
	g.requests = append(g.requests, request)
	answer := g.answers[0]
	if len(g.answers) > 1 {
		g.answers = g.answers[1:]
	}
	return answer
}

func (g *gateway) called() int {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return len(g.calls)
}

func (g *gateway) unary(ctx context.Context, request proto.Message) (*docpreviewv1.PreviewJob, error) {
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-request-id", "req-9", "x-cache", "hit"))
	switch answer := g.next(ctx, request).(type) {
	case error:
		return nil, answer
	case time.Duration:
		select {
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		case <-time.After(answer):
			return running, nil
		}
	default:
		return answer.(*docpreviewv1.PreviewJob), nil
	}
}

func (g *gateway) CreatePreviewJob(ctx context.Context, asked *docpreviewv1.CreatePreviewJobRequest) (*docpreviewv1.PreviewJob, error) {
	return g.unary(ctx, asked)
}

func (g *gateway) GetPreviewJob(ctx context.Context, asked *docpreviewv1.GetPreviewJobRequest) (*docpreviewv1.PreviewJob, error) {
	return g.unary(ctx, asked)
}

func (g *gateway) ListPreviewJobs(ctx context.Context, asked *docpreviewv1.ListPreviewJobsRequest) (*docpreviewv1.ListPreviewJobsResponse, error) {
	return g.next(ctx, asked).(*docpreviewv1.ListPreviewJobsResponse), nil
}

func (g *gateway) WatchPreviewJob(asked *docpreviewv1.WatchPreviewJobRequest, to grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobResponse]) error {
	return g.next(to.Context(), asked).(stream)(to)
}

func (g *gateway) WatchPreviewJobs(asked *docpreviewv1.WatchPreviewJobsRequest, to grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobsResponse]) error {
	return g.next(to.Context(), asked).(manyStream)(asked, to)
}

// serve starts a gateway with these answers, and a client of it.
func serve(t *testing.T, answers []any, options ...Option) (*Client, *gateway) {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	fake := &gateway{answers: answers}
	server, healthy := grpc.NewServer(), health.NewServer()
	healthy.SetServingStatus("docpreview.v1.PreviewJobService", healthv1.HealthCheckResponse_SERVING)
	docpreviewv1.RegisterPreviewJobServiceServer(server, fake)
	docpreviewv1.RegisterUploadServiceServer(server, fake)
	healthv1.RegisterHealthServer(server, healthy)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	dialer := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) })
	client, err := New("passthrough:///localhost", append(options, WithDialOptions(dialer))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client, fake
}

// patience is the deadline of creates and reads.
func patience(unary time.Duration) Option { return WithDeadlines(unary, time.Minute, time.Minute) }

// failure is an error as the gateway sends it.
func failure(code codes.Code, reason string, delay time.Duration, violations ...*errdetails.BadRequest_FieldViolation) error {
	info := &errdetails.ErrorInfo{Domain: "docpreview", Reason: reason, Metadata: map[string]string{"request_id": "req-7"}}
	st, _ := status.New(code, "scripted").WithDetails(info, &errdetails.BadRequest{FieldViolations: violations})
	if delay > 0 {
		st, _ = st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	}
	return st.Err()
}

func says(messages ...*docpreviewv1.PreviewJob) stream {
	return ends(nil, messages...)
}

func ends(err error, messages ...*docpreviewv1.PreviewJob) stream {
	return func(to grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobResponse]) error {
		for _, job := range messages {
			if sent := to.Send(&docpreviewv1.WatchPreviewJobResponse{Job: job}); sent != nil {
				return sent
			}
		}
		return err
	}
}

func states(jobs iter.Seq2[*docpreviewv1.PreviewJob, error]) (seen []docpreviewv1.PreviewJob_State, err error) {
	for job, err := range jobs {
		if err != nil {
			return seen, err
		}
		seen = append(seen, job.GetState())
	}
	return seen, nil
}

func TestErrorHasEverythingTheGatewaySaid(t *testing.T) {
	wrong := &errdetails.BadRequest_FieldViolation{Field: "bucket", Description: "is required"}
	client, _ := serve(t, []any{failure(codes.InvalidArgument, "INVALID_REQUEST", 1500*time.Millisecond, wrong)})
	_, err := client.Create(t.Context(), request)
	var failed *Error
	if !errors.As(err, &failed) || !errors.Is(err, InvalidRequest) || errors.Is(err, NotFound) {
		t.Fatalf("got %v", err)
	}
	if failed.Reason != "INVALID_REQUEST" || failed.RequestID != "req-7" || failed.RetryDelay != 1500*time.Millisecond ||
		!slices.Equal(failed.Violations, []Violation{{"bucket", "is required"}}) {
		t.Errorf("got %+v", failed)
	}
	want := "docpreview: INVALID_REQUEST: scripted; bucket: is required; request id req-7"
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("gRPC's own functions read %v", status.Code(err))
	}
}

func TestKinds(t *testing.T) {
	for _, each := range []struct {
		code   codes.Code
		reason string
		kind   Kind
	}{
		{codes.NotFound, "JOB_NOT_FOUND", NotFound},
		{codes.Unauthenticated, "UNAUTHENTICATED", Unauthenticated},
		{codes.PermissionDenied, "NOT_PERMITTED", PermissionDenied},
		{codes.FailedPrecondition, "CI_ROLE_MISSING", FailedPrecondition},
		{codes.ResourceExhausted, "RATE_LIMITED", Throttled},
		{codes.ResourceExhausted, "REPLY_TOO_LARGE", InvalidRequest},
		{codes.ResourceExhausted, "PAGE_BUDGET_EXHAUSTED", BudgetExhausted},
		{codes.ResourceExhausted, "PAGE_BUDGET_EXHAUSTED", Throttled},
		{codes.ResourceExhausted, "PAGE_BUDGET_TOO_SMALL", BudgetExhausted},
		{codes.Unknown, "CREATE_OUTCOME_AMBIGUOUS", OutcomeUnknown},
		{codes.AlreadyExists, "REQUEST_ID_REUSED", InvalidRequest},
		{codes.Unknown, "CREATE_OUTCOME_UNKNOWN", OutcomeUnknown},
		{codes.Internal, "INTERNAL", InternalError},
	} {
		if err := DecodeError(failure(each.code, each.reason, 0)); !errors.Is(err, each.kind) {
			t.Errorf("%s is %v", each.reason, err)
		}
	}
}

func TestEveryReasonOfTheContractSaysWhetherToRepeat(t *testing.T) {
	reasons := docpreviewv1.ErrorReason(0).Descriptor().Values()
	for i := range reasons.Len() {
		said := proto.GetExtension(reasons.Get(i).Options(), docpreviewv1.E_Retry) != docpreviewv1.Retry_RETRY_UNSPECIFIED
		if said != (reasons.Get(i).Number() != 0) {
			t.Errorf("%s: %t", reasons.Get(i).Name(), said)
		}
	}
	for _, each := range []struct {
		code   codes.Code
		reason string
		retry  Retry
	}{
		{codes.ResourceExhausted, "RATE_LIMITED", RetryNow},
		{codes.Unavailable, "SHUTTING_DOWN", RetryNow},
		{codes.ResourceExhausted, "PAGE_BUDGET_EXHAUSTED", RetryLater},
		{codes.ResourceExhausted, "PAGE_BUDGET_TOO_SMALL", RetryNever},
		{codes.Unavailable, "NEWER_THAN_THIS_PACKAGE", RetryNever},
		{codes.Unavailable, "", RetryNow},
		{codes.Canceled, "", RetryNow},
		{codes.DeadlineExceeded, "", RetryNow},
		{codes.Internal, "", RetryNever},
	} {
		if got := retryOf(each.reason, each.code); got != each.retry {
			t.Errorf("%s %s: got %s", each.code, each.reason, got)
		}
	}
}

func TestErrorNamesTheLimitsThatTheCallMet(t *testing.T) {
	st, _ := status.New(codes.ResourceExhausted, "slow down").WithDetails(
		&errdetails.ErrorInfo{Domain: "docpreview", Reason: "RATE_LIMITED"},
		&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{Subject: "shop", Description: "its rate"}}})
	var failed *Error
	if !errors.As(DecodeError(st.Err()), &failed) || !slices.Equal(failed.Quota, []QuotaViolation{{"shop", "its rate"}}) || failed.Retry != RetryNow {
		t.Errorf("got %+v", failed)
	}
}

func TestReadIsRepeatedWhileTheGatewayIsAway(t *testing.T) {
	client, fake := serve(t, []any{failure(codes.Unavailable, "SHUTTING_DOWN", 0), status.Error(codes.Canceled, ""), running})
	job, err := client.Get(t.Context(), &docpreviewv1.GetPreviewJobRequest{})
	if err != nil || job.GetJobId() != "d1" || fake.called() != 3 {
		t.Errorf("got %v, %v after %d calls", job, err, fake.called())
	}
}

func TestCreateIsMadeOnceWhereRepeatingIsTurnedOff(t *testing.T) {
	client, fake := serve(t, []any{failure(codes.Unavailable, "UPSTREAM_UNREACHABLE", 0)}, WithoutRepeatedCreates())
	_, err := client.Create(t.Context(), request)
	sent := fake.requests[0].(*docpreviewv1.CreatePreviewJobRequest)
	if !errors.Is(err, Unavailable) || fake.called() != 1 || sent.GetRequestId() != "" {
		t.Errorf("got %v after %d calls with the id %q", err, fake.called(), sent.GetRequestId())
	}
}

func TestCreateIsRepeatedWithOneIDThatTheClientMakes(t *testing.T) {
	client, fake := serve(t, []any{
		failure(codes.Unavailable, "SHUTTING_DOWN", 0), status.Error(codes.Unavailable, "broken"),
		failure(codes.ResourceExhausted, "RATE_LIMITED", 10*time.Millisecond), running,
	})
	if _, err := client.Create(t.Context(), request); err != nil || fake.called() != 4 {
		t.Errorf("got %v after %d calls", err, fake.called())
	}
	ids := map[string]bool{}
	for _, each := range fake.requests {
		ids[each.(*docpreviewv1.CreatePreviewJobRequest).GetRequestId()] = true
	}
	if len(ids) != 1 || ids[""] || request.GetRequestId() != "" {
		t.Errorf("sent the ids %v; the caller's request has %q", ids, request.GetRequestId())
	}
}

func TestUnknownOutcomeIsNotHiddenByALaterRefusal(t *testing.T) {
	for _, later := range []error{
		failure(codes.Unavailable, "SHUTTING_DOWN", 0), failure(codes.ResourceExhausted, "RATE_LIMITED", 0),
		failure(codes.ResourceExhausted, "PAGE_BUDGET_EXHAUSTED", 0), failure(codes.Unauthenticated, "UNAUTHENTICATED", 0),
	} {
		client, _ := serve(t, []any{status.Error(codes.Unavailable, "broken"), later}, patience(time.Second))
		_, err := client.Create(t.Context(), idempotent)
		var failed *Error
		if !errors.As(err, &failed) || failed.Kind != OutcomeUnknown || failed.CreateRequestID != idempotent.GetRequestId() {
			t.Errorf("after %v: got %v", later, err)
		}
	}
}

func TestOutcomeThatTheGatewayKnowsReplacesAnUnknownOne(t *testing.T) {
	client, _ := serve(t, []any{status.Error(codes.Unavailable, "broken"), failure(codes.NotFound, "INPUT_OBJECT_NOT_FOUND", 0)})
	if _, err := client.Create(t.Context(), idempotent); !errors.Is(err, NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestCancelledCreateIsNotRepeated(t *testing.T) {
	client, fake := serve(t, []any{failure(codes.Unavailable, "SHUTTING_DOWN", 5*time.Second)})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := client.Create(ctx, request); err != context.Canceled || fake.called() != 1 {
		t.Errorf("got %v after %d calls", err, fake.called())
	}
}

func TestDelayBeyondTheDeadlineEndsACreateAtOnce(t *testing.T) {
	client, fake := serve(t, []any{failure(codes.Unknown, "CREATE_OUTCOME_UNKNOWN", 2*time.Minute)})
	if _, err := client.Create(t.Context(), idempotent); !errors.Is(err, OutcomeUnknown) || fake.called() != 1 {
		t.Errorf("got %v after %d calls", err, fake.called())
	}
}

func TestCreateBeyondTheBudgetIsNotRepeated(t *testing.T) {
	for _, each := range []struct {
		reason string
		delay  time.Duration
		retry  Retry
	}{
		{"PAGE_BUDGET_EXHAUSTED", time.Millisecond, RetryLater},
		{"PAGE_BUDGET_TOO_SMALL", 0, RetryNever},
	} {
		client, fake := serve(t, []any{failure(codes.ResourceExhausted, each.reason, each.delay)})
		_, err := client.Create(t.Context(), idempotent)
		var failed *Error
		if !errors.As(err, &failed) || failed.Kind != BudgetExhausted || failed.Retry != each.retry || failed.Temporary() || fake.called() != 1 {
			t.Errorf("%s: got %v after %d calls", each.reason, err, fake.called())
		}
	}
}

func TestAmbiguousCreateIsNotRepeated(t *testing.T) {
	client, fake := serve(t, []any{status.Error(codes.Unavailable, "broken"), failure(codes.Unknown, "CREATE_OUTCOME_AMBIGUOUS", 0)})
	_, err := client.Create(t.Context(), idempotent)
	var failed *Error
	if !errors.As(err, &failed) || failed.Kind != OutcomeUnknown || failed.Reason != "CREATE_OUTCOME_AMBIGUOUS" || fake.called() != 2 {
		t.Errorf("got %v after %d calls", err, fake.called())
	}
}

func TestBrokenOrLateCreateLeavesItsOutcomeOpen(t *testing.T) {
	for name, answer := range map[string]any{
		"broken": status.Error(codes.Unavailable, "broken"), "late": time.Minute,
		"in progress": failure(codes.Unavailable, "CREATE_IN_PROGRESS", time.Second),
	} {
		client, _ := serve(t, []any{answer}, patience(300*time.Millisecond))
		if _, err := client.Create(t.Context(), request); !errors.Is(err, OutcomeUnknown) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestCreateWithoutRequestIDThatWaitsForAnotherIsUnavailable(t *testing.T) {
	client, _ := serve(t, []any{failure(codes.Unavailable, "CREATE_IN_PROGRESS", time.Second)}, WithoutRepeatedCreates())
	var failed *Error
	if _, err := client.Create(t.Context(), request); !errors.As(err, &failed) || failed.Kind != Unavailable || failed.Retry != RetryNow {
		t.Errorf("got %v", err)
	}
}

func TestCreateThatIsNeverSentIsUnavailable(t *testing.T) {
	client, err := New("passthrough:///localhost", patience(time.Second), WithDialOptions(grpc.WithContextDialer(
		func(context.Context, string) (net.Conn, error) { return nil, errors.New("refused") })))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Create(t.Context(), request); !errors.Is(err, Unavailable) {
		t.Errorf("got %v", err)
	}
}

func TestDeadline(t *testing.T) {
	client, _ := serve(t, []any{time.Minute}, patience(100*time.Millisecond))
	_, err := client.Get(t.Context(), &docpreviewv1.GetPreviewJobRequest{})
	if !errors.Is(err, DeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestCancellationPassesUnchanged(t *testing.T) {
	client, _ := serve(t, []any{time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := client.Get(ctx, &docpreviewv1.GetPreviewJobRequest{}); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestWatchGoesOnOverBrokenStreams(t *testing.T) {
	client, fake := serve(t, []any{
		ends(failure(codes.Unavailable, "SHUTTING_DOWN", 10*time.Millisecond), running, nil),
		ends(status.Error(codes.Unavailable, "broken"), running),
		says(running, succeeded),
	})
	seen, err := states(client.Watch(t.Context(), watched))
	want := []docpreviewv1.PreviewJob_State{docpreviewv1.PreviewJob_STATE_RUNNING, docpreviewv1.PreviewJob_STATE_SUCCESS}
	if err != nil || !slices.Equal(seen, want) || fake.called() != 3 {
		t.Errorf("got %v, %v after %d streams", seen, err, fake.called())
	}
}

func TestWatchReplacesASilentStream(t *testing.T) {
	silent := stream(func(to grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobResponse]) error {
		_ = to.Send(&docpreviewv1.WatchPreviewJobResponse{Job: running})
		<-to.Context().Done()
		return nil
	})
	client, fake := serve(t, []any{silent, says(succeeded)}, WithPatience(100*time.Millisecond, time.Minute))
	if seen, err := states(client.Watch(t.Context(), watched)); err != nil || len(seen) != 2 || fake.called() != 2 {
		t.Errorf("got %v, %v after %d streams", seen, err, fake.called())
	}
}

func TestWatchEndsAtItsDeadlineAndWithErrorsThatLast(t *testing.T) {
	client, _ := serve(t, []any{ends(failure(codes.NotFound, "JOB_NOT_FOUND", 0))})
	if _, err := states(client.Watch(t.Context(), watched)); !errors.Is(err, NotFound) {
		t.Errorf("got %v", err)
	}
	away := failure(codes.Unavailable, "UPSTREAM_UNAVAILABLE", time.Minute)
	client, _ = serve(t, []any{ends(away)}, WithDeadlines(time.Minute, time.Minute, 200*time.Millisecond))
	if _, err := states(client.Watch(t.Context(), watched)); !errors.Is(err, DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestReaderThatLeavesEndsTheStream(t *testing.T) {
	left := make(chan struct{})
	client, _ := serve(t, []any{stream(func(to grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobResponse]) error {
		_ = to.Send(&docpreviewv1.WatchPreviewJobResponse{Job: running})
		<-to.Context().Done()
		close(left)
		return nil
	})})
	for range client.Watch(t.Context(), watched) {
		break
	}
	select {
	case <-left:
	case <-time.After(5 * time.Second):
		t.Error("the stream goes on")
	}
}

func TestTokenIsAskedForEveryCallAndNeverSentInTheClear(t *testing.T) {
	var asked atomic.Int64
	source := func(context.Context) (string, error) { return fmt.Sprint("x", asked.Add(1)), nil }
	if _, err := New("dns:///gateway.example:50051", WithToken(source)); err == nil {
		t.Error("a token in the clear was accepted")
	}
	client, fake := serve(t, []any{running, running, says(succeeded)}, WithToken(source))
	for range 2 {
		if _, err := client.Get(t.Context(), &docpreviewv1.GetPreviewJobRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := states(client.Watch(t.Context(), watched)); err != nil {
		t.Fatal(err)
	}
	for i, call := range fake.calls { // health checks bring none
		if sent := call.Get("authorization"); !slices.Equal(sent, []string{fmt.Sprint("Bearer x", i+1)}) {
			t.Errorf("call %d sent %v", i, sent)
		}
	}
}

func TestTokenSourceThatFailsIsUnauthenticatedAtOnceWithItsCause(t *testing.T) {
	cause := errors.New("the vault is sealed")
	source := func(context.Context) (string, error) { return "", cause }
	client, fake := serve(t, []any{running}, WithToken(source))
	begin := time.Now()
	_, got := client.Get(t.Context(), &docpreviewv1.GetPreviewJobRequest{})
	_, created := client.Create(t.Context(), request)
	_, seen := states(client.Watch(t.Context(), watched))
	for _, err := range []error{got, created, seen} {
		if !errors.Is(err, Unauthenticated) || !errors.Is(err, cause) || status.Code(err) != codes.Unauthenticated {
			t.Errorf("got %v", err)
		}
	}
	if took := time.Since(begin); took > 2*time.Second || fake.called() != 0 {
		t.Errorf("took %s and %d calls", took, fake.called())
	}
}

func TestTokenWithALineBreakIsRefusedClearly(t *testing.T) {
	client, _ := serve(t, []any{running}, WithToken(StaticToken("secret\n")))
	_, err := client.Get(t.Context(), &docpreviewv1.GetPreviewJobRequest{})
	if !errors.Is(err, Unauthenticated) || !strings.Contains(err.Error(), "trim it") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestMetadataOfACallGoesAndComes(t *testing.T) {
	client, fake := serve(t, []any{running})
	ctx := metadata.AppendToOutgoingContext(NoCache(t.Context()), "x-request-id", "mine")
	var trailer metadata.MD
	if _, err := client.Get(ctx, &docpreviewv1.GetPreviewJobRequest{}, grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	sent := fake.calls[0]
	if !slices.Equal(sent.Get("cache-control"), []string{"no-cache"}) || !slices.Equal(sent.Get("x-request-id"), []string{"mine"}) {
		t.Errorf("sent %v", sent)
	}
	if !slices.Equal(trailer.Get("x-cache"), []string{"hit"}) || !slices.Equal(trailer.Get("x-request-id"), []string{"req-9"}) {
		t.Errorf("got %v", trailer)
	}
}

func TestInterceptorSeesCallsAndStreams(t *testing.T) {
	var methods []string
	unary := func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		methods = append(methods, method)
		return invoke(ctx, method, request, reply, conn, options...)
	}
	streams := func(ctx context.Context, what *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		methods = append(methods, method)
		return open(ctx, what, conn, method, options...)
	}
	client, _ := serve(t, []any{running, says(succeeded)},
		WithDialOptions(grpc.WithChainUnaryInterceptor(unary), grpc.WithChainStreamInterceptor(streams)))
	if _, err := client.Get(t.Context(), &docpreviewv1.GetPreviewJobRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := states(client.Watch(t.Context(), watched)); err != nil {
		t.Fatal(err)
	}
	want := []string{docpreviewv1.PreviewJobService_GetPreviewJob_FullMethodName, docpreviewv1.PreviewJobService_WatchPreviewJob_FullMethodName}
	if !slices.Equal(methods, want) {
		t.Errorf("saw %v", methods)
	}
}

func TestListAsksForPagesOfAHundredUnlessTold(t *testing.T) {
	for asked, want := range map[int32]int32{0: 100, 7: 7} {
		first := &docpreviewv1.ListPreviewJobsResponse{Jobs: []*docpreviewv1.PreviewJob{running}, NextPageToken: "n"}
		client, fake := serve(t, []any{first, &docpreviewv1.ListPreviewJobsResponse{Jobs: []*docpreviewv1.PreviewJob{succeeded}}})
		seen, err := states(client.List(t.Context(), &docpreviewv1.ListPreviewJobsRequest{Bucket: bucket, PageSize: asked}))
		if err != nil || len(seen) != 2 {
			t.Fatalf("got %v, %v", seen, err)
		}
		for _, each := range fake.requests {
			if got := each.(*docpreviewv1.ListPreviewJobsRequest).GetPageSize(); got != want {
				t.Errorf("asked for %d, want %d", got, want)
			}
		}
	}
}

func TestLoopback(t *testing.T) {
	for target, want := range map[string]bool{
		"127.0.0.1:50051": true, "localhost:1": true, "dns:///localhost:1": true, "[::1]:1": true, "unix:/tmp/x": true,
		"dns:///gateway:1": false, "10.0.0.1:1": false, "localhost.example:1": false,
	} {
		if isLoopback(target) != want {
			t.Errorf("%s: %t", target, !want)
		}
	}
}
