// Command go is the service that a user would write instead of the gateway: GetPreviewJob and CreatePreviewJob in front of
// the vendor's Go SDK, with an LRU for the jobs that have ended. README.md says what it lacks.
//
// The upstream's port is the argument. It prints its own port and serves until its standard input ends.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/tencentyun/cos-go-sdk-v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

const (
	bucket   = "docs-1250000000"
	region   = "ap-chongqing"
	host     = "docs-1250000000.ci." + region + ".myqcloud.com"
	inFlight = 100 // connections to the cloud, as many as the gateway keeps
)

var states = map[string]pb.PreviewJob_State{
	"Submitted": pb.PreviewJob_STATE_SUBMITTED,
	"Running":   pb.PreviewJob_STATE_RUNNING,
	"Success":   pb.PreviewJob_STATE_SUCCESS,
	"Failed":    pb.PreviewJob_STATE_FAILED,
	"Pause":     pb.PreviewJob_STATE_PAUSED,
	"Cancel":    pb.PreviewJob_STATE_CANCELLED,
}

var ended = []string{"Success", "Failed", "Cancel"}

type service struct {
	pb.UnimplementedPreviewJobServiceServer
	cloud *cos.Client
	jobs  *lru.Cache[string, *pb.PreviewJob]
}

func (s *service) GetPreviewJob(ctx context.Context, request *pb.GetPreviewJobRequest) (*pb.PreviewJob, error) {
	if request.GetBucket() != bucket {
		return nil, status.Errorf(codes.NotFound, "no bucket %q", request.GetBucket())
	}
	fresh := slices.Contains(metadata.ValueFromIncomingContext(ctx, "cache-control"), "no-cache")
	if job, ok := s.jobs.Get(request.GetJobId()); ok && !fresh {
		return job, nil
	}
	reply, _, err := s.cloud.CI.DescribeDocProcessJob(ctx, url.PathEscape(request.GetJobId()))
	if err != nil {
		return nil, status.Error(codes.Unavailable, "the cloud did not answer with a job")
	}
	if reply.JobsDetail == nil {
		return nil, status.Errorf(codes.NotFound, "no job %q", request.GetJobId())
	}
	job := translated(reply.JobsDetail)
	if slices.Contains(ended, job.GetRawState()) {
		s.jobs.Add(job.GetJobId(), job)
	}
	return job, nil
}

func (s *service) CreatePreviewJob(ctx context.Context, request *pb.CreatePreviewJobRequest) (*pb.PreviewJob, error) {
	if request.GetBucket() != bucket {
		return nil, status.Errorf(codes.NotFound, "no bucket %q", request.GetBucket())
	}
	reply, _, err := s.cloud.CI.CreateDocProcessJobs(ctx, &cos.CreateDocProcessJobsOptions{
		Tag:   "DocProcess",
		Input: &cos.DocProcessJobInput{Object: request.GetInputObject()},
		Operation: &cos.DocProcessJobOperation{
			Output:     &cos.DocProcessJobOutput{Region: region, Bucket: bucket, Object: request.GetOutput().GetObject()},
			DocProcess: &cos.DocProcessJobDocProcess{},
		},
	})
	if err != nil {
		return nil, status.Error(codes.Unknown, "the cloud may or may not have made the job")
	}
	return translated(&reply.JobsDetail), nil
}

// translated is the contract's message of the SDK's, which knows neither the times of start and end nor the source's bucket.
func translated(detail *cos.DocProcessJobDetail) *pb.PreviewJob {
	job := &pb.PreviewJob{
		Bucket: bucket, JobId: detail.JobId, QueueId: detail.QueueId, State: states[detail.State], RawState: detail.State,
	}
	if created, err := time.Parse("2006-01-02T15:04:05-0700", detail.CreationTime); err == nil {
		job.CreateTime = timestamppb.New(created)
	}
	if in := detail.Input; in != nil {
		job.Input = &pb.ObjectLocation{Object: in.Object}
	}
	if detail.Operation == nil {
		return job
	}
	job.UserData = detail.Operation.UserData
	if out := detail.Operation.Output; out != nil {
		job.Output = &pb.ObjectLocation{Region: out.Region, Bucket: out.Bucket, Object: out.Object}
	}
	if made := detail.Operation.DocProcessResult; made != nil && detail.State == "Success" {
		job.Result = &pb.PreviewResult{
			TotalPageCount: int32(made.TotalPageCount), SucceededPageCount: int32(made.SuccPageCount),
			FailedPageCount: int32(made.FailPageCount), TotalSheetCount: int32(made.TotalSheetCount), TaskId: made.TaskId,
		}
		for _, page := range made.PageInfo {
			job.Result.Pages = append(job.Result.Pages, &pb.Page{
				PageNumber: int32(page.PageNo), Object: page.TgtUri,
			})
		}
	}
	return job
}

func main() {
	upstream := net.JoinHostPort("127.0.0.1", os.Args[1])
	// The cloud's own host stays in the address, so that it is what is signed; only the connection goes elsewhere.
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, upstream)
		},
		MaxIdleConnsPerHost: inFlight,
	}
	cloud := cos.NewClient(
		&cos.BaseURL{CIURL: &url.URL{Scheme: "http", Host: host}},
		&http.Client{Transport: &cos.AuthorizationTransport{
			SecretID: "example-id", SecretKey: "example-key", Transport: transport,
		}},
	)
	jobs, err := lru.New[string, *pb.PreviewJob](10_000)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterPreviewJobServiceServer(server, &service{cloud: cloud, jobs: jobs})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
