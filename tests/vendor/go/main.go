// Each operation of the suite with the vendor's SDK for Go; one JSON line for each. The argument is a file of settings.
package main

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	cos "github.com/tencentyun/cos-go-sdk-v5"
)

type settings struct {
	Scheme, Proxy, Region, Bucket, MissingBucket, MissingJob, Later string
	SecretID, SecretKey, TemporaryID, TemporaryKey, Token           string
	Document, Large                                                 string
	Keys                                                            []string
	Notify                                                          cos.DocProcessQueueNotifyConfig
}

type pages [][]any

const part = 1 << 20

var (
	ctx      = context.Background()
	set      settings
	document []byte
	large    []byte
	client   *cos.Client
	jobs     []string
)

func connect(bucket, id, key, token string) *cos.Client {
	address := func(service string) *url.URL {
		return must(url.Parse(fmt.Sprintf("%s://%s.%s.%s.myqcloud.com", set.Scheme, bucket, service, set.Region)))
	}
	// The Go runtime takes the CA from SSL_CERT_FILE.
	proxied := &http.Transport{Proxy: http.ProxyURL(must(url.Parse(set.Proxy)))}
	transport := &cos.AuthorizationTransport{SecretID: id, SecretKey: key, SessionToken: token, Transport: proxied}
	made := cos.NewClient(&cos.BaseURL{BucketURL: address("cos"), CIURL: address("ci")}, &http.Client{Transport: transport})
	made.Conf.RetryOpt.Count = 1
	return made
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func step(operation string, run func() (any, error)) {
	result := map[string]any{"operation": operation}
	value, err := run()
	var refused *cos.ErrorResponse
	switch {
	case err == nil:
		result["value"] = value
	case errors.As(err, &refused):
		result["error"] = map[string]any{"status": refused.Response.StatusCode, "code": refused.Code}
	default:
		panic(fmt.Sprintf("%s: %v", operation, err))
	}
	_ = json.NewEncoder(os.Stdout).Encode(result)
}

func etag(header http.Header) string { return strings.Trim(header.Get("ETag"), `"`) }

func body(from *cos.Client, key string, options *cos.ObjectGetOptions) ([]byte, error) {
	answer, err := from.Object.Get(ctx, key, options)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

func put(with *cos.Client, key string, content []byte) (any, error) {
	answer, err := with.Object.Put(ctx, key, strings.NewReader(string(content)), nil)
	if err != nil {
		return nil, err
	}
	return etag(answer.Header), nil
}

func listObjects() (any, error) {
	found, marker := pages{}, ""
	for {
		answer, _, err := client.Bucket.Get(ctx, &cos.BucketGetOptions{Prefix: "list/", Marker: marker, MaxKeys: 2})
		if err != nil {
			return nil, err
		}
		page := []any{}
		for _, each := range answer.Contents {
			page = append(page, each.Key)
		}
		found, marker = append(found, page), answer.NextMarker
		if !answer.IsTruncated {
			return found, nil
		}
	}
}

func putAndList() (any, error) {
	for _, key := range set.Keys {
		if _, err := put(client, key, []byte(key)); err != nil {
			return nil, err
		}
	}
	return listObjects()
}

func deleteOne() (any, error) {
	if _, err := client.Object.Delete(ctx, set.Keys[0]); err != nil {
		return nil, err
	}
	return listObjects()
}

func uploadInParts() (any, error) {
	key, numbers, made := "parts.bin", []int{}, &cos.CompleteMultipartUploadOptions{}
	begun, _, err := client.Object.InitiateMultipartUpload(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	for at := 0; at < len(large); at += part {
		number, piece := at/part+1, string(large[at:min(at+part, len(large))])
		answer, err := client.Object.UploadPart(ctx, key, begun.UploadID, number, strings.NewReader(piece), nil)
		if err != nil {
			return nil, err
		}
		made.Parts = append(made.Parts, cos.Object{PartNumber: number, ETag: answer.Header.Get("ETag")})
	}
	listed, _, err := client.Object.ListParts(ctx, key, begun.UploadID, nil)
	if err != nil {
		return nil, err
	}
	for _, each := range listed.Parts {
		numbers = append(numbers, each.PartNumber)
	}
	_, _, err = client.Object.CompleteMultipartUpload(ctx, key, begun.UploadID, made)
	return numbers, err
}

func abort() (any, error) {
	begun, _, err := client.Object.InitiateMultipartUpload(ctx, "aborted.bin", nil)
	if err != nil {
		return nil, err
	}
	if _, err = client.Object.UploadPart(ctx, "aborted.bin", begun.UploadID, 1, strings.NewReader("part"), nil); err != nil {
		return nil, err
	}
	if _, err = client.Object.AbortMultipartUpload(ctx, "aborted.bin", begun.UploadID); err != nil {
		return nil, err
	}
	_, _, err = client.Object.ListParts(ctx, "aborted.bin", begun.UploadID, nil)
	return nil, err
}

func presigned(method, key string) (any, error) {
	address, err := client.Object.GetPresignedURL(ctx, method, key, set.SecretID, set.SecretKey, time.Hour, nil)
	if err != nil {
		return nil, err
	}
	return address.String(), nil
}

func create(with *cos.Client, key string) (*cos.DocProcessJobDetail, error) {
	answer, _, err := with.CI.CreateDocProcessJobs(ctx, &cos.CreateDocProcessJobsOptions{
		Tag:   "DocProcess",
		Input: &cos.DocProcessJobInput{Object: key},
		Operation: &cos.DocProcessJobOperation{
			Output:     &cos.DocProcessJobOutput{Region: set.Region, Bucket: set.Bucket, Object: "pages/${Number}.jpg"},
			DocProcess: &cos.DocProcessJobDocProcess{},
		},
	})
	return &answer.JobsDetail, err
}

func createJobs() (any, error) {
	states := []string{}
	for range 3 {
		job, err := create(client, "report.pdf")
		if err != nil {
			return nil, err
		}
		jobs, states = append(jobs, job.JobId), append(states, job.State)
	}
	return states, nil
}

func finishedJobs() (any, error) {
	found := pages{}
	for _, id := range jobs {
		for {
			answer, _, err := client.CI.DescribeDocProcessJob(ctx, id)
			if err != nil {
				return nil, err
			}
			if state := answer.JobsDetail.State; state == "Success" || state == "Failed" {
				job := []any{state}
				for _, page := range answer.JobsDetail.Operation.DocProcessResult.PageInfo {
					job = append(job, page.TgtUri)
				}
				found = append(found, job)
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return found, nil
}

func listJobs(filter cos.DescribeDocProcessJobsOptions) (any, error) {
	found := pages{}
	filter.Tag = "DocProcess"
	for {
		answer, _, err := client.CI.DescribeDocProcessJobs(ctx, &filter)
		if err != nil {
			return nil, err
		}
		page := []any{}
		for _, job := range answer.JobsDetail {
			page = append(page, slices.Index(jobs, job.JobId))
		}
		found, filter.NextToken = append(found, page), answer.NextToken
		if filter.NextToken == "" {
			return found, nil
		}
	}
}

func listBoth(one, other cos.DescribeDocProcessJobsOptions) (any, error) {
	first, err := listJobs(one)
	if err != nil {
		return nil, err
	}
	second, err := listJobs(other)
	return []any{first, second}, err
}

func queue() (cos.DocProcessQueue, error) {
	answer, _, err := client.CI.DescribeDocProcessQueues(ctx, nil)
	if err != nil {
		return cos.DocProcessQueue{}, err
	}
	return answer.QueueList[0], nil
}

func updateQueue() (any, error) {
	found, err := queue()
	if err != nil {
		return nil, err
	}
	update := &cos.UpdateDocProcessQueueOptions{Name: "reports", QueueID: found.QueueId, State: "Active", NotifyConfig: &set.Notify}
	if _, _, err = client.CI.UpdateDocProcessQueue(ctx, update); err != nil {
		return nil, err
	}
	found, err = queue()
	return []string{found.Name, found.NotifyConfig.Url}, err
}

func buckets() (any, error) {
	wanted := &cos.DescribeDocProcessBucketsOptions{Regions: set.Region, BucketName: set.Bucket}
	answer, _, err := client.CI.DescribeDocProcessBuckets(ctx, wanted)
	names := []string{}
	for _, each := range answer.DocBucketList {
		names = append(names, each.Name)
	}
	return names, err
}

func temporary(token string) *cos.Client {
	return connect(set.Bucket, set.TemporaryID, set.TemporaryKey, token)
}

func objectSteps() {
	step("create bucket", func() (any, error) { _, err := client.Bucket.Put(ctx, nil); return nil, err })
	step("head bucket", func() (any, error) { _, err := client.Bucket.Head(ctx); return nil, err })
	step("put object", func() (any, error) { return put(client, "report.pdf", document) })
	step("head object", func() (any, error) {
		answer, err := client.Object.Head(ctx, "report.pdf", nil)
		return answer.ContentLength, err
	})
	step("get object", func() (any, error) {
		content, err := body(client, "report.pdf", nil)
		sum := md5.Sum(content)
		return hex.EncodeToString(sum[:]), err
	})
	step("get a range", func() (any, error) {
		content, err := body(client, "report.pdf", &cos.ObjectGetOptions{Range: "bytes=0-4"})
		return string(content), err
	})
	step("copy object", func() (any, error) {
		copied, _, err := client.Object.Copy(ctx, "copy.pdf", client.BaseURL.BucketURL.Host+"/report.pdf", nil)
		if err != nil {
			return nil, err
		}
		return strings.Trim(copied.ETag, `"`), nil
	})
	step("list objects", putAndList)
	step("delete object", deleteOne)
	step("upload in parts", uploadInParts)
	step("abort an upload", abort)
	step("transfer manager", func() (any, error) {
		_, _, err := client.Object.Upload(ctx, "transfer.bin", set.Large, &cos.MultiUploadOptions{PartSize: 1, ThreadPoolSize: 2})
		return nil, err
	})
	step("presigned GET", func() (any, error) { return presigned(http.MethodGet, "report.pdf") })
	step("presigned PUT", func() (any, error) { return presigned(http.MethodPut, "put by address.txt") })
}

func jobSteps() {
	step("create jobs", createJobs)
	step("get jobs", finishedJobs)
	step("list jobs", func() (any, error) { return listJobs(cos.DescribeDocProcessJobsOptions{Size: 2}) })
	step("list jobs, oldest first", func() (any, error) {
		found, err := queue()
		if err != nil {
			return nil, err
		}
		return listJobs(cos.DescribeDocProcessJobsOptions{OrderByTime: "Asc", QueueId: found.QueueId})
	})
	step("list jobs of a state", func() (any, error) {
		return listBoth(cos.DescribeDocProcessJobsOptions{States: "Failed"}, cos.DescribeDocProcessJobsOptions{States: "Success,Running"})
	})
	step("list jobs of a time", func() (any, error) {
		return listBoth(cos.DescribeDocProcessJobsOptions{StartCreationTime: set.Later}, cos.DescribeDocProcessJobsOptions{EndCreationTime: set.Later})
	})
	step("list queues", func() (any, error) { found, err := queue(); return found.State, err })
	step("update queue", updateQueue)
	step("list buckets of the service", buckets)
}

func refusedSteps() {
	wrong := connect(set.Bucket, set.SecretID, "wrong", "")
	elsewhere := connect(set.MissingBucket, set.SecretID, set.SecretKey, "")
	step("temporary key", func() (any, error) { return put(temporary(set.Token), "t.pdf", document) })
	step("temporary key, job", func() (any, error) {
		job, err := create(temporary(set.Token), "t.pdf")
		return job.State, err
	})
	step("wrong token", func() (any, error) { return put(temporary("wrong"), "t.pdf", document) })
	step("wrong key", func() (any, error) { return put(wrong, "k", document) })
	step("wrong key, job", func() (any, error) { _, err := create(wrong, "report.pdf"); return nil, err })
	step("no such key", func() (any, error) { _, err := body(client, "never put", nil); return nil, err })
	step("no such bucket", func() (any, error) { _, err := body(elsewhere, "report.pdf", nil); return nil, err })
	step("no such job", func() (any, error) {
		answer, _, err := client.CI.DescribeDocProcessJob(ctx, set.MissingJob)
		return answer.NonExistJobIds, err
	})
	step("job without its document", func() (any, error) { _, err := create(client, "never put.pdf"); return nil, err })
}

func main() {
	if err := json.Unmarshal(must(os.ReadFile(os.Args[1])), &set); err != nil {
		panic(err)
	}
	document, large = must(os.ReadFile(set.Document)), must(os.ReadFile(set.Large))
	client = connect(set.Bucket, set.SecretID, set.SecretKey, "")
	objectSteps()
	jobSteps()
	refusedSteps()
}
