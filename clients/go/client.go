// Package docpreview is the client of the docpreview gateway: document-preview jobs over gRPC.
//
//	client, err := docpreview.New("dns:///docpreview:50051")
//	...
//	request := &docpreviewv1.CreatePreviewJobRequest{Bucket: "docs-1250000000"}
//	job, files, err := client.Preview(ctx, "slides.pptx", "pages", request)
//
// Requests and replies are the messages of package docpreviewv1; what their fields mean stands there. Errors are [*Error].
//
// Metadata of the context ([metadata.AppendToOutgoingContext]) is sent with a call; [NoCache] is a short form of one.
// grpc.Trailer among the options of a call stores what came with the reply: `x-request-id`, and `x-cache` where the gateway
// tells it.
package docpreview

import (
	"context"
	"iter"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

// Client talks to one docpreview gateway (all its replicas). Make one and share it: it is safe for any number of
// goroutines.
type Client struct {
	conn    *grpc.ClientConn
	streams *streamPool
	jobs    docpreviewv1.PreviewJobServiceClient
	queues  docpreviewv1.PreviewQueueServiceClient
	uploads docpreviewv1.UploadServiceClient
	usage   docpreviewv1.UsageServiceClient
	options options
}

// New makes a client of the gateway at target: `host:port`, or a target as gRPC resolves it, such as
// `dns:///host:port` (all addresses of the host are used in turn) or `unix:/path`. It connects when the first call is
// made.
func New(target string, changes ...Option) (*Client, error) {
	o := defaults()
	for _, change := range changes {
		change(&o)
	}
	dial, err := dialOptions(target, o)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(target, dial...)
	if err != nil {
		return nil, err
	}
	pooled := append(slices.Clone(dial), grpc.WithIdleTimeout(o.streamIdle))
	return &Client{
		conn:    conn,
		streams: &streamPool{connect: func() (*grpc.ClientConn, error) { return grpc.NewClient(target, pooled...) }},
		jobs:    docpreviewv1.NewPreviewJobServiceClient(conn),
		queues:  docpreviewv1.NewPreviewQueueServiceClient(conn),
		uploads: docpreviewv1.NewUploadServiceClient(conn),
		usage:   docpreviewv1.NewUsageServiceClient(conn),
		options: o,
	}, nil
}

// Close ends the calls in flight and the connections.
func (c *Client) Close() error {
	c.streams.close()
	return c.conn.Close()
}

// Conn is the connection, for the stubs of package docpreviewv1. Their calls have no default deadlines and return gRPC's
// own errors; pass those to [DecodeError]. Watches and waits of the client itself have connections of their own.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

// DecodeError turns an error of a stub into an [*Error]; nil stays nil.
func DecodeError(err error) error {
	if err == nil {
		return nil
	}
	return decodeStatus(err, nil)
}

// NoCache makes the calls of the context bypass all caches of the gateway.
func NoCache(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "cache-control", "no-cache")
}

// pageSize is what lists ask for: the most that the gateway gives.
const pageSize = 100

// Get returns one job. [NotFound] when there is none with this id in the bucket, or when it is older than a month.
func (c *Client) Get(
	ctx context.Context, request *docpreviewv1.GetPreviewJobRequest, options ...grpc.CallOption,
) (*docpreviewv1.PreviewJob, error) {
	return read(ctx, c, c.jobs.GetPreviewJob, request, options)
}

// BatchGet returns up to 100 jobs in the order asked, and the ids that do not exist.
func (c *Client) BatchGet(
	ctx context.Context, request *docpreviewv1.BatchGetPreviewJobsRequest, options ...grpc.CallOption,
) (*docpreviewv1.BatchGetPreviewJobsResponse, error) {
	return read(ctx, c, c.jobs.BatchGetPreviewJobs, request, options)
}

// ListPage returns one page of a bucket's jobs, and the token of the next. Without PageSize it asks for 100 jobs.
func (c *Client) ListPage(
	ctx context.Context, request *docpreviewv1.ListPreviewJobsRequest, options ...grpc.CallOption,
) (*docpreviewv1.ListPreviewJobsResponse, error) {
	if request.GetPageSize() == 0 {
		request = proto.CloneOf(request)
		request.PageSize = pageSize
	}
	return read(ctx, c, c.jobs.ListPreviewJobs, request, options)
}

// List yields the bucket's jobs, page by page from the request's page on. The loop ends after an error. A default
// deadline is that of each page.
func (c *Client) List(
	ctx context.Context, request *docpreviewv1.ListPreviewJobsRequest, options ...grpc.CallOption,
) iter.Seq2[*docpreviewv1.PreviewJob, error] {
	return func(yield func(*docpreviewv1.PreviewJob, error) bool) {
		next := proto.CloneOf(request)
		for {
			page, err := c.ListPage(ctx, next, options...)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, job := range page.GetJobs() {
				if !yield(job, nil) {
					return
				}
			}
			if next.PageToken = page.GetNextPageToken(); next.PageToken == "" {
				return
			}
		}
	}
}

// ListQueues yields the bucket's queues, page by page. The loop ends after an error.
func (c *Client) ListQueues(
	ctx context.Context, request *docpreviewv1.ListPreviewQueuesRequest, options ...grpc.CallOption,
) iter.Seq2[*docpreviewv1.PreviewQueue, error] {
	return func(yield func(*docpreviewv1.PreviewQueue, error) bool) {
		next := proto.CloneOf(request)
		if next.GetPageSize() == 0 {
			next.PageSize = pageSize
		}
		for {
			page, err := read(ctx, c, c.queues.ListPreviewQueues, next, options)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, queue := range page.GetQueues() {
				if !yield(queue, nil) {
					return
				}
			}
			if next.PageToken = page.GetNextPageToken(); next.PageToken == "" {
				return
			}
		}
	}
}

// Usage returns the pages that the caller has used, and what it may use.
func (c *Client) Usage(ctx context.Context, options ...grpc.CallOption) (*docpreviewv1.Usage, error) {
	return read(ctx, c, c.usage.GetUsage, &docpreviewv1.GetUsageRequest{}, options)
}

// read makes one call that can be repeated, with its default deadline and typed errors.
func read[Request, Reply any](
	ctx context.Context, c *Client, method func(context.Context, Request, ...grpc.CallOption) (Reply, error), request Request,
	options []grpc.CallOption,
) (Reply, error) {
	ctx, cancel := withDefault(ctx, c.options.unary)
	defer cancel()
	var trailer metadata.MD
	reply, err := method(ctx, request, append(slices.Clone(options), grpc.Trailer(&trailer))...)
	return reply, decode(ctx, err, trailer)
}
