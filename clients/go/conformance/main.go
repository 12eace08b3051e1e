// Command conformance is the Go client in the conformance suite: a step in, its result out
// (tests/conformance/README.md).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	docpreview "github.com/docpreview/docpreview-gateway/clients/go"
	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
)

type step struct {
	Target    string    `json:"target"`
	Call      string    `json:"call"`
	TimeoutMS int64     `json:"timeout_ms"`
	With      arguments `json:"with"`
	Token     *string   `json:"token"`
	TLS       *struct {
		RootCertificates string `json:"root_certificates"`
		CertificateChain string `json:"certificate_chain"`
		PrivateKey       string `json:"private_key"`
	} `json:"tls"`
}

type arguments struct {
	Bucket       string   `json:"bucket"`
	InputObject  string   `json:"input_object"`
	OutputObject string   `json:"output_object"`
	RequestID    string   `json:"request_id"`
	UserData     string   `json:"user_data"`
	JobID        string   `json:"job_id"`
	JobIDs       []string `json:"job_ids"`
	Path         string   `json:"path"`
	Object       string   `json:"object"`
	ContentType  string   `json:"content_type"`
	Directory    string   `json:"directory"`
	StartPage    *int32   `json:"start_page"`
	EndPage      *int32   `json:"end_page"`
	PageSize     int32    `json:"page_size"`
	PageURLTTLMS int64    `json:"page_url_ttl_ms"`
	Watches      int      `json:"watches"`
	Waits        int      `json:"waits"`
}

// found is what a call gave.
type found struct {
	jobs      []*docpreviewv1.PreviewJob
	files     []string
	uploaded  *docpreviewv1.UploadedObject
	jobErrors [][2]string
	busy      *busyResult
}

type answer struct {
	Jobs      []job       `json:"jobs"`
	Files     []file      `json:"files,omitempty"`
	Uploaded  *uploaded   `json:"uploaded,omitempty"`
	JobErrors [][2]string `json:"job_errors,omitempty"`
	Busy      *busyResult `json:"busy,omitempty"`
	Error     *failure    `json:"error"`
}

type job struct {
	JobID         string `json:"job_id"`
	State         string `json:"state"`
	PageCount     int32  `json:"page_count"`
	PageURLs      int    `json:"page_urls"`
	FailureReason string `json:"failure_reason"`
}

// file is a pair of name and bytes.
type file [2]any

type uploaded struct {
	Object        string `json:"object"`
	ContentLength int64  `json:"content_length"`
}

type failure struct {
	Kind         string            `json:"kind"`
	Code         string            `json:"code"`
	Reason       string            `json:"reason"`
	Message      string            `json:"message"`
	Violations   [][2]string       `json:"violations"`
	Retry        string            `json:"retry"`
	Quota        [][2]string       `json:"quota"`
	RetryDelayMS *int64            `json:"retry_delay_ms"`
	Metadata     map[string]string `json:"metadata"`
	RequestID    string            `json:"request_id"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var given step
		if err := json.Unmarshal(lines.Bytes(), &given); err != nil {
			log.Fatal(err)
		}
		got, err := perform(given)
		made, err := report(got, err)
		if err != nil {
			log.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(made); err != nil {
			log.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}

func perform(given step) (found, error) {
	var options []docpreview.Option
	if given.Token != nil {
		options = append(options, docpreview.WithToken(docpreview.StaticToken(*given.Token)))
	}
	if given.TLS != nil {
		config, err := docpreview.TLSFromFiles(given.TLS.RootCertificates, given.TLS.CertificateChain, given.TLS.PrivateKey)
		if err != nil {
			return found{}, err
		}
		options = append(options, docpreview.WithTLS(config))
	}
	client, err := docpreview.New(given.Target, options...)
	if err != nil {
		return found{}, err
	}
	defer client.Close()
	return call(client, given)
}

func call(client *docpreview.Client, given step) (found, error) {
	with := given.With
	timeout := time.Duration(given.TimeoutMS) * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var ttl *durationpb.Duration
	if with.PageURLTTLMS > 0 {
		ttl = durationpb.New(time.Duration(with.PageURLTTLMS) * time.Millisecond)
	}
	switch given.Call {
	case "create":
		return one(client.Create(ctx, createRequest(with)))
	case "create_and_watch":
		return all(client.CreateAndWatch(ctx, createRequest(with), ttl.AsDuration()))
	case "get":
		return one(client.Get(ctx, &docpreviewv1.GetPreviewJobRequest{Bucket: with.Bucket, JobId: with.JobID, PageUrlTtl: ttl}))
	case "wait":
		return one(client.Wait(context.Background(), &docpreviewv1.WaitPreviewJobRequest{
			Bucket: with.Bucket, JobId: with.JobID, PageUrlTtl: ttl, Timeout: durationpb.New(timeout),
		}))
	case "watch":
		return all(client.Watch(ctx, &docpreviewv1.WatchPreviewJobRequest{Bucket: with.Bucket, JobId: with.JobID, PageUrlTtl: ttl}))
	case "watch_many":
		return many(client.WatchMany(ctx, &docpreviewv1.WatchPreviewJobsRequest{Bucket: with.Bucket, JobIds: with.JobIDs, PageUrlTtl: ttl}))
	case "list":
		return all(client.List(ctx, &docpreviewv1.ListPreviewJobsRequest{Bucket: with.Bucket, PageSize: with.PageSize}))
	case "upload":
		object, err := client.Upload(ctx, with.Path, &docpreviewv1.CreateUploadRequest{
			Bucket: with.Bucket, Object: with.Object, ContentType: with.ContentType,
		})
		return found{uploaded: object}, err
	case "preview":
		return preview(ctx, client, with)
	case "download":
		return download(ctx, client, with, ttl)
	case "busy":
		result, err := busy(ctx, client, with)
		return found{busy: result}, err
	}
	return found{}, fmt.Errorf("%s is not a call of the table", given.Call)
}

func preview(ctx context.Context, client *docpreview.Client, with arguments) (found, error) {
	request := createRequest(with)
	request.InputObject = with.Object
	made, files, err := client.Preview(ctx, with.Path, with.Directory, request)
	var unsuccessful *docpreview.JobError
	if errors.As(err, &unsuccessful) { // in the table no error: the job says it
		err = nil
	}
	got := found{files: files}
	if made != nil {
		got.jobs = append(got.jobs, made)
	}
	return got, err
}

func download(ctx context.Context, client *docpreview.Client, with arguments, ttl *durationpb.Duration) (found, error) {
	made, err := client.Get(ctx, &docpreviewv1.GetPreviewJobRequest{Bucket: with.Bucket, JobId: with.JobID, PageUrlTtl: ttl})
	if err != nil {
		return found{}, err
	}
	var options []docpreview.DownloadOption
	if ttl != nil {
		options = append(options, docpreview.WithPageURLTTL(ttl.AsDuration()))
	}
	files, err := client.Download(ctx, made, with.Directory, options...)
	return found{files: files}, err
}

func createRequest(with arguments) *docpreviewv1.CreatePreviewJobRequest {
	request := &docpreviewv1.CreatePreviewJobRequest{
		Bucket:      with.Bucket,
		InputObject: with.InputObject,
		Output:      &docpreviewv1.ObjectLocation{Object: with.OutputObject},
		RequestId:   with.RequestID,
		UserData:    with.UserData,
	}
	if with.StartPage != nil || with.EndPage != nil {
		request.Options = &docpreviewv1.PreviewOptions{StartPage: with.StartPage, EndPage: with.EndPage}
	}
	return request
}

func one(job *docpreviewv1.PreviewJob, err error) (found, error) {
	if err != nil {
		return found{}, err
	}
	return found{jobs: []*docpreviewv1.PreviewJob{job}}, nil
}

func all(coming iter.Seq2[*docpreviewv1.PreviewJob, error]) (got found, err error) {
	for job, err := range coming {
		if err != nil {
			return got, err
		}
		got.jobs = append(got.jobs, job)
	}
	return got, nil
}

func many(coming iter.Seq2[*docpreviewv1.WatchPreviewJobsResponse, error]) (got found, err error) {
	for event, err := range coming {
		if err != nil {
			return got, err
		}
		if failed := event.GetError(); failed != nil {
			reason := strings.TrimPrefix(failed.GetReason().String(), "ERROR_REASON_")
			got.jobErrors = append(got.jobErrors, [2]string{failed.GetJobId(), reason})
		} else {
			got.jobs = append(got.jobs, event.GetJob())
		}
	}
	return got, nil
}

func report(got found, err error) (answer, error) {
	made := answer{Jobs: []job{}, JobErrors: got.jobErrors, Busy: got.busy}
	for _, each := range got.jobs {
		urls := 0
		for _, page := range each.GetResult().GetPages() {
			if page.GetUrl() != "" {
				urls++
			}
		}
		told := job{
			JobID:     each.GetJobId(),
			State:     strings.TrimPrefix(each.GetState().String(), "STATE_"),
			PageCount: each.GetResult().GetTotalPageCount(),
			PageURLs:  urls,
		}
		if each.GetFailure() != nil {
			told.FailureReason = strings.TrimPrefix(each.GetFailure().GetReason().String(), "REASON_")
		}
		made.Jobs = append(made.Jobs, told)
	}
	for _, path := range got.files {
		info, err := os.Stat(path)
		if err != nil {
			return made, err
		}
		made.Files = append(made.Files, file{filepath.Base(path), info.Size()})
	}
	if got.uploaded != nil {
		made.Uploaded = &uploaded{got.uploaded.GetObject(), got.uploaded.GetContentLength()}
	}
	var unfinished *docpreview.UnfinishedError
	if errors.As(err, &unfinished) { // in the table its cause, which is not to be repeated
		err = unfinished.Cause
	}
	var failed *docpreview.Error
	if errors.As(err, &failed) {
		made.Error = reported(failed)
		if unfinished != nil {
			made.Error.Retry, made.Error.Message = string(unfinished.Retry()), unfinished.Error()
		}
		return made, nil
	}
	return made, err
}

func reported(failed *docpreview.Error) *failure {
	told := &failure{
		Kind: string(failed.Kind), Code: codeName(failed.Code), Reason: failed.Reason, Message: failed.Message,
		Violations: [][2]string{}, Retry: string(failed.Retry), Quota: [][2]string{},
		Metadata: map[string]string{}, RequestID: failed.RequestID,
	}
	if errors.Is(failed, docpreview.Throttled) { // BudgetExhausted is one
		told.Kind = string(docpreview.Throttled)
	}
	for _, violation := range failed.Violations {
		told.Violations = append(told.Violations, [2]string{violation.Field, violation.Description})
	}
	for _, violation := range failed.Quota {
		told.Quota = append(told.Quota, [2]string{violation.Subject, violation.Description})
	}
	for key, value := range failed.Metadata {
		told.Metadata[key] = value
	}
	if failed.RetryDelay > 0 {
		delay := failed.RetryDelay.Milliseconds()
		told.RetryDelayMS = &delay
	}
	return told
}

// codeName is the code's name in the gRPC specification; Go has its own spelling.
func codeName(code codes.Code) string {
	names := map[codes.Code]string{
		codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT",
		codes.DeadlineExceeded: "DEADLINE_EXCEEDED", codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS",
		codes.PermissionDenied: "PERMISSION_DENIED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
		codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED", codes.OutOfRange: "OUT_OF_RANGE",
		codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL", codes.Unavailable: "UNAVAILABLE",
		codes.DataLoss: "DATA_LOSS", codes.Unauthenticated: "UNAUTHENTICATED",
	}
	return names[code]
}
