package docpreview

import (
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

// storage answers requests with scripted responses in order, and repeats the last one.
type storage struct {
	*httptest.Server
	mutex    sync.Mutex
	answers  []http.HandlerFunc
	requests []*http.Request
	bodies   [][]byte
}

func newStorage(t *testing.T, answers ...http.HandlerFunc) *storage {
	t.Helper()
	made := &storage{answers: answers}
	made.Server = httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		made.mutex.Lock()
		made.requests, made.bodies = append(made.requests, request), append(made.bodies, body)
		answer := made.answers[0]
		if len(made.answers) > 1 {
			made.answers = made.answers[1:]
		}
		made.mutex.Unlock()
		to.Header().Set("Content-Type", "image/jpeg")
		answer(to, request)
	}))
	t.Cleanup(made.Close)
	return made
}

func answers(status int, body string, headers ...string) http.HandlerFunc {
	return func(to http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			to.Header().Set(headers[i], headers[i+1])
		}
		to.WriteHeader(status)
		_, _ = io.WriteString(to, body)
	}
}

// broken sends part of the promised bytes and drops the connection.
func broken(promised int, body string) http.HandlerFunc {
	return func(to http.ResponseWriter, _ *http.Request) {
		to.Header().Set("Content-Length", fmt.Sprint(promised))
		_, _ = io.WriteString(to, body)
		to.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func (g *gateway) CreateUpload(ctx context.Context, asked *docpreviewv1.CreateUploadRequest) (*docpreviewv1.Upload, error) {
	switch answer := g.next(ctx, asked).(type) {
	case error:
		return nil, answer
	default:
		return answer.(*docpreviewv1.Upload), nil
	}
}

func (g *gateway) CompleteUpload(ctx context.Context, asked *docpreviewv1.CompleteUploadRequest) (*docpreviewv1.UploadedObject, error) {
	switch answer := g.next(ctx, asked).(type) {
	case error:
		return nil, answer
	default:
		return answer.(*docpreviewv1.UploadedObject), nil
	}
}

func (g *gateway) AbortUpload(ctx context.Context, asked *docpreviewv1.AbortUploadRequest) (*docpreviewv1.AbortUploadResponse, error) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.requests = append(g.requests, asked)
	return &docpreviewv1.AbortUploadResponse{}, nil
}

func (g *gateway) aborted() (tokens []string) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	for _, each := range g.requests {
		if aborted, ok := each.(*docpreviewv1.AbortUploadRequest); ok {
			tokens = append(tokens, aborted.GetUploadToken())
		}
	}
	return tokens
}

// created is the last create, or nil.
func (g *gateway) created() (found *docpreviewv1.CreatePreviewJobRequest) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	for _, each := range g.requests {
		if create, ok := each.(*docpreviewv1.CreatePreviewJobRequest); ok {
			found = create
		}
	}
	return found
}

var putDone = answers(200, "", "ETag", `"e"`)
var uploadedObject = &docpreviewv1.UploadedObject{Bucket: bucket, Object: "in/1.pdf", ContentLength: 9}

// uploadOf has parts of three bytes each of a content of so many.
func uploadOf(cloud *storage, token string, length int64) *docpreviewv1.Upload {
	upload := &docpreviewv1.Upload{Bucket: bucket, Object: "in/1.pdf", UploadToken: token}
	for offset := int64(0); offset < length; offset += 3 {
		part := min(3, length-offset)
		upload.Parts = append(upload.Parts, &docpreviewv1.UploadPart{
			Url: fmt.Sprintf("%s/%d?sign=secret", cloud.URL, offset), Offset: offset, Length: part,
			Headers: map[string]string{"host": "bucket.example", "content-length": fmt.Sprint(part), "x-signed": "yes"},
		})
	}
	return upload
}

func document(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Slides.PDF")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var uploadRequest = &docpreviewv1.CreateUploadRequest{Bucket: bucket}

func TestUploadSendsThePartsWithTheirHeadersAndNoOthers(t *testing.T) {
	var cloud *storage
	cloud = newStorage(t, func(to http.ResponseWriter, request *http.Request) {
		to.Header().Set("ETag", `"`+request.URL.Path+`"`)
	})
	client, fake := serve(t, []any{uploadOf(cloud, "t", 8), uploadedObject})
	uploaded, err := client.Upload(t.Context(), document(t, "abcdefgh"), uploadRequest)
	if err != nil || uploaded.GetObject() != "in/1.pdf" {
		t.Fatalf("got %v, %v", uploaded, err)
	}
	asked := fake.requests[0].(*docpreviewv1.CreateUploadRequest)
	sum := md5.Sum([]byte("abcdefgh"))
	if asked.GetObject() != "in/${UploadId}.pdf" || asked.GetContentLength() != 8 || !slices.Equal(asked.GetContentMd5(), sum[:]) {
		t.Errorf("asked for %v", asked)
	}
	if etags := fake.requests[1].(*docpreviewv1.CompleteUploadRequest).GetEtags(); !slices.Equal(etags, []string{`"/0"`, `"/3"`, `"/6"`}) {
		t.Errorf("completed with %v", etags)
	}
	bodies := map[string]string{}
	for i, request := range cloud.requests {
		bodies[request.URL.Path] = string(cloud.bodies[i])
		names := slices.Sorted(maps.Keys(request.Header))
		if request.Host != "bucket.example" || !slices.Equal(names, []string{"Content-Length", "X-Signed"}) {
			t.Errorf("sent %s %v", request.Host, request.Header)
		}
	}
	if !maps.Equal(bodies, map[string]string{"/0": "abc", "/3": "def", "/6": "gh"}) {
		t.Errorf("sent %v", bodies)
	}
}

func TestUploadSendsAtMostFourPartsAtATime(t *testing.T) {
	var mutex sync.Mutex
	now, most := 0, 0
	cloud := newStorage(t, func(to http.ResponseWriter, _ *http.Request) {
		mutex.Lock()
		now++
		most = max(most, now)
		mutex.Unlock()
		time.Sleep(20 * time.Millisecond)
		mutex.Lock()
		now--
		mutex.Unlock()
		to.Header().Set("ETag", `"e"`)
	})
	client, _ := serve(t, []any{uploadOf(cloud, "t", 36), uploadedObject})
	content := strings.NewReader(strings.Repeat("x", 36))
	if _, err := client.UploadContent(t.Context(), content, 36, uploadRequest); err != nil || most != 4 {
		t.Errorf("got %v with %d parts at a time", err, most)
	}
}

func TestPartIsRepeatedWhenTheStorageFails(t *testing.T) {
	cloud := newStorage(t, answers(503, "<Code>SlowDown</Code>"), broken(5, ""), answers(429, ""), putDone)
	client, fake := serve(t, []any{uploadOf(cloud, "t", 3), uploadedObject})
	if _, err := client.Upload(t.Context(), document(t, "abc"), uploadRequest); err != nil || len(fake.aborted()) != 0 {
		t.Errorf("got %v, aborted %v", err, fake.aborted())
	}
}

func TestUploadThatFailsIsAbortedAndItsErrorHasNoAddress(t *testing.T) {
	for name, cloud := range map[string]*storage{
		"refused": newStorage(t, answers(400, "<Error><Code>BadDigest</Code><Message>secret</Message></Error>")),
		"away":    newStorage(t, broken(5, "")),
	} {
		client, fake := serve(t, []any{uploadOf(cloud, "t", 3), uploadedObject})
		_, err := client.Upload(t.Context(), document(t, "abc"), uploadRequest)
		if err == nil || strings.Contains(err.Error(), "secret") || !slices.Equal(fake.aborted(), []string{"t"}) {
			t.Errorf("%s: got %v, aborted %v", name, err, fake.aborted())
		}
		var failed *Error
		if wants := map[string]Kind{"refused": FailedPrecondition, "away": Unavailable}[name]; !errors.As(err, &failed) || failed.Kind != wants {
			t.Errorf("%s: got %+v", name, failed)
		}
	}
}

func TestUploadWhoseAddressesHaveExpiredIsBegunAgainOnce(t *testing.T) {
	cloud := newStorage(t, answers(403, "<Code>AccessDenied</Code>"), putDone)
	client, fake := serve(t, []any{uploadOf(cloud, "first", 3), uploadOf(cloud, "second", 3), uploadedObject})
	if _, err := client.Upload(t.Context(), document(t, "abc"), uploadRequest); err != nil || !slices.Equal(fake.aborted(), []string{"first"}) {
		t.Errorf("got %v, aborted %v", err, fake.aborted())
	}
	cloud = newStorage(t, answers(403, ""))
	client, fake = serve(t, []any{uploadOf(cloud, "first", 3), uploadOf(cloud, "second", 3)})
	_, err := client.Upload(t.Context(), document(t, "abc"), uploadRequest)
	if !errors.Is(err, PermissionDenied) || !slices.Equal(fake.aborted(), []string{"first", "second"}) {
		t.Errorf("got %v, aborted %v", err, fake.aborted())
	}
}

func TestUploadThatIsThereAlreadyIsCompletedWithItsMD5AsTheETag(t *testing.T) {
	conflict := answers(409, "<Code>FileAlreadyExists</Code>")
	sum := md5.Sum([]byte("abc"))
	for name, cloud := range map[string]*storage{
		"after a lost reply": newStorage(t, broken(5, ""), conflict), "at the first attempt": newStorage(t, conflict),
	} {
		client, fake := serve(t, []any{uploadOf(cloud, "t", 3), uploadedObject})
		if _, err := client.Upload(t.Context(), document(t, "abc"), uploadRequest); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		completed := fake.requests[1].(*docpreviewv1.CompleteUploadRequest)
		if want := fmt.Sprintf(`"%x"`, sum); !slices.Equal(completed.GetEtags(), []string{want}) {
			t.Errorf("%s: completed with %v, not with %s", name, completed.GetEtags(), want)
		}
	}
}

func TestObjectOfAnotherUploadIsTheGatewaysError(t *testing.T) {
	cloud := newStorage(t, answers(409, "<Code>FileAlreadyExists</Code>"))
	client, fake := serve(t, []any{uploadOf(cloud, "t", 3), failure(codes.FailedPrecondition, "UPLOAD_INCOMPLETE", 0)})
	_, err := client.Upload(t.Context(), document(t, "abc"), uploadRequest)
	var failed *Error
	if !errors.As(err, &failed) || failed.Kind != FailedPrecondition || failed.Reason != "UPLOAD_INCOMPLETE" {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(fake.aborted(), []string{"t"}) {
		t.Errorf("aborted %v", fake.aborted())
	}
}

func TestConflictOfOnePartOfSeveralIsAnError(t *testing.T) {
	cloud := newStorage(t, answers(409, "<Code>FileAlreadyExists</Code>"))
	client, _ := serve(t, []any{uploadOf(cloud, "t", 6), uploadedObject})
	var failed *Error
	if _, err := client.Upload(t.Context(), document(t, "abcdef"), uploadRequest); !errors.As(err, &failed) || failed.Kind != FailedPrecondition || failed.Reason != "" {
		t.Errorf("got %v", err)
	}
}

func TestUploadThatThePolicyRefusesIsTheGatewaysError(t *testing.T) {
	client, fake := serve(t, []any{failure(codes.PermissionDenied, "NOT_PERMITTED", 0)})
	_, err := client.Upload(t.Context(), document(t, "abc"), uploadRequest)
	if !errors.Is(err, PermissionDenied) || fake.called() != 1 {
		t.Errorf("got %v after %d calls", err, fake.called())
	}
}

func page(cloud *storage, number int32) *docpreviewv1.Page {
	return &docpreviewv1.Page{
		PageNumber: number, ContentType: "image/jpeg", Object: fmt.Sprintf("../../%d.jpg", number),
		Url: fmt.Sprintf("%s/%d?sign=secret", cloud.URL, number),
	}
}

func jobWith(id string, pages ...*docpreviewv1.Page) *docpreviewv1.PreviewJob {
	return &docpreviewv1.PreviewJob{
		Bucket: bucket, JobId: id, State: docpreviewv1.PreviewJob_STATE_SUCCESS, Result: &docpreviewv1.PreviewResult{Pages: pages},
	}
}

// files are the contents of a directory, without the manifest.
func files(t *testing.T, directory string) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(directory, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if entry.Name() != manifestName {
			found[entry.Name()] = string(content)
		}
	}
	return found
}

func wantFiles(t *testing.T, directory string, want map[string]string) {
	t.Helper()
	if got := files(t, directory); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func pageByPath(to http.ResponseWriter, request *http.Request) {
	_, _ = io.WriteString(to, "page "+request.URL.Path[1:])
}

func TestDownloadWritesThePagesInOrderAndTellsHowFarItIs(t *testing.T) {
	cloud := newStorage(t, pageByPath)
	client, _ := serve(t, []any{running})
	directory := filepath.Join(t.TempDir(), "new", "pages")
	var seen []Progress
	got, err := client.Download(t.Context(), jobWith("d1", page(cloud, 1), page(cloud, 2), page(cloud, 10)), directory,
		WithProgress(func(now Progress) { seen = append(seen, now) }), WithParallel(2))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(directory, "page-0001.jpg"), filepath.Join(directory, "page-0002.jpg"), filepath.Join(directory, "page-0010.jpg")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	wantFiles(t, directory, map[string]string{"page-0001.jpg": "page 1", "page-0002.jpg": "page 2", "page-0010.jpg": "page 10"})
	if len(seen) != 4 || seen[0] != (Progress{0, 3, 0}) || seen[3] != (Progress{3, 3, 19}) {
		t.Errorf("told %v", seen)
	}
	var told manifest
	content, _ := os.ReadFile(filepath.Join(directory, manifestName))
	if err := json.Unmarshal(content, &told); err != nil || told.JobID != "d1" ||
		!maps.Equal(told.Pages, map[string]int64{"page-0001.jpg": 6, "page-0002.jpg": 6, "page-0010.jpg": 7}) {
		t.Errorf("the manifest is %s", content)
	}
}

func TestDownloadAsksForAddressesThatAreMissing(t *testing.T) {
	cloud := newStorage(t, pageByPath)
	client, fake := serve(t, []any{jobWith("d1", page(cloud, 1))})
	directory := t.TempDir()
	if _, err := client.Download(t.Context(), jobWith("d1"), directory, WithPageURLTTL(time.Minute)); err != nil {
		t.Fatal(err)
	}
	asked := fake.requests[0].(*docpreviewv1.GetPreviewJobRequest)
	if asked.GetJobId() != "d1" || asked.GetBucket() != bucket || asked.GetPageUrlTtl().AsDuration() != time.Minute {
		t.Errorf("asked %v", asked)
	}
	wantFiles(t, directory, map[string]string{"page-0001.jpg": "page 1"})
}

func TestDownloadAsksForFreshAddressesWhenTheyHaveExpired(t *testing.T) {
	refused := answers(403, "<Code>AccessDenied</Code>")
	cloud := newStorage(t, refused, refused, refused, pageByPath)
	job := jobWith("d1", page(cloud, 1), page(cloud, 2), page(cloud, 3), page(cloud, 4))
	client, fake := serve(t, []any{job})
	if got, err := client.Download(t.Context(), job, t.TempDir()); err != nil || len(got) != 4 || fake.called() == 0 {
		t.Errorf("got %v, %v after %d calls", got, err, fake.called())
	}
	cloud = newStorage(t, refused)
	job = jobWith("d1", page(cloud, 1))
	client, fake = serve(t, []any{job})
	_, err := client.Download(t.Context(), job, t.TempDir())
	if !errors.Is(err, PermissionDenied) || strings.Contains(err.Error(), "secret") || fake.called() != refusalsOfAPage {
		t.Errorf("got %v after %d calls", err, fake.called())
	}
}

func TestDownloadGoesOnWhereItStopped(t *testing.T) {
	cloud := newStorage(t, broken(10, "0123"), answers(206, "456789", "Content-Range", "bytes 4-9/10"))
	client, _ := serve(t, []any{running})
	directory := t.TempDir()
	if _, err := client.Download(t.Context(), jobWith("d1", page(cloud, 1)), directory); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, directory, map[string]string{"page-0001.jpg": "0123456789"})
	if got := cloud.requests[1].Header.Get("Range"); got != "bytes=4-" {
		t.Errorf("asked for %q", got)
	}
}

func TestDownloadBeginsAPageAnewWhenTheStorageDoesNotGoOn(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"another range": answers(206, "xxx", "Content-Range", "bytes 7-9/10"), "no such range": answers(416, ""), "the whole": answers(200, "abc"),
	} {
		cloud := newStorage(t, broken(10, "0123"), answer, answers(200, "abc"))
		client, _ := serve(t, []any{running})
		directory := t.TempDir()
		if _, err := client.Download(t.Context(), jobWith("d1", page(cloud, 1)), directory); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantFiles(t, directory, map[string]string{"page-0001.jpg": "abc"})
	}
}

func TestPageThatStaysTooShortIsAnError(t *testing.T) {
	cloud := newStorage(t, answers(206, "4", "Content-Range", "bytes 0-9/10"))
	client, _ := serve(t, []any{running})
	directory := t.TempDir()
	_, err := client.Download(t.Context(), jobWith("d1", page(cloud, 1)), directory)
	if !errors.Is(err, Unavailable) || files(t, directory)["page-0001.jpg"] != "" {
		t.Errorf("got %v", err)
	}
}

func TestStorageThatSaysNothingIsGivenUp(t *testing.T) {
	stop := make(chan struct{})
	cloud := newStorage(t, func(_ http.ResponseWriter, request *http.Request) {
		select {
		case <-stop:
		case <-request.Context().Done():
		}
	}, pageByPath)
	defer close(stop)
	client, _ := serve(t, []any{running}, WithPatience(200*time.Millisecond, time.Minute))
	if _, err := client.Download(t.Context(), jobWith("d1", page(cloud, 1)), t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestBodyThatGivesNothingMoreIsRepeatedFromWhereItStopped(t *testing.T) {
	stop := make(chan struct{})
	cloud := newStorage(t, func(to http.ResponseWriter, request *http.Request) {
		to.Header().Set("Content-Length", "6")
		_, _ = io.WriteString(to, "abc")
		to.(http.Flusher).Flush()
		select {
		case <-stop:
		case <-request.Context().Done():
		}
	}, answers(206, "def", "Content-Range", "bytes 3-5/6"))
	defer close(stop)
	client, _ := serve(t, []any{running}, WithPatience(200*time.Millisecond, time.Minute))
	directory := t.TempDir()
	if _, err := client.Download(t.Context(), jobWith("d1", page(cloud, 1)), directory); err != nil {
		t.Error(err)
	}
	wantFiles(t, directory, map[string]string{"page-0001.jpg": "abcdef"})
}

func TestBodyWithoutEndIsNoPageAndItsPartIsDeleted(t *testing.T) {
	cloud := newStorage(t, endless(200))
	client, _ := serve(t, []any{running}, func(o *options) { o.longestPage = 100 })
	directory := t.TempDir()
	_, err := client.Download(t.Context(), jobWith("d1", page(cloud, 1)), directory)
	if !errors.Is(err, Unavailable) || !strings.Contains(err.Error(), "proxy") {
		t.Errorf("got %v", err)
	}
	if len(cloud.requests) != 1+transferRepeats {
		t.Errorf("%d requests", len(cloud.requests))
	}
	if _, err := os.Stat(filepath.Join(directory, "page-0001.jpg.part")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the part is still there: %v", err)
	}
}

func TestBodyThatIsLongerThanToldIsNoPageAndThePageIsBegunAnew(t *testing.T) {
	cloud := newStorage(t, broken(6, "abc"), endless(206, "Content-Range", "bytes 3-5/6"), answers(200, "abcdef"))
	client, _ := serve(t, []any{running})
	directory := t.TempDir()
	if _, err := client.Download(t.Context(), jobWith("d1", page(cloud, 1)), directory); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, directory, map[string]string{"page-0001.jpg": "abcdef"})
	if len(cloud.requests) != 3 || cloud.requests[2].Header.Get("Range") != "" {
		t.Errorf("%d requests, the last of %q", len(cloud.requests), cloud.requests[len(cloud.requests)-1].Header.Get("Range"))
	}
}

// endless sends more bytes than any client takes, and tells no length.
func endless(status int, headers ...string) http.HandlerFunc {
	return func(to http.ResponseWriter, request *http.Request) {
		answers(status, "", headers...)(to, request)
		for range 1000 {
			if _, err := to.Write(make([]byte, 1000)); err != nil {
				return
			}
			to.(http.Flusher).Flush()
		}
	}
}

func TestSecondDownloadFetchesOnlyWhatIsNotThere(t *testing.T) {
	cloud := newStorage(t, pageByPath)
	client, _ := serve(t, []any{running})
	directory, job := t.TempDir(), jobWith("d1", page(cloud, 1), page(cloud, 2), page(cloud, 3))
	for range 2 {
		if _, err := client.Download(t.Context(), job, directory); err != nil {
			t.Fatal(err)
		}
	}
	if len(cloud.requests) != 3 {
		t.Errorf("%d requests", len(cloud.requests))
	}
	if err := os.WriteFile(filepath.Join(directory, "page-0002.jpg"), []byte("cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Download(t.Context(), job, directory); err != nil || len(cloud.requests) != 4 {
		t.Errorf("%v, %d requests", err, len(cloud.requests))
	}
	wantFiles(t, directory, map[string]string{"page-0001.jpg": "page 1", "page-0002.jpg": "page 2", "page-0003.jpg": "page 3"})
}

func TestDownloadLeavesNoPagesOfAnotherJobAndTouchesNoOtherFiles(t *testing.T) {
	cloud := newStorage(t, pageByPath)
	client, _ := serve(t, []any{running})
	directory := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("../outside.jpg", "mine")
	write("notes.txt", "mine")
	write("page-0007.jpg", "old")
	write("page-0001.jpg.part", "old")
	write("page-0008.jpg.part", "old")
	write(manifestName, `{"job_id": "d0", "pages": {"page-0007.jpg": 3, "page-0008.jpg": 0, "notes.txt": 4, "../outside.jpg": 4}}`)
	if _, err := client.Download(t.Context(), jobWith("d1", page(cloud, 1)), directory); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, directory, map[string]string{"notes.txt": "mine", "page-0001.jpg": "page 1"})
	if content, _ := os.ReadFile(filepath.Join(directory, "..", "outside.jpg")); string(content) != "mine" {
		t.Error("a file outside of the directory was touched")
	}
}

func TestNamesOfPages(t *testing.T) {
	sheet := func(number, picture int32) *docpreviewv1.Page {
		return &docpreviewv1.Page{PageNumber: number, PictureNumber: picture, Object: "x/../../etc/passwd.PNG"}
	}
	pdf := docpreviewv1.PreviewOptions_TARGET_FORMAT_PDF
	for _, each := range []struct {
		result *docpreviewv1.PreviewResult
		want   []string
	}{
		{&docpreviewv1.PreviewResult{Pages: []*docpreviewv1.Page{{PageNumber: 3}, {PageNumber: 12345, ContentType: "image/png"}}},
			[]string{"page-0003.jpg", "page-12345.png"}},
		{&docpreviewv1.PreviewResult{Pages: []*docpreviewv1.Page{{PageNumber: 1}, {PageNumber: 1}}}, []string{"page-0001.jpg", "page-0002.jpg"}},
		{&docpreviewv1.PreviewResult{TotalSheetCount: 2, Pages: []*docpreviewv1.Page{sheet(1, 1), sheet(1, 2), sheet(2, 1)}},
			[]string{"sheet-01-page-001.png", "sheet-01-page-002.png", "sheet-02-page-001.png"}},
		{&docpreviewv1.PreviewResult{TotalSheetCount: 2, Pages: []*docpreviewv1.Page{sheet(1, 0), sheet(2, 4), sheet(1, 0), sheet(2, 4)}},
			[]string{"sheet-01-page-001.png", "sheet-02-page-001.png", "sheet-01-page-002.png", "sheet-02-page-002.png"}},
		{&docpreviewv1.PreviewResult{TargetFormat: pdf, Pages: []*docpreviewv1.Page{{PageNumber: 1, Object: "a.b/c d"}}}, []string{"document.pdf"}},
	} {
		if got := fileNames(each.result); !slices.Equal(got, each.want) {
			t.Errorf("got %v, want %v", got, each.want)
		}
	}
}

func TestDownloadOfAJobThatHasNotSucceededSaysWhy(t *testing.T) {
	client, _ := serve(t, []any{running})
	for state, text := range map[docpreviewv1.PreviewJob_State]string{
		docpreviewv1.PreviewJob_STATE_RUNNING: "job d1 is RUNNING and has no pages",
		docpreviewv1.PreviewJob_STATE_FAILED:  "job d1 is FAILED: ENCRYPTED: needs a password (Encrypted)",
	} {
		job := &docpreviewv1.PreviewJob{JobId: "d1", State: state}
		if state == docpreviewv1.PreviewJob_STATE_FAILED {
			job.Failure = &docpreviewv1.JobFailure{Code: "Encrypted", Message: "needs a password", Reason: docpreviewv1.JobFailure_REASON_ENCRYPTED}
		}
		_, err := client.Download(t.Context(), job, t.TempDir())
		var unsuccessful *JobError
		if !errors.As(err, &unsuccessful) || unsuccessful.Job != job || err.Error() != "docpreview: "+text {
			t.Errorf("got %v", err)
		}
	}
}

func TestPreviewGoesFromAFileToPages(t *testing.T) {
	cloud := newStorage(t, putDone, pageByPath)
	ended := jobWith("d1", page(cloud, 1))
	client, fake := serve(t, []any{uploadOf(cloud, "t", 3), uploadedObject, running, says(ended)})
	directory := filepath.Join(t.TempDir(), "pages")
	job, got, err := client.Preview(t.Context(), document(t, "abc"), directory, request)
	if err != nil || job.GetState() != done || !slices.Equal(got, []string{filepath.Join(directory, "page-0001.jpg")}) {
		t.Fatalf("got %v, %v, %v", job, got, err)
	}
	wantFiles(t, directory, map[string]string{"page-0001.jpg": "page 1"})
	created := fake.requests[2].(*docpreviewv1.CreatePreviewJobRequest)
	if created.GetInputObject() != "in/1.pdf" || created.GetOutput().GetObject() != "out/${RequestToken}/page-${Number}.jpg" {
		t.Errorf("created %v", created)
	}
	if uploaded := fake.requests[0].(*docpreviewv1.CreateUploadRequest); uploaded.GetObject() != request.GetInputObject() {
		t.Errorf("uploaded to %s", uploaded.GetObject())
	}
}

func TestPreviewSendsNothingWhenThePagesOrTheFileCannotBe(t *testing.T) {
	client, fake := serve(t, []any{running})
	occupied := document(t, "a file")
	for path, directory := range map[string]string{
		document(t, "abc"):                  filepath.Join(occupied, "pages"),
		filepath.Join(t.TempDir(), "a.pdf"): t.TempDir(),
		t.TempDir():                         t.TempDir(),
		document(t, ""):                     t.TempDir(),
	} {
		if _, _, err := client.Preview(t.Context(), path, directory, request); err == nil || fake.called() != 0 {
			t.Errorf("got %v after %d calls", err, fake.called())
		}
	}
}

func TestEmptyFileIsAnInvalidRequest(t *testing.T) {
	client, fake := serve(t, []any{running})
	path := document(t, "")
	_, err := client.Upload(t.Context(), path, uploadRequest)
	if !errors.Is(err, InvalidRequest) || !strings.Contains(err.Error(), path+" is empty") || fake.called() != 0 {
		t.Errorf("got %v after %d calls", err, fake.called())
	}
}

func TestFileThatChangesWhileItIsUploadedIsAborted(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"another size": func(path string) error {
			was, err := os.Stat(path)
			return errors.Join(err, os.WriteFile(path, []byte("abcd"), 0o600), os.Chtimes(path, time.Time{}, was.ModTime()))
		},
		"another time": func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1, 0)) },
	} {
		for status, told := range map[int]string{200: "taken", 400: "refused, since its MD5 is another"} {
			path := document(t, "abc")
			cloud := newStorage(t, func(to http.ResponseWriter, request *http.Request) {
				if err := change(path); err != nil {
					t.Error(err)
				}
				answers(status, "<Code>BadDigest</Code>", "ETag", `"e"`)(to, request)
			})
			client, fake := serve(t, []any{uploadOf(cloud, "t", 3), uploadedObject})
			_, err := client.Upload(t.Context(), path, uploadRequest)
			if err == nil || !strings.Contains(err.Error(), path+" changed while it was uploaded") {
				t.Errorf("%s, %s: got %v", name, told, err)
			}
			if fake.called() != 1 || !slices.Equal(fake.aborted(), []string{"t"}) {
				t.Errorf("%s, %s: %d calls, aborted %v", name, told, fake.called(), fake.aborted())
			}
		}
	}
}

func TestReplyThatIsNoPageIsRefused(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"another type": answers(200, "<html>log in</html>", "Content-Type", "text/html"), "empty": answers(200, ""),
		"a redirect": answers(302, "", "Location", "https://login.example/"), "without content": answers(204, ""),
		"another type of a range": answers(206, "6789", "Content-Type", "text/html", "Content-Range", "bytes 0-3/4"),
	} {
		cloud := newStorage(t, answer)
		client, _ := serve(t, []any{running})
		directory := t.TempDir()
		_, err := client.Download(t.Context(), jobWith("d1", page(cloud, 1)), directory)
		if !errors.Is(err, Unavailable) || !strings.Contains(err.Error(), "proxy") || files(t, directory)["page-0001.jpg"] != "" {
			t.Errorf("%s: got %v and %v", name, err, files(t, directory))
		}
		if len(cloud.requests) != 1+transferRepeats {
			t.Errorf("%s: %d requests", name, len(cloud.requests))
		}
	}
}

func TestContentTypeIsComparedWithoutCaseAndParametersAndOnlyWhereBothAreKnown(t *testing.T) {
	for _, types := range [][2]string{{"image/jpeg", "Image/JPEG; q=1"}, {"", "text/html"}, {"image/jpeg", ""}} {
		cloud := newStorage(t, func(to http.ResponseWriter, request *http.Request) {
			to.Header()["Content-Type"] = nil // none, not a guess of net/http
			if types[1] != "" {
				to.Header().Set("Content-Type", types[1])
			}
			pageByPath(to, request)
		})
		client, _ := serve(t, []any{running})
		first := page(cloud, 1)
		first.ContentType = types[0]
		if _, err := client.Download(t.Context(), jobWith("d1", first), t.TempDir()); err != nil {
			t.Errorf("%v: %v", types, err)
		}
	}
}

var withoutInput = &docpreviewv1.CreatePreviewJobRequest{Bucket: bucket}

// alreadyThere is the gateway's refusal of an upload to the key of an object.
func alreadyThere(t *testing.T) error {
	t.Helper()
	info := &errdetails.ErrorInfo{Domain: errorDomain, Reason: "OBJECT_EXISTS"}
	refused, err := status.New(codes.AlreadyExists, "an object is in the way").WithDetails(info)
	if err != nil {
		t.Fatal(err)
	}
	return refused.Err()
}

func TestPreviewThatFailsAfterItsCreateIsUnfinishedAndNotToBeRepeated(t *testing.T) {
	away := stream(func(grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobResponse]) error {
		return status.Error(codes.Unavailable, "away")
	})
	for name, each := range map[string]struct {
		watch func(ended ...*docpreviewv1.PreviewJob) stream
		state docpreviewv1.PreviewJob_State
	}{
		"the watch":    {func(...*docpreviewv1.PreviewJob) stream { return away }, docpreviewv1.PreviewJob_STATE_RUNNING},
		"the download": {says, docpreviewv1.PreviewJob_STATE_SUCCESS},
	} {
		cloud := newStorage(t, putDone, answers(503, ""))
		watch := each.watch(jobWith("d1", page(cloud, 1)))
		client, _ := serve(t, []any{uploadOf(cloud, "t", 3), uploadedObject, running, watch}, WithPatience(time.Minute, time.Millisecond))
		job, _, err := client.Preview(t.Context(), document(t, "abc"), t.TempDir(), withoutInput)
		var unfinished *UnfinishedError
		var failed *Error
		if !errors.As(err, &unfinished) || errors.As(err, &failed) || errors.Is(err, Unavailable) || status.Code(err) != codes.Unknown {
			t.Fatalf("%s: got %v", name, err)
		}
		if unfinished.Temporary() || unfinished.Retry() != RetryNever || !errors.Is(unfinished.Cause, Unavailable) {
			t.Errorf("%s: got %+v", name, unfinished)
		}
		if unfinished.Job != job || job.GetState() != each.state {
			t.Errorf("%s: the job is %v", name, job)
		}
		said := "job d1 was made and its pages are not all here: " + unfinished.Cause.Error() + "; go on with download: Client.Wait, then Client.Download"
		if !strings.HasSuffix(err.Error(), said) {
			t.Errorf("%s: said %s", name, err)
		}
	}
}

func TestPreviewWhosePagesCannotBeWrittenIsUnfinished(t *testing.T) {
	directory := t.TempDir()
	cloud := newStorage(t, putDone, pageByPath)
	blocked := says(jobWith("d1", page(cloud, 1)))
	client, _ := serve(t, []any{uploadOf(cloud, "t", 3), uploadedObject, running, blocked})
	if err := os.MkdirAll(filepath.Join(directory, "page-0001.jpg", "not empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, _, err := client.Preview(t.Context(), document(t, "abc"), directory, withoutInput)
	var unfinished *UnfinishedError
	var local *os.LinkError
	if !errors.As(err, &unfinished) || !errors.As(unfinished.Cause, &local) {
		t.Errorf("got %v", err)
	}
}

func TestPreviewThatIsCancelledAfterItsCreateHasTheJobAndIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	watching := stream(func(to grpc.ServerStreamingServer[docpreviewv1.WatchPreviewJobResponse]) error {
		cancel()
		<-to.Context().Done()
		return nil
	})
	client, _ := serve(t, []any{uploadOf(newStorage(t, putDone), "t", 3), uploadedObject, running, watching})
	_, _, err := client.Preview(ctx, document(t, "abc"), t.TempDir(), withoutInput)
	var unfinished *UnfinishedError
	if !errors.As(err, &unfinished) || !errors.Is(err, context.Canceled) || unfinished.Job.GetJobId() != "d1" {
		t.Errorf("got %v", err)
	}
}

func TestPreviewIsRepeatedWithItsRequestID(t *testing.T) {
	repeated := proto.CloneOf(withoutInput)
	repeated.RequestId = NewRequestID()
	key := "in/" + repeated.RequestId + ".pdf"
	ended := func(cloud *storage) any { return says(jobWith("d1", page(cloud, 1))) }
	for name, uploading := range map[string]func(*storage) []any{
		"first": func(cloud *storage) []any {
			return []any{uploadOf(cloud, "t", 3), &docpreviewv1.UploadedObject{Object: key}, running, ended(cloud)}
		},
		"there at CreateUpload": func(cloud *storage) []any { return []any{alreadyThere(t), running, ended(cloud)} },
		"there at CompleteUpload": func(cloud *storage) []any {
			return []any{uploadOf(cloud, "t", 3), alreadyThere(t), running, ended(cloud)}
		},
	} {
		cloud := newStorage(t, func(to http.ResponseWriter, request *http.Request) {
			if request.Method == http.MethodPut {
				putDone(to, request)
				return
			}
			pageByPath(to, request)
		})
		client, fake := serve(t, uploading(cloud))
		if _, got, err := client.Preview(t.Context(), document(t, "abc"), t.TempDir(), repeated); err != nil || len(got) != 1 {
			t.Fatalf("%s: got %v, %v", name, got, err)
		}
		if asked := fake.requests[0].(*docpreviewv1.CreateUploadRequest); asked.GetObject() != key {
			t.Errorf("%s: uploaded to %s", name, asked.GetObject())
		}
		if created := fake.created(); created.GetInputObject() != key || created.GetRequestId() != repeated.RequestId {
			t.Errorf("%s: created %v", name, created)
		}
	}
}

func TestPreviewMakesARequestIDForItsInputUnlessCreatesAreNotRepeated(t *testing.T) {
	refused := failure(codes.PermissionDenied, "NOT_PERMITTED", 0)
	for _, once := range []bool{false, true} {
		var options []Option
		if once {
			options = append(options, WithoutRepeatedCreates())
		}
		client, fake := serve(t, []any{uploadOf(newStorage(t, putDone), "t", 3), uploadedObject, refused}, options...)
		if _, _, err := client.Preview(t.Context(), document(t, "abc"), t.TempDir(), withoutInput); !errors.Is(err, PermissionDenied) {
			t.Fatalf("got %v", err)
		}
		want, id := "in/${UploadId}.pdf", fake.created().GetRequestId()
		if !once {
			want = "in/" + id + ".pdf"
		}
		if asked := fake.requests[0].(*docpreviewv1.CreateUploadRequest); asked.GetObject() != want || once != (id == "") {
			t.Errorf("uploaded to %s, created with %q", asked.GetObject(), id)
		}
	}
}

func TestPreviewWithAnObjectOfTheUsersOwnTakesNoOtherThatIsThere(t *testing.T) {
	info := &errdetails.ErrorInfo{Domain: errorDomain, Reason: "UPLOAD_INCOMPLETE"}
	incomplete, err := status.New(codes.FailedPrecondition, "an object of this key exists already").WithDetails(info)
	if err != nil {
		t.Fatal(err)
	}
	for name, each := range map[string]struct {
		request *docpreviewv1.CreatePreviewJobRequest
		refusal error
		kind    Kind
	}{
		"an object of the user's own": {idempotent, alreadyThere(t), InvalidRequest},
		"another refusal":             {withoutInput, incomplete.Err(), FailedPrecondition},
	} {
		client, fake := serve(t, []any{each.refusal, running})
		_, _, err := client.Preview(t.Context(), document(t, "abc"), t.TempDir(), each.request)
		if !errors.Is(err, each.kind) || fake.created() != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestPreviewOfAJobThatFailsLeavesNoPagesOfAnother(t *testing.T) {
	directory := t.TempDir()
	for name, content := range map[string]string{
		"page-0001.jpg": "old", "page-0002.jpg.part": "old", "notes.txt": "mine",
		manifestName: `{"job_id": "d0", "pages": {"page-0001.jpg": 3, "page-0002.jpg": 0, "notes.txt": 4}}`,
	} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	failed := &docpreviewv1.PreviewJob{JobId: "d1", State: docpreviewv1.PreviewJob_STATE_FAILED, Failure: &docpreviewv1.JobFailure{}}
	refused := failure(codes.PermissionDenied, "NOT_PERMITTED", 0)
	cloud := newStorage(t, putDone)
	client, _ := serve(t, []any{
		uploadOf(cloud, "t", 3), uploadedObject, refused, uploadOf(cloud, "t", 3), uploadedObject, running, says(failed),
	})
	if _, _, err := client.Preview(t.Context(), document(t, "abc"), directory, withoutInput); !errors.Is(err, PermissionDenied) {
		t.Fatalf("got %v", err)
	}
	if len(files(t, directory)) != 3 {
		t.Error("pages were deleted although there is no new job")
	}
	var unsuccessful *JobError
	if _, _, err := client.Preview(t.Context(), document(t, "abc"), directory, withoutInput); !errors.As(err, &unsuccessful) {
		t.Fatalf("got %v", err)
	}
	wantFiles(t, directory, map[string]string{"notes.txt": "mine"})
}

func TestPreviewThatIsRepeatedKeepsThePagesOfItsJob(t *testing.T) {
	cloud := newStorage(t, pageByPath)
	ended := jobWith("d1", page(cloud, 1), page(cloud, 2))
	client, _ := serve(t, []any{alreadyThere(t), running, says(ended), alreadyThere(t), running, says(ended)})
	repeated, directory, path := proto.CloneOf(withoutInput), t.TempDir(), document(t, "abc")
	repeated.RequestId = NewRequestID()
	for range 2 {
		if _, got, err := client.Preview(t.Context(), path, directory, repeated); err != nil || len(got) != 2 {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	if len(cloud.requests) != 2 {
		t.Errorf("%d requests", len(cloud.requests))
	}
}

func TestPreviewOfAJobThatFailsReturnsTheJobAndWhy(t *testing.T) {
	cloud := newStorage(t, putDone)
	failed := &docpreviewv1.PreviewJob{JobId: "d1", State: docpreviewv1.PreviewJob_STATE_FAILED, Failure: &docpreviewv1.JobFailure{}}
	client, _ := serve(t, []any{uploadOf(cloud, "t", 3), uploadedObject, running, says(failed)})
	job, _, err := client.Preview(t.Context(), document(t, "abc"), t.TempDir(), request)
	var unsuccessful *JobError
	if !errors.As(err, &unsuccessful) || job.GetState() != docpreviewv1.PreviewJob_STATE_FAILED {
		t.Errorf("got %v, %v", job, err)
	}
}

func TestDefaultOutputHasTheSheetOfSpreadsheetsAndTheSuffixOfTheTarget(t *testing.T) {
	png := &docpreviewv1.PreviewOptions{TargetFormat: docpreviewv1.PreviewOptions_TARGET_FORMAT_PNG, SourceFormat: "xlsx"}
	for want, request := range map[string]*docpreviewv1.CreatePreviewJobRequest{
		"out/${RequestToken}/page-${Number}.jpg":                  {InputObject: "in/a.pptx"},
		"out/${RequestToken}/sheet-${SheetID}/page-${Number}.jpg": {InputObject: "in/a.XLSX"},
		"out/${RequestToken}/sheet-${SheetID}/page-${Number}.png": {InputObject: "in/a", Options: png},
	} {
		if got := outputOf(request); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
