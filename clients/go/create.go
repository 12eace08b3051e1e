package docpreview

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/proto"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

const (
	firstPause   = 200 * time.Millisecond
	longestPause = 10 * time.Second
)

// Create submits a job and returns it.
//
// Every create is billed. The client gives it a RequestId (a UUID) when it has none, so that all attempts together make
// one job, and repeats it until the deadline as long as that can help ([RetryNow], lost connections), after the gateway's
// retry delay, else after pauses that grow. [WithoutRepeatedCreates] turns both off.
//
// Errors of note: [OutcomeUnknown], also when the deadline passes or the connection breaks before the gateway has
// answered; [Unavailable], when nothing was accepted.
func (c *Client) Create(
	ctx context.Context, request *docpreviewv1.CreatePreviewJobRequest, options ...grpc.CallOption,
) (*docpreviewv1.PreviewJob, error) {
	ctx, cancel := withDefault(ctx, c.options.unary)
	defer cancel()
	if c.options.createOnce {
		return c.createOnce(ctx, request, options)
	}
	if request.GetRequestId() == "" {
		request = proto.CloneOf(request)
		request.RequestId = NewRequestID()
	}
	var told *Error
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		job, err := c.createOnce(ctx, request, options)
		var failed *Error
		if !errors.As(err, &failed) {
			return job, err
		}
		told = worseOf(told, failed)
		wait := spread(max(failed.RetryDelay, pause))
		deadline, _ := ctx.Deadline()
		if failed.Retry != RetryNow || time.Until(deadline) <= wait {
			return nil, told
		}
		if ended := sleep(ctx, wait); ended != nil {
			return nil, ended
		}
	}
}

// worseOf is the error to tell of two attempts at one create. That nothing was accepted of the later one does not hide that
// something may have been of the earlier; and a deadline that passed before anything was sent tells nothing new.
func worseOf(earlier, later *Error) *Error {
	if earlier == nil || later.Kind == OutcomeUnknown {
		return later
	}
	switch {
	case later.Kind == DeadlineExceeded && later.Reason == "":
		return earlier
	case earlier.Kind != OutcomeUnknown:
		return later
	case later.Retry != RetryNever, later.Kind == Unauthenticated, later.Kind == PermissionDenied:
		return earlier
	}
	return later
}

// reasonInProgress: an earlier attempt, or this one until the deadline, has been sent and has no outcome yet.
const reasonInProgress = "CREATE_IN_PROGRESS"

// createOnce makes one attempt. The gateway knows the outcome of a create and gives it in its reason; without a reason
// the failure comes from in between, and leaves the outcome open once the request has begun to leave this process.
func (c *Client) createOnce(
	ctx context.Context, request *docpreviewv1.CreatePreviewJobRequest, options []grpc.CallOption,
) (*docpreviewv1.PreviewJob, error) {
	var trailer metadata.MD
	sent := &atomic.Bool{}
	options = append(slices.Clone(options), grpc.Trailer(&trailer))
	job, err := c.jobs.CreatePreviewJob(context.WithValue(ctx, sentKey{}, sent), request, options...)
	if err == nil {
		return job, nil
	}
	err = decode(ctx, err, trailer)
	var failed *Error
	if errors.As(err, &failed) {
		failed.CreateRequestID = request.GetRequestId()
		lost := failed.Reason == "" && sent.Load() && leavesOutcomeOpen(failed.Code)
		if lost || failed.Reason == reasonInProgress && request.GetRequestId() != "" {
			failed.Kind, failed.Retry = OutcomeUnknown, RetryNow
		}
	}
	return nil, err
}

func leavesOutcomeOpen(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Unknown, codes.Internal:
		return true
	}
	return false
}

// sentNotice notes in the context of a create that gRPC has begun to send it.
type sentNotice struct{}

type sentKey struct{}

func (sentNotice) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if _, ok := event.(*stats.OutHeader); !ok {
		return
	}
	if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
}

func (sentNotice) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (sentNotice) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sentNotice) HandleConn(context.Context, stats.ConnStats)                       {}

// spread makes a pause up to 30 % longer, so that clients do not come back together.
func spread(pause time.Duration) time.Duration {
	return time.Duration(float64(pause) * (1 + 0.3*mathrand.Float64()))
}

// sleep returns the context's error when that ends before the pause does.
func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// withDefault gives the context a deadline when it has none.
func withDefault(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// NewRequestID returns a random UUID for CreatePreviewJobRequest.RequestId.
func NewRequestID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
