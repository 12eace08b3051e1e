package docpreview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

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
	ctx context.Context, request *docpreviewv1.CreatePreviewJobRequest, pageURLTTL time.Duration,
) iter.Seq2[*docpreviewv1.PreviewJob, error] {
	return func(yield func(*docpreviewv1.PreviewJob, error) bool) {
		created, err := c.Create(ctx, request)
		if !yield(created, err) || err != nil {
			return
		}
		watched := &docpreviewv1.WatchPreviewJobRequest{Bucket: created.GetBucket(), JobId: created.GetJobId()}
		if pageURLTTL > 0 {
			watched.PageUrlTtl = durationpb.New(pageURLTTL)
		}
		for job, err := range c.Watch(ctx, watched) {
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
// readers get the latest state, not a backlog.
func (c *Client) Watch(ctx context.Context, request *docpreviewv1.WatchPreviewJobRequest) iter.Seq2[*docpreviewv1.PreviewJob, error] {
	return func(yield func(*docpreviewv1.PreviewJob, error) bool) {
		ctx, cancel := withDefault(ctx, c.options.watch)
		defer cancel()
		again := reconnecting{patience: c.options.unreachable}
		last := &docpreviewv1.PreviewJob{}
		for {
			left, err := c.follow(ctx, request, &again, &last, yield)
			if left || IsTerminal(last.GetState()) {
				return
			}
			if err = again.pauseAfter(ctx, err); err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// follow yields what one stream brings. It reports whether the reader has left, and why the stream ended.
func (c *Client) follow(
	ctx context.Context, request *docpreviewv1.WatchPreviewJobRequest, again *reconnecting, last **docpreviewv1.PreviewJob,
	yield func(*docpreviewv1.PreviewJob, error) bool,
) (left bool, err error) {
	streamCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := c.jobs.WatchPreviewJob(streamCtx, request)
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
		if job := message.GetJob(); job != nil && !proto.Equal(job, *last) {
			*last = job
			if !yield(job, nil) {
				return true, nil
			}
		}
		if IsTerminal((*last).GetState()) {
			idle = endOfStreamWithin
		}
	}
}

var errIdle = errors.New("nothing came for too long")

// Wait returns the job when its state is terminal, or as it is when the request's timeout (of any length; default
// [WithDeadlines]) has passed: check its state. The context's deadline, if any, should be later.
//
// Times when the gateway asks to come back later (it is stopping, or the cloud is away) are waited out.
func (c *Client) Wait(ctx context.Context, request *docpreviewv1.WaitPreviewJobRequest) (*docpreviewv1.PreviewJob, error) {
	length := c.options.wait
	if request.GetTimeout() != nil {
		length = request.GetTimeout().AsDuration()
	}
	end := time.Now().Add(length)
	again := reconnecting{patience: c.options.unreachable}
	for {
		part := min(max(time.Until(end), 0), longestWait)
		job, err := c.waitOnce(ctx, request, part)
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

func (c *Client) waitOnce(ctx context.Context, request *docpreviewv1.WaitPreviewJobRequest, part time.Duration) (*docpreviewv1.PreviewJob, error) {
	ctx, cancel := context.WithTimeout(ctx, part+waitMargin)
	defer cancel()
	asked := proto.CloneOf(request)
	asked.Timeout = durationpb.New(part)
	return read(ctx, c, c.jobs.WaitPreviewJob, asked)
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
	if ended := sleep(ctx, spread(max(failed.RetryDelay, r.pause))); ended != nil {
		return decode(ctx, status.FromContextError(ended).Err(), nil)
	}
	return nil
}
