package docpreview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// transferRepeats is how often a failed PUT or GET of the storage is repeated.
const transferRepeats = 3

// storageClient is the default client of uploads and downloads.
func storageClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 16
	transport.DisableCompression = true // pages are compressed, and lengths are those of the object
	return withoutRedirects(http.Client{Transport: transport})
}

// withoutRedirects is client, but it follows no redirects: an address is signed for one host.
func withoutRedirects(client http.Client) *http.Client {
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

// transfer makes an exchange with the storage and repeats it while that may help.
func transfer(ctx context.Context, once func(context.Context) error) error {
	for repeated, pause := 0, firstPause; ; repeated, pause = repeated+1, 2*pause {
		err := once(ctx)
		if !errors.Is(err, Unavailable) || repeated == transferRepeats {
			return err
		}
		if sleep(ctx, spread(pause)) != nil {
			return ended(ctx)
		}
	}
}

// send makes one HTTP request and gives its response to use. The exchange is broken off when no byte moves for idle.
// Addresses are secrets: no error has them.
func (c *Client) send(ctx context.Context, what string, request *http.Request, use func(*http.Response) error) error {
	watchedCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := c.options.idle
	timer := time.AfterFunc(idle, func() { cancel(errIdle) })
	defer timer.Stop()
	moved := func() { timer.Reset(idle) }
	if request.Body != nil {
		request.Body = io.NopCloser(movingReader{request.Body, moved})
	}
	response, err := c.options.http.Do(request.WithContext(watchedCtx))
	if err == nil {
		defer response.Body.Close()
		response.Body = io.NopCloser(movingReader{response.Body, moved})
		err = use(response)
	}
	var known *Error
	switch {
	case err == nil || errors.As(err, &known) && known.Kind != Unavailable:
		return err
	case ctx.Err() != nil:
		return ended(ctx)
	case errors.Is(context.Cause(watchedCtx), errIdle):
		return newError(codes.Unavailable, errIdle, fmt.Sprintf("%s: no byte moved for %s", what, idle))
	case known != nil:
		return known
	}
	var withAddress *url.Error
	for errors.As(err, &withAddress) {
		err = withAddress.Err
	}
	var local localError
	if errors.As(err, &local) {
		return local.error
	}
	return newError(codes.Unavailable, err, fmt.Sprintf("%s: %s", what, err))
}

// localError is one of a file of this machine: repeating the exchange does not help.
type localError struct{ error }

// localReader marks the errors of reading a content.
type localReader struct{ io.Reader }

func (l localReader) Read(into []byte) (int, error) {
	n, err := l.Reader.Read(into)
	if err != nil && err != io.EOF {
		err = localError{err}
	}
	return n, err
}

// localWriter marks the errors of writing a file.
type localWriter struct{ io.Writer }

func (l localWriter) Write(from []byte) (int, error) {
	n, err := l.Writer.Write(from)
	if err != nil {
		err = localError{err}
	}
	return n, err
}

// movingReader tells that bytes move.
type movingReader struct {
	io.Reader
	moved func()
}

func (m movingReader) Read(into []byte) (int, error) {
	n, err := m.Reader.Read(into)
	if n > 0 {
		m.moved()
	}
	return n, err
}

// notTheStorage is the error of a reply that the storage does not give; it may be gone at the next attempt.
func notTheStorage(what string) *Error {
	return newError(codes.Unavailable, nil, what+": something on the way to the storage, such as a proxy, answered in its place")
}

var errorCode = regexp.MustCompile(`<Code>([A-Za-z.]{1,64})</Code>`)

// refusal is the error of a response that is not the wanted one. Its body may repeat what was signed: only the code is told.
func refusal(what string, response *http.Response) *Error {
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	message := fmt.Sprintf("%s: the storage answered %d", what, response.StatusCode)
	if found := errorCode.FindSubmatch(body); found != nil {
		message += " " + string(found[1])
	}
	code := codes.FailedPrecondition
	switch {
	case response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests:
		code = codes.Unavailable
	case response.StatusCode == http.StatusForbidden:
		code = codes.PermissionDenied
	case response.StatusCode == http.StatusNotFound:
		code = codes.NotFound
	}
	return newError(code, nil, message)
}

// parallel does each of n pieces of work, at most atOnce at the same time. The first error ends the others, and is returned.
func parallel(ctx context.Context, n, atOnce int, work func(context.Context, int) error) error {
	workCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	pieces := make(chan int)
	for range min(n, atOnce) {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for piece := range pieces {
				if err := work(workCtx, piece); err != nil {
					cancel(err)
				}
			}
		}()
	}
	for piece := range n {
		select {
		case pieces <- piece:
		case <-workCtx.Done():
		}
	}
	close(pieces)
	workers.Wait()
	err := context.Cause(workCtx)
	if err != nil && err == context.Cause(ctx) {
		return ended(ctx)
	}
	return err
}

// ended is the error of a call whose context has ended.
func ended(ctx context.Context) error {
	return decode(ctx, status.FromContextError(ctx.Err()).Err(), nil)
}
