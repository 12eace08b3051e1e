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
	// uploadID in a key is replaced by the gateway, with 32 random digits.
	uploadID = "${UploadId}"
	// abortWithin: the upload has failed already, nobody waits long for its parts to be deleted.
	abortWithin = 10 * time.Second
)

// Upload brings a local file to a bucket, by addresses that the gateway signs: no keys of the cloud are needed, and the
// content does not pass through the gateway. The request needs a Bucket; Object is `in/${UploadId}` with the file's suffix
// by default, and the length is filled in. The Object of the result is the InputObject of a create.
//
// Large files travel in parts, four at a time. What fails on the way is repeated; an upload whose addresses have expired is
// begun again, once; one that fails leaves nothing behind. A file that is empty or no regular file is an [InvalidRequest];
// one whose size or modification time changes while it is uploaded is an error. What something on the way to the storage,
// such as a proxy, answers to a part is repeated like a broken connection, and then an error of the kind [Unavailable].
func (c *Client) Upload(
	ctx context.Context, path string, request *docpreviewv1.CreateUploadRequest,
) (*docpreviewv1.UploadedObject, error) {
	return c.uploadFile(ctx, path, request, "")
}

// uploadFile is Upload; for the requestID see content.
func (c *Client) uploadFile(
	ctx context.Context, path string, request *docpreviewv1.CreateUploadRequest, requestID string,
) (*docpreviewv1.UploadedObject, error) {
	file, info, err := openDocument(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if request.GetObject() == "" {
		request = proto.CloneOf(request)
		request.Object = "in/" + uploadID + suffixOf(path)
	}
	return c.upload(ctx, content{file, info.Size(), func() error { return unchanged(file, info) }, requestID}, request)
}

// content is what an upload brings.
type content struct {
	io.ReaderAt
	length int64
	// unchanged fails when the content is no longer what it was before the parts were sent.
	unchanged func() error
	// requestID, where it is not empty, makes the `${UploadId}` of the key, together with the content: what is at such a
	// key is this content, brought by an earlier attempt.
	requestID string
}

// md5 reads it all.
func (c content) md5(ctx context.Context) ([]byte, error) {
	sum := md5.New()
	_, err := io.Copy(sum, contextReader{ctx, io.NewSectionReader(c, 0, c.length)})
	if err != nil && ctx.Err() != nil {
		err = ended(ctx)
	}
	return sum.Sum(nil), err
}

// contextReader fails as soon as the context has ended: large files take minutes.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (c contextReader) Read(into []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(into)
}

// idOf takes the place of `${UploadId}` in the key of a content that is uploaded for the create of this request_id. It is the
// same in all clients.
func idOf(requestID string, sum []byte) string {
	return fmt.Sprintf("%x", md5.Sum(fmt.Appendf(nil, "%s\n%x", strings.ToLower(requestID), sum)))
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
	irregular := newError(codes.InvalidArgument, nil, path+" is not a regular file")
	if info, err = os.Stat(path); err != nil {
		return nil, nil, err
	} else if !info.Mode().IsRegular() { // seen before it is opened: a FIFO would wait for its writer
		return nil, nil, irregular
	}
	file, err = os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err = file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = irregular
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
	ctx context.Context, from io.ReaderAt, length int64, request *docpreviewv1.CreateUploadRequest,
) (*docpreviewv1.UploadedObject, error) {
	return c.upload(ctx, content{from, length, func() error { return nil }, ""}, request)
}

func (c *Client) upload(
	ctx context.Context, content content, request *docpreviewv1.CreateUploadRequest,
) (*docpreviewv1.UploadedObject, error) {
	request = proto.CloneOf(request)
	request.ContentLength = content.length
	named := content.requestID != "" && strings.Contains(request.GetObject(), uploadID)
	isChecked := len(request.GetContentMd5()) == 0 && content.length <= longestChecked
	if named || isChecked {
		sum, err := content.md5(ctx)
		if err != nil {
			return nil, err
		}
		if isChecked {
			request.ContentMd5 = sum
		}
		if named {
			request.Object = strings.ReplaceAll(request.GetObject(), uploadID, idOf(content.requestID, sum))
		}
	}
	uploaded, parts, err := c.uploadOnce(ctx, content, request)
	var failed *Error
	if errors.As(err, &failed) && failed.Kind == PermissionDenied && failed.Reason == "" { // the storage's: expired
		uploaded, parts, err = c.uploadOnce(ctx, content, request)
	}
	if named && parts != 1 && existsAlready(err) { // of one part the gateway has compared: it is another content
		return &docpreviewv1.UploadedObject{Bucket: request.GetBucket(), Object: request.GetObject()}, nil
	}
	return uploaded, err
}

// existsAlready reports whether the gateway refused an upload since there is an object of its key.
func existsAlready(err error) bool {
	var failed *Error
	return errors.As(err, &failed) && failed.Reason == "OBJECT_EXISTS"
}

// uploadOnce also returns the number of parts: 0 when the upload was not begun.
func (c *Client) uploadOnce(
	ctx context.Context, content content, request *docpreviewv1.CreateUploadRequest,
) (uploaded *docpreviewv1.UploadedObject, parts int, err error) {
	upload, err := read(ctx, c, c.uploads.CreateUpload, request, nil)
	if err != nil {
		return nil, 0, err
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
		if changed := content.unchanged(); changed != nil {
			err = changed
		}
	}
	if err == nil {
		completion := &docpreviewv1.CompleteUploadRequest{UploadToken: upload.GetUploadToken(), Etags: etags}
		if uploaded, err = read(ctx, c, c.uploads.CompleteUpload, completion, nil); err == nil {
			return uploaded, len(etags), nil
		}
	}
	abortion, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortWithin)
	defer cancel()
	_, _ = read(abortion, c, c.uploads.AbortUpload, &docpreviewv1.AbortUploadRequest{UploadToken: upload.GetUploadToken()}, nil)
	return nil, len(etags), err
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
		if why := notOfTheStorage(response); why != "" {
			return notTheStorage(what + ": the reply " + why)
		}
		if response.StatusCode == http.StatusConflict && whole != "" {
			etag = whole
			return nil
		}
		if response.StatusCode != http.StatusOK {
			return refusal(what, response)
		}
		etag = response.Header.Get("ETag")
		_, err := io.Copy(io.Discard, response.Body)
		return err
	})
	return etag, err
}

// notOfTheStorage says what in the reply to a part the storage never answers; it is empty when it may be the storage's.
func notOfTheStorage(response *http.Response) string {
	switch status := response.StatusCode; {
	case mediaType(response.Header.Get("Content-Type")) == "text/html":
		return "is text/html"
	case status != http.StatusOK && status < http.StatusBadRequest, status == http.StatusProxyAuthRequired:
		return fmt.Sprintf("is HTTP %d", status)
	case status == http.StatusOK && response.Header.Get("ETag") == "":
		return "has no ETag"
	}
	return ""
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
