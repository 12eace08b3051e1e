package docpreview

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

const (
	// uploadsAtOnce is how many parts of one upload travel at the same time.
	uploadsAtOnce = 4
	// longestChecked: the cloud checks the MD5 of uploads of one part, and so large a content may be one.
	longestChecked = 16 << 20
	// abortWithin: the upload has failed already, nobody waits long for its parts to be deleted.
	abortWithin = 10 * time.Second
)

// Upload brings a local file to a bucket, by addresses that the gateway signs: no keys of the cloud are needed, and the
// content does not pass through the gateway. The request needs a Bucket; Object is `in/${UploadId}` with the file's suffix
// by default, and the length is filled in. The Object of the result is the InputObject of a create.
//
// Large files travel in parts, four at a time. What fails on the way is repeated; an upload whose addresses have expired is
// begun again, once; one that fails leaves nothing behind. A file that is empty is an [InvalidRequest]; one whose size or
// modification time changes while it is uploaded is an error.
func (c *Client) Upload(
	ctx context.Context, path string, request *docpreviewv1.CreateUploadRequest,
) (*docpreviewv1.UploadedObject, error) {
	file, info, err := openDocument(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if request.GetObject() == "" {
		request = proto.CloneOf(request)
		request.Object = "in/${UploadId}" + suffixOf(path)
	}
	return c.upload(ctx, file, info.Size(), request, func() error { return unchanged(file, info) })
}

// unchanged compares the file with what it was: parts that were read at different times would make a document that never was.
func unchanged(file *os.File, was os.FileInfo) error {
	is, err := file.Stat()
	if err == nil && (is.Size() != was.Size() || !is.ModTime().Equal(was.ModTime())) {
		err = fmt.Errorf("docpreview: %s changed while it was uploaded: upload it when nothing writes to it", file.Name())
	}
	return err
}

func openDocument(path string) (file *os.File, info os.FileInfo, err error) {
	file, err = os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err = file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("docpreview: %s is not a file", path)
	} else if err == nil && info.Size() == 0 {
		err = newError(codes.InvalidArgument, nil, path+" is empty")
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, info, nil
}

// UploadContent is [Client.Upload] of length bytes from anywhere, such as a multipart.File or a bytes.Reader. The request
// needs a Bucket and an Object.
func (c *Client) UploadContent(
	ctx context.Context, content io.ReaderAt, length int64, request *docpreviewv1.CreateUploadRequest,
) (*docpreviewv1.UploadedObject, error) {
	return c.upload(ctx, content, length, request, func() error { return nil })
}

// upload fails with the error of unchanged when the content is no longer what it was before the parts were sent.
func (c *Client) upload(
	ctx context.Context, content io.ReaderAt, length int64, request *docpreviewv1.CreateUploadRequest, unchanged func() error,
) (*docpreviewv1.UploadedObject, error) {
	request = proto.CloneOf(request)
	request.ContentLength = length
	if len(request.GetContentMd5()) == 0 && length <= longestChecked {
		sum := md5.New()
		if _, err := io.Copy(sum, io.NewSectionReader(content, 0, length)); err != nil {
			return nil, err
		}
		request.ContentMd5 = sum.Sum(nil)
	}
	uploaded, err := c.uploadOnce(ctx, content, request, unchanged)
	var failed *Error
	if errors.As(err, &failed) && failed.Kind == PermissionDenied && failed.Reason == "" { // the storage's: expired
		return c.uploadOnce(ctx, content, request, unchanged)
	}
	return uploaded, err
}

func (c *Client) uploadOnce(
	ctx context.Context, content io.ReaderAt, request *docpreviewv1.CreateUploadRequest, unchanged func() error,
) (*docpreviewv1.UploadedObject, error) {
	upload, err := read(ctx, c, c.uploads.CreateUpload, request, nil)
	if err != nil {
		return nil, err
	}
	etags := make([]string, len(upload.GetParts()))
	var whole string
	if sum := request.GetContentMd5(); len(sum) > 0 && len(etags) == 1 {
		whole = `"` + hex.EncodeToString(sum) + `"`
	}
	err = parallel(ctx, len(etags), uploadsAtOnce, func(ctx context.Context, i int) error {
		return transfer(ctx, func(ctx context.Context) (err error) {
			etags[i], err = c.put(ctx, content, upload.GetParts()[i], i+1, whole)
			return err
		})
	})
	if ctx.Err() == nil { // a change also explains why the storage refused a part
		if changed := unchanged(); changed != nil {
			err = changed
		}
	}
	if err == nil {
		var uploaded *docpreviewv1.UploadedObject
		completion := &docpreviewv1.CompleteUploadRequest{UploadToken: upload.GetUploadToken(), Etags: etags}
		if uploaded, err = read(ctx, c, c.uploads.CompleteUpload, completion, nil); err == nil {
			return uploaded, nil
		}
	}
	abortion, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortWithin)
	defer cancel()
	_, _ = read(abortion, c, c.uploads.AbortUpload, &docpreviewv1.AbortUploadRequest{UploadToken: upload.GetUploadToken()}, nil)
	return nil, err
}

// put sends one part with exactly the headers that were signed, and returns its ETag.
//
// whole is the ETag of the object when the part is all of it, else empty. Then a conflict is most likely the content that
// an attempt has put whose reply was lost, and CompleteUpload tells whether it is.
func (c *Client) put(
	ctx context.Context, content io.ReaderAt, part *docpreviewv1.UploadPart, number int, whole string,
) (etag string, err error) {
	what := fmt.Sprintf("PUT of part %d", number)
	body := localReader{io.NewSectionReader(content, part.GetOffset(), part.GetLength())}
	request, err := http.NewRequest(http.MethodPut, part.GetUrl(), io.NopCloser(body))
	if err != nil {
		return "", fmt.Errorf("docpreview: %s: the gateway gave an address that cannot be read", what)
	}
	request.ContentLength = part.GetLength()
	request.Header.Set("User-Agent", "") // none
	for name, value := range part.GetHeaders() {
		switch strings.ToLower(name) {
		case "host":
			request.Host = value
		case "content-length": // is that of the request
		default:
			request.Header.Set(name, value)
		}
	}
	err = c.send(ctx, what, request, func(response *http.Response) error {
		if response.StatusCode == http.StatusConflict && whole != "" {
			etag = whole
			return nil
		}
		if response.StatusCode != http.StatusOK {
			return refusal(what, response)
		}
		if etag = response.Header.Get("ETag"); etag == "" {
			return notTheStorage(what + ": the reply has no ETag")
		}
		_, err := io.Copy(io.Discard, response.Body)
		return err
	})
	return etag, err
}

var usualSuffix = regexp.MustCompile(`^\.[a-z0-9]{1,10}$`)

// suffixOf is the suffix of a file's name with its dot, or empty when it has none by which the cloud could know its format.
func suffixOf(path string) string {
	suffix := strings.ToLower(filepath.Ext(path))
	if !usualSuffix.MatchString(suffix) {
		return ""
	}
	return suffix
}
