package docpreview

import (
	"context"
	"iter"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

// jobsPerStream: the gateway follows no more in one.
const jobsPerStream = 1000

// WatchMany yields the jobs of one bucket as they are and then after every change, in no order between jobs. Each message
// has a job, or the error of one id, of which nothing more comes then. The loop ends when every job has ended or failed so,
// or after an error of the whole.
//
// It goes on over broken streams as [Client.Watch] does. More than 1,000 ids are followed by several streams.
func (c *Client) WatchMany(
	ctx context.Context, request *docpreviewv1.WatchPreviewJobsRequest, options ...grpc.CallOption,
) iter.Seq2[*docpreviewv1.WatchPreviewJobsResponse, error] {
	return func(yield func(*docpreviewv1.WatchPreviewJobsResponse, error) bool) {
		ctx, cancel := withDefault(ctx, c.options.watch)
		events, left := make(chan jobEvent), make(chan struct{})
		tell := func(event jobEvent) bool {
			select {
			case events <- event:
				return true
			case <-left:
				return false
			}
		}
		var streams sync.WaitGroup
		defer streams.Wait()
		defer close(left)
		defer cancel()
		for ids := range slices.Chunk(distinct(request.GetJobIds()), jobsPerStream) {
			streams.Add(1)
			go func() {
				defer streams.Done()
				if err := c.watchSome(ctx, request, ids, tell, options); err != nil {
					tell(jobEvent{err: err})
				}
			}()
		}
		go func() {
			streams.Wait()
			close(events)
		}()
		for event := range events {
			if !yield(event.message, event.err) || event.err != nil {
				return
			}
		}
	}
}

type jobEvent struct {
	message *docpreviewv1.WatchPreviewJobsResponse
	err     error
}

// watchSome follows up to 1,000 jobs to their ends.
func (c *Client) watchSome(
	ctx context.Context, request *docpreviewv1.WatchPreviewJobsRequest, ids []string, tell func(jobEvent) bool, options []grpc.CallOption,
) error {
	open, last := slices.Clone(ids), map[string]*docpreviewv1.PreviewJob{}
	ended := func(id string) {
		open = slices.DeleteFunc(open, func(each string) bool { return each == id })
	}
	return follow(ctx, c, subscription[docpreviewv1.WatchPreviewJobsResponse]{
		open: func(ctx context.Context, jobs docpreviewv1.PreviewJobServiceClient) (grpc.ServerStreamingClient[docpreviewv1.WatchPreviewJobsResponse], error) {
			asked := proto.CloneOf(request)
			asked.JobIds = slices.Clone(open)
			return jobs.WatchPreviewJobs(ctx, asked, options...)
		},
		take: func(message *docpreviewv1.WatchPreviewJobsResponse) bool {
			if failed := message.GetError(); failed != nil {
				ended(failed.GetJobId())
				return tell(jobEvent{message: message})
			}
			job := message.GetJob()
			if job == nil || proto.Equal(job, last[job.GetJobId()]) {
				return true
			}
			last[job.GetJobId()] = job
			if IsTerminal(job.GetState()) {
				ended(job.GetJobId())
			}
			return tell(jobEvent{message: message})
		},
		ended: func() bool { return len(open) == 0 },
	})
}

func distinct(ids []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		known := seen[id]
		seen[id] = true
		return known
	})
}
