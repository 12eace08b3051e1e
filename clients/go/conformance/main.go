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
	Bucket       string `json:"bucket"`
	InputObject  string `json:"input_object"`
	OutputObject string `json:"output_object"`
	RequestID    string `json:"request_id"`
	UserData     string `json:"user_data"`
	JobID        string `json:"job_id"`
	StartPage    *int32 `json:"start_page"`
	EndPage      *int32 `json:"end_page"`
	PageSize     int32  `json:"page_size"`
	PageURLTTLMS int64  `json:"page_url_ttl_ms"`
}

type answer struct {
	Jobs  []job    `json:"jobs"`
	Error *failure `json:"error"`
}

type job struct {
	JobID     string `json:"job_id"`
	State     string `json:"state"`
	PageCount int32  `json:"page_count"`
	PageURLs  int    `json:"page_urls"`
}

type failure struct {
	Kind         string            `json:"kind"`
	Code         string            `json:"code"`
	Reason       string            `json:"reason"`
	Message      string            `json:"message"`
	Violations   [][2]string       `json:"violations"`
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
		jobs, err := perform(given)
		made, err := report(jobs, err)
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

func perform(given step) ([]*docpreviewv1.PreviewJob, error) {
	var options []docpreview.Option
	if given.Token != nil {
		options = append(options, docpreview.WithToken(docpreview.StaticToken(*given.Token)))
	}
	if given.TLS != nil {
		config, err := docpreview.TLSFromFiles(given.TLS.RootCertificates, given.TLS.CertificateChain, given.TLS.PrivateKey)
		if err != nil {
			return nil, err
		}
		options = append(options, docpreview.WithTLS(config))
	}
	client, err := docpreview.New(given.Target, options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return call(client, given)
}

func call(client *docpreview.Client, given step) ([]*docpreviewv1.PreviewJob, error) {
	with := given.With
	timeout := time.Duration(given.TimeoutMS) * time.Millisecond
	var ttl *durationpb.Duration
	if with.PageURLTTLMS > 0 {
		ttl = durationpb.New(time.Duration(with.PageURLTTLMS) * time.Millisecond)
	}
	if given.Call == "wait" {
		return one(client.Wait(context.Background(), &docpreviewv1.WaitPreviewJobRequest{
			Bucket: with.Bucket, JobId: with.JobID, PageUrlTtl: ttl, Timeout: durationpb.New(timeout),
		}))
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	switch given.Call {
	case "create":
		return one(client.Create(ctx, createRequest(with)))
	case "create_and_watch":
		return all(client.CreateAndWatch(ctx, createRequest(with), ttl.AsDuration()))
	case "get":
		return one(client.Get(ctx, &docpreviewv1.GetPreviewJobRequest{Bucket: with.Bucket, JobId: with.JobID, PageUrlTtl: ttl}))
	case "watch":
		return all(client.Watch(ctx, &docpreviewv1.WatchPreviewJobRequest{Bucket: with.Bucket, JobId: with.JobID, PageUrlTtl: ttl}))
	case "list":
		return all(client.List(ctx, &docpreviewv1.ListPreviewJobsRequest{Bucket: with.Bucket, PageSize: with.PageSize}))
	}
	return nil, fmt.Errorf("%s is not a call of the table", given.Call)
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

func one(job *docpreviewv1.PreviewJob, err error) ([]*docpreviewv1.PreviewJob, error) {
	if err != nil {
		return nil, err
	}
	return []*docpreviewv1.PreviewJob{job}, nil
}

func all(coming iter.Seq2[*docpreviewv1.PreviewJob, error]) (jobs []*docpreviewv1.PreviewJob, err error) {
	for job, err := range coming {
		if err != nil {
			return jobs, err
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}

func report(jobs []*docpreviewv1.PreviewJob, err error) (answer, error) {
	made := answer{Jobs: []job{}}
	for _, each := range jobs {
		urls := 0
		for _, page := range each.GetResult().GetPages() {
			if page.GetUrl() != "" {
				urls++
			}
		}
		made.Jobs = append(made.Jobs, job{
			JobID:     each.GetJobId(),
			State:     strings.TrimPrefix(each.GetState().String(), "STATE_"),
			PageCount: each.GetResult().GetTotalPageCount(),
			PageURLs:  urls,
		})
	}
	var failed *docpreview.Error
	if errors.As(err, &failed) {
		made.Error = reported(failed)
		return made, nil
	}
	return made, err
}

func reported(failed *docpreview.Error) *failure {
	told := &failure{
		Kind: string(failed.Kind), Code: codeName(failed.Code), Reason: failed.Reason, Message: failed.Message,
		Violations: [][2]string{}, Metadata: map[string]string{}, RequestID: failed.RequestID,
	}
	for _, violation := range failed.Violations {
		told.Violations = append(told.Violations, [2]string{violation.Field, violation.Description})
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
