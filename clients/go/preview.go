package docpreview

import (
	"context"
	"os"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

// Preview makes page images of a local document: it uploads the file, creates a job, follows it to its end and downloads
// the pages into a directory, which is made. It returns the job at its end and the paths of the pages in order.
//
// The request needs a Bucket. Its InputObject is where the file is uploaded to (as in [Client.Upload]; default:
// `in/${UploadId}` with the file's suffix), its Output where the cloud writes the pages (default: below
// `out/${RequestToken}/`); Options and all else are those of the create. The file and the directory are checked before
// anything is sent.
//
// [JobError] when the job has not succeeded; the job is returned then too.
func (c *Client) Preview(
	ctx context.Context, path, directory string, request *docpreviewv1.CreatePreviewJobRequest, options ...DownloadOption,
) (*docpreviewv1.PreviewJob, []string, error) {
	if err := checkWritable(directory); err != nil {
		return nil, nil, err
	}
	uploaded, err := c.Upload(ctx, path, &docpreviewv1.CreateUploadRequest{
		Bucket: request.GetBucket(), Object: request.GetInputObject(),
	})
	if err != nil {
		return nil, nil, err
	}
	request = proto.CloneOf(request)
	request.InputObject = uploaded.GetObject()
	if request.GetOutput().GetObject() == "" {
		if request.Output == nil {
			request.Output = &docpreviewv1.ObjectLocation{}
		}
		request.Output.Object = outputOf(request)
	}
	var job *docpreviewv1.PreviewJob
	for next, err := range c.CreateAndWatch(ctx, request, downloading(options).ttl) {
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
