package docpreview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

const (
	// longestWait: the gateway waits no longer in one call.
	longestWait = 5 * time.Minute
	// waitMargin: the gateway answers when its waiting time is over; this much longer the client listens for it.
	waitMargin = 10 * time.Second
	// endOfStreamWithin: after the terminal state nothing but the end of the stream can come.
	endOfStreamWithin = time.Second
)

// IsTerminal reports whether a job in this state never changes again.
func IsTerminal(state docpreviewv1.PreviewJob_State) bool {
	switch state {
	case docpreviewv1.PreviewJob_STATE_SUCCESS, docpreviewv1.PreviewJob_STATE_FAILED, docpreviewv1.PreviewJob_STATE_CANCELLED:
		return true
	}
	return false
}

// CreateAndWatch creates a job as [Client.Create] does and follows it as [Client.Watch] does. With pageURLTTL (1 second
// to 1 hour, 0: without) each page comes with an address that is valid this long.
func (c *Client) CreateAndWatch(
	ctx context.Context, request *docpreviewv1.CreatePreviewJobRequest, pageURLTTL time.Duration, options ...grpc.CallOption,
) iter.Seq2[*docpreviewv1.PreviewJob, error] {
	return func(yield func(*docpreviewv1.PreviewJob, error) bool) {
		created, err := c.Create(ctx, request, options...)
		if !yield(created, err) || err != nil {
			return
		}
		watched := &docpreviewv1.WatchPreviewJobRequest{Bucket: created.GetBucket(), JobId: created.GetJobId()}
		if pageURLTTL > 0 {
			watched.PageUrlTtl = durationpb.New(pageURLTTL)
		}
		for job, err := range c.Watch(ctx, watched, options...) {
			if !proto.Equal(job, created) && !yield(job, err) {
				return
			}
		}
	}
}

// Watch yields the job as it is and then after every change; the loop ends after the terminal state, or after an error.
//
// A stream ends for reasons that have nothing to do with the job: the gateway is stopping, the stream has been open for
// long, the connection broke. It is replaced, and since every stream begins with the present state nothing is lost. Slow
// readers get the latest state, not a backlog. Watches do not count against each other or against other calls: any number
// of them may be open on one client.
func (c *Client) Watch(
	ctx context.Context, request *docpreviewv1.WatchPreviewJobRequest, options ...grpc.CallOption,
) iter.Seq2[*docpreviewv1.PreviewJob, error] {
	return func(yield func(*docpreviewv1.PreviewJob, error) bool) {
		ctx, cancel := withDefault(ctx, c.options.watch)
		defer cancel()
		last := &docpreviewv1.PreviewJob{}
		err := follow(ctx, c, subscription[docpreviewv1.WatchPreviewJobResponse]{
			open: func(ctx context.Context, jobs docpreviewv1.PreviewJobServiceClient) (watchStream, error) {
				return jobs.WatchPreviewJob(ctx, request, options...)
			},
			take: func(message *docpreviewv1.WatchPreviewJobResponse) bool {
				job := message.GetJob()
				if job == nil || proto.Equal(job, last) {
					return true
				}
				last = job
				return yield(job, nil)
			},
			ended: func() bool { return IsTerminal(last.GetState()) },
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

type watchStream = grpc.ServerStreamingClient[docpreviewv1.WatchPreviewJobResponse]

// subscription is what a stream follows: it is opened again when it ends before that has.
type subscription[Message any] struct {
	open  func(context.Context, docpreviewv1.PreviewJobServiceClient) (grpc.ServerStreamingClient[Message], error)
	take  func(*Message) bool // false: the reader has left
	ended func() bool
}

// follow returns when what it follows has ended or the reader has left; else the error that ends it.
func follow[Message any](ctx context.Context, c *Client, what subscription[Message]) error {
	again := reconnecting{patience: c.options.unreachable}
	for {
		left, err := followOnce(ctx, c, what, &again)
		if left || what.ended() {
			return nil
		}
		if err = again.pauseAfter(ctx, err); err != nil {
			return err
		}
	}
}

// followOnce takes what one stream brings. It reports whether the reader has left, and why the stream ended.
func followOnce[Message any](ctx context.Context, c *Client, what subscription[Message], again *reconnecting) (left bool, err error) {
	conn, release, err := c.streams.acquire()
	if err != nil {
		return false, decode(ctx, err, nil)
	}
	defer release()
	streamCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := what.open(streamCtx, docpreviewv1.NewPreviewJobServiceClient(conn))
	if err != nil {
		return false, decode(ctx, err, nil)
	}
	idle := c.options.idle
	for {
		timer := time.AfterFunc(idle, func() { cancel(errIdle) })
		message, err := stream.Recv()
		timer.Stop()
		switch {
		case errors.Is(context.Cause(streamCtx), errIdle) && err != nil:
			silence := status.Error(codes.Unavailable, fmt.Sprintf("nothing came from the gateway for %s", idle))
			return false, decode(ctx, silence, nil)
		case errors.Is(err, io.EOF): // the gateway ends a stream well only after the terminal state
			return false, decode(ctx, status.Error(codes.Unavailable, "the stream ended before the job did"), nil)
		case err != nil:
			return false, decode(ctx, err, stream.Trailer())
		}
		again.heard()
		if !what.take(message) {
			return true, nil
		}
		if what.ended() {
			idle = endOfStreamWithin
		}
	}
}

var errIdle = errors.New("nothing came for too long")

// Wait returns the job when its state is terminal, or as it is when the request's timeout (of any length; default
// [WithDeadlines]) has passed: check its state. The context's deadline, if any, should be later.
//
// Times when the gateway asks to come back later (it is stopping, or the cloud is away) are waited out.
func (c *Client) Wait(
	ctx context.Context, request *docpreviewv1.WaitPreviewJobRequest, options ...grpc.CallOption,
) (*docpreviewv1.PreviewJob, error) {
	length := c.options.wait
	if request.GetTimeout() != nil {
		length = request.GetTimeout().AsDuration()
	}
	end := time.Now().Add(length)
	again := reconnecting{patience: c.options.unreachable}
	for {
		part := min(max(time.Until(end), 0), longestWait)
		job, err := c.waitOnce(ctx, request, part, options)
		switch {
		case err != nil:
			if err = again.pauseAfter(ctx, err); err != nil {
				return nil, err
			}
		case IsTerminal(job.GetState()) || !time.Now().Before(end):
			return job, nil
		default:
			again.heard()
		}
	}
}

func (c *Client) waitOnce(
	ctx context.Context, request *docpreviewv1.WaitPreviewJobRequest, part time.Duration, options []grpc.CallOption,
) (*docpreviewv1.PreviewJob, error) {
	conn, release, err := c.streams.acquire()
	if err != nil {
		return nil, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, part+waitMargin)
	defer cancel()
	asked := proto.CloneOf(request)
	asked.Timeout = durationpb.New(part)
	return read(ctx, c, docpreviewv1.NewPreviewJobServiceClient(conn).WaitPreviewJob, asked, options)
}

// reconnecting decides whether and when a call that the gateway broke off is made again.
type reconnecting struct {
	patience time.Duration
	pause    time.Duration
	giveUp   time.Time
	everSaid bool
}

// heard records that a message was received: the gateway is reachable.
func (r *reconnecting) heard() {
	r.everSaid, r.giveUp, r.pause = true, time.Time{}, 0
}

// pauseAfter sleeps until the next attempt is due, or returns the error that ends the call: any that is not Unavailable;
// one of a gateway that has never answered, since a wrong address does not get better; the deadline's.
func (r *reconnecting) pauseAfter(ctx context.Context, err error) error {
	var failed *Error
	if !errors.As(err, &failed) || failed.Kind != Unavailable {
		return err
	}
	r.everSaid = r.everSaid || failed.Reason != "" || failed.RetryDelay > 0
	if r.giveUp.IsZero() {
		r.giveUp = time.Now().Add(r.patience)
	}
	if !r.everSaid || time.Now().After(r.giveUp) {
		return err
	}
	r.pause = min(max(r.pause*2, firstPause), longestPause)
	if sleep(ctx, spread(max(failed.RetryDelay, r.pause))) != nil {
		return ended(ctx)
	}
	return nil
}
