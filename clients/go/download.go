package docpreview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

// refusalsOfAPage is how often fresh addresses are asked for one page in a row.
const refusalsOfAPage = 3

// DownloadOption changes how pages are downloaded.
type DownloadOption func(*downloadOptions)

type downloadOptions struct {
	parallel int
	ttl      time.Duration
	progress func(Progress)
}

// Progress is how far a download is.
type Progress struct {
	// PagesDone of Pages are on disk, with so many Bytes. Pages of an earlier download are among them.
	PagesDone, Pages int
	Bytes            int64
}

// WithParallel downloads so many pages at the same time. Default: 8.
func WithParallel(pages int) DownloadOption {
	return func(o *downloadOptions) { o.parallel = max(pages, 1) }
}

// WithPageURLTTL asks for addresses that are valid so long: 1 second to 1 hour. Default: 10 minutes.
func WithPageURLTTL(ttl time.Duration) DownloadOption {
	return func(o *downloadOptions) { o.ttl = ttl }
}

// WithProgress calls report at the begin and after each page, never twice at the same time.
func WithProgress(report func(Progress)) DownloadOption {
	return func(o *downloadOptions) { o.progress = report }
}

func downloading(changes []DownloadOption) downloadOptions {
	o := downloadOptions{parallel: 8, ttl: 10 * time.Minute, progress: func(Progress) {}}
	for _, change := range changes {
		change(&o)
	}
	return o
}

// Download writes the pages of a job that has succeeded into a directory, which is made, and returns the paths of their
// files in order: page-0001.jpg, for spreadsheets sheet-01-page-001.jpg, document.pdf where the target is a PDF.
//
// Addresses are asked for when the job has none, and anew when they have expired. A download that was interrupted goes on
// where it stopped, by what the file .docpreview.json in the directory says; pages that another job left there are deleted.
// A reply that is empty, of another content type than the page, or longer than it says (than 1 GiB, where it does not) is
// none of the storage: it is repeated like a broken connection, and then an error of the kind [Unavailable]. Only one
// download at a time may go to a directory.
// [JobError] when the job has not succeeded.
func (c *Client) Download(
	ctx context.Context, job *docpreviewv1.PreviewJob, directory string, options ...DownloadOption,
) ([]string, error) {
	if job.GetState() != docpreviewv1.PreviewJob_STATE_SUCCESS {
		return nil, &JobError{Job: job}
	}
	d := &download{client: c, options: downloading(options), job: job}
	if !d.complete() {
		if err := d.refresh(ctx, 0); err != nil {
			return nil, err
		}
	}
	names := fileNames(d.job.GetResult())
	var err error
	if d.manifest, err = openManifest(directory, job.GetJobId(), names); err != nil {
		return nil, err
	}
	var missing []int
	for i, name := range names {
		if d.manifest.has(name) {
			d.done++
			d.bytes += d.manifest.Pages[name]
		} else {
			missing = append(missing, i)
		}
	}
	d.report(len(names), 0, 0)
	err = parallel(ctx, len(missing), d.options.parallel, func(ctx context.Context, i int) error {
		page := missing[i]
		length, err := d.page(ctx, page, names[page])
		if err == nil {
			d.report(len(names), 1, length)
		}
		return err
	})
	if written := d.manifest.write(); err == nil {
		err = written
	}
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		names[i] = d.manifest.path(name)
	}
	return names, nil
}

// download is one call of Download.
type download struct {
	client   *Client
	options  downloadOptions
	manifest *manifest

	fresh      sync.Mutex // held while addresses are asked for, so that all who miss one ask once
	job        *docpreviewv1.PreviewJob
	generation int

	reported sync.Mutex
	done     int
	bytes    int64
}

func (d *download) report(pages, more int, bytes int64) {
	d.reported.Lock()
	defer d.reported.Unlock()
	d.done += more
	d.bytes += bytes
	d.options.progress(Progress{PagesDone: d.done, Pages: pages, Bytes: d.bytes})
}

// complete reports whether the job came with its pages and their addresses.
func (d *download) complete() bool {
	pages := d.job.GetResult().GetPages()
	for _, page := range pages {
		if page.GetUrl() == "" {
			return false
		}
	}
	return len(pages) > 0
}

// refresh gets other addresses than those of this generation, unless somebody else has.
func (d *download) refresh(ctx context.Context, generation int) error {
	d.fresh.Lock()
	defer d.fresh.Unlock()
	if d.generation != generation {
		return nil
	}
	job, err := d.client.Get(ctx, &docpreviewv1.GetPreviewJobRequest{
		Bucket: d.job.GetBucket(), JobId: d.job.GetJobId(), PageUrlTtl: durationpb.New(d.options.ttl),
	})
	if err != nil {
		return err
	}
	if had := len(d.job.GetResult().GetPages()); had > 0 && had != len(job.GetResult().GetPages()) {
		return newError(codes.Internal, nil, "the gateway names other pages of the job than before")
	}
	d.job, d.generation = job, generation+1
	return nil
}

func (d *download) source(page int) (source *docpreviewv1.Page, generation int) {
	d.fresh.Lock()
	defer d.fresh.Unlock()
	return d.job.GetResult().GetPages()[page], d.generation
}

// page brings one page to disk and returns its bytes.
func (d *download) page(ctx context.Context, page int, name string) (length int64, err error) {
	what := fmt.Sprintf("GET of %s", name)
	for refused := 0; ; refused++ {
		source, generation := d.source(page)
		if source.GetUrl() == "" {
			return 0, newError(codes.PermissionDenied, nil, what+": the gateway gives no address of it: ask its operators"+
				" whether the policy lets you read the results, and whether their bucket is configured")
		}
		err = transfer(ctx, func(ctx context.Context) (err error) {
			length, err = d.client.fetch(ctx, what, source, d.manifest.part(name))
			return err
		})
		if err == nil {
			return length, d.manifest.add(name, length)
		}
		if !errors.Is(err, PermissionDenied) || refused == refusalsOfAPage {
			return 0, err
		}
		if err := d.refresh(ctx, generation); err != nil {
			return 0, err
		}
	}
}

// fetch makes the file at path whole, from where it ends, and returns its length.
func (c *Client) fetch(ctx context.Context, what string, page *docpreviewv1.Page, path string) (length int64, err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return 0, err
	}
	defer func() {
		if closed := file.Close(); err == nil {
			err = closed
		}
	}()
	offset, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequest(http.MethodGet, page.GetUrl(), nil)
	if err != nil {
		return 0, fmt.Errorf("docpreview: %s: the gateway gave an address that cannot be read", what)
	}
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	err = c.send(ctx, what, request, func(response *http.Response) error {
		length, err = receive(what, response, file, offset, page.GetContentType(), c.options.longestPage)
		if err == nil && length == 0 {
			return notTheStorage(what + ": the reply is empty")
		}
		return err
	})
	return length, err
}

// receive writes the response's part of a file that had offset bytes, and returns the length of the whole.
func receive(
	what string, response *http.Response, file *os.File, offset int64, wanted string, longest int64,
) (length int64, err error) {
	ok := response.StatusCode == http.StatusOK || response.StatusCode == http.StatusPartialContent
	if got := response.Header.Get("Content-Type"); ok && !sameType(got, wanted) {
		return 0, notTheStorage(fmt.Sprintf("%s: the reply is %s, not %s", what, mediaType(got), mediaType(wanted)))
	}
	switch response.StatusCode {
	case http.StatusOK: // from the beginning, whatever was asked for
		length, offset = response.ContentLength, 0
	case http.StatusPartialContent:
		var from, to int64
		_, err := fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &length)
		if err != nil || from != offset {
			return 0, afresh(what, file)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return 0, afresh(what, file)
	default:
		if response.StatusCode < http.StatusBadRequest { // a redirect to a login, most likely
			return 0, notTheStorage(fmt.Sprintf("%s: the reply is HTTP %d", what, response.StatusCode))
		}
		return 0, refusal(what, response)
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return 0, localError{err}
	}
	if err := file.Truncate(offset); err != nil {
		return 0, localError{err}
	}
	most := longest
	if length >= 0 {
		most = length
	}
	written, err := io.Copy(localWriter{file}, io.LimitReader(response.Body, max(most-offset, 0)+1))
	if offset+written > most {
		if err := errors.Join(file.Close(), os.Remove(file.Name())); err != nil {
			return 0, localError{err}
		}
		return 0, notTheStorage(fmt.Sprintf("%s: the reply has more than %d bytes", what, most))
	}
	if err == nil && length >= 0 && offset+written != length {
		err = io.ErrUnexpectedEOF
	}
	return offset + written, err
}

// sameType reports whether both are the same type of content, or one is unknown.
func sameType(a, b string) bool {
	a, b = mediaType(a), mediaType(b)
	return a == "" || b == "" || a == b
}

// mediaType is a content type without its parameters.
func mediaType(contentType string) string {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

// afresh empties a file that the storage cannot go on with: the next attempt begins it anew.
func afresh(what string, file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return localError{err}
	}
	return newError(codes.Unavailable, nil, what+": the storage does not go on where the download stopped")
}
