package docpreview

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

// Preview makes page images of a local document: it uploads the file, creates a job, follows it to its end and downloads
// the pages into a directory, which is made. It returns the job at its end and the paths of the pages in order.
//
// The request needs a Bucket. Its InputObject is where the file is uploaded to (as in [Client.Upload]; default: `in/` and
// the RequestId with the file's suffix), its Output where the cloud writes the pages (default: below
// `out/${RequestToken}/`); Options and all else are those of the create. The file and the directory are checked before
// anything is sent. Pages that another job left in the directory are deleted as soon as the new job is there.
//
// With the same RequestId, and without an InputObject, Preview can be repeated after any error: its attempts together make
// one job. The client makes a RequestId when there is none, unless [WithoutRepeatedCreates] says otherwise; the
// CreateRequestID of an [OutcomeUnknown] tells it.
//
// [JobError] when the job has not succeeded, [UnfinishedError] when anything else fails once there is a job; the job is
// returned then too. After other errors there is no job, but after [OutcomeUnknown], and a context that is cancelled during
// the create, there may be one.
func (c *Client) Preview(
	ctx context.Context, path, directory string, request *docpreviewv1.CreatePreviewJobRequest, options ...DownloadOption,
) (*docpreviewv1.PreviewJob, []string, error) {
	if err := checkWritable(directory); err != nil {
		return nil, nil, err
	}
	request = proto.CloneOf(request)
	if request.GetRequestId() == "" && !c.options.createOnce {
		request.RequestId = NewRequestID()
	}
	if err := c.bringInput(ctx, path, request); err != nil {
		return nil, nil, err
	}
	if request.GetOutput().GetObject() == "" {
		if request.Output == nil {
			request.Output = &docpreviewv1.ObjectLocation{}
		}
		request.Output.Object = outputOf(request)
	}
	job, err := c.Create(ctx, request)
	if err != nil {
		return nil, nil, err
	}
	job, files, err := c.pagesOf(ctx, job, directory, options)
	var unsuccessful *JobError
	if err != nil && !errors.As(err, &unsuccessful) {
		err = &UnfinishedError{Job: job, Cause: err}
	}
	return job, files, err
}

// bringInput uploads the file, and makes its object the request's input.
func (c *Client) bringInput(ctx context.Context, path string, request *docpreviewv1.CreatePreviewJobRequest) error {
	ofThisRequest := request.GetInputObject() == "" && request.GetRequestId() != ""
	if ofThisRequest {
		request.InputObject = "in/" + request.GetRequestId() + suffixOf(path)
	}
	uploaded, err := c.Upload(ctx, path, &docpreviewv1.CreateUploadRequest{
		Bucket: request.GetBucket(), Object: request.GetInputObject(),
	})
	if ofThisRequest && existsAlready(err) { // no other request has this key: an earlier attempt at this one brought it
		return nil
	}
	request.InputObject = uploaded.GetObject()
	return err
}

// existsAlready reports whether the gateway refused an upload since there is an object of its key.
func existsAlready(err error) bool {
	var failed *Error
	return errors.As(err, &failed) && failed.Reason == "OBJECT_EXISTS"
}

// pagesOf follows a job to its end and downloads its pages. The job is the last that was seen, also when this fails.
func (c *Client) pagesOf(
	ctx context.Context, job *docpreviewv1.PreviewJob, directory string, options []DownloadOption,
) (*docpreviewv1.PreviewJob, []string, error) {
	if err := removeOthers(directory, job.GetJobId()); err != nil {
		return job, nil, err
	}
	watched := &docpreviewv1.WatchPreviewJobRequest{
		Bucket: job.GetBucket(), JobId: job.GetJobId(), PageUrlTtl: durationpb.New(downloading(options).ttl),
	}
	for next, err := range c.Watch(ctx, watched) {
		if err != nil {
			return job, nil, err
		}
		job = next
	}
	files, err := c.Download(ctx, job, directory, options...)
	return job, files, err
}

// checkWritable makes the directory, and a file in it for a moment.
func checkWritable(directory string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(directory, ".docpreview-*")
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Remove(file.Name())
}

// spreadsheets need the number of the sheet in the names of their results.
var spreadsheets = []string{"csv", "et", "ets", "ett", "xls", "xlsb", "xlsm", "xlsx", "xlt", "xltm", "xltx"}

// outputOf is the default place of the results: `${RequestToken}` is another text for each create.
func outputOf(request *docpreviewv1.CreatePreviewJobRequest) string {
	format := strings.TrimPrefix(suffixOf(request.GetInputObject()), ".")
	if format == "" {
		format = request.GetOptions().GetSourceFormat()
	}
	suffix, known := suffixOfTarget[request.GetOptions().GetTargetFormat()]
	if !known {
		suffix = ".jpg"
	}
	if slices.Contains(spreadsheets, format) {
		return "out/${RequestToken}/sheet-${SheetID}/page-${Number}" + suffix
	}
	return "out/${RequestToken}/page-${Number}" + suffix
}
