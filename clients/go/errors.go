package docpreview

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

// Kind says what to do about an error. It is itself an error to compare with:
//
//	if errors.Is(err, docpreview.NotFound) { ... }
type Kind string

// The kinds of errors.
const (
	// InvalidRequest: change the request; Error.Violations names every bad field.
	InvalidRequest Kind = "InvalidRequest"
	// NotFound: there is no such job, document, bucket or queue (any more).
	NotFound Kind = "NotFound"
	// Unauthenticated: bring a valid token or client certificate.
	Unauthenticated Kind = "Unauthenticated"
	// PermissionDenied: ask the operators of the gateway for the permission.
	PermissionDenied Kind = "PermissionDenied"
	// FailedPrecondition: put the bucket or the cloud account in order, then call again.
	FailedPrecondition Kind = "FailedPrecondition"
	// Throttled: too many calls, or a quota is used up: Error.Quota names it. Nothing was accepted. Error.Retry says
	// whether to call again.
	Throttled Kind = "Throttled"
	// BudgetExhausted: the pages of the day or month (UTC) are used up, or too few for the job; it is a Throttled too.
	// With the reason PAGE_BUDGET_TOO_SMALL the job never fits. Nothing was accepted.
	BudgetExhausted Kind = "BudgetExhausted"
	// Unavailable: gateway or cloud cannot be reached. A create was not accepted. Call again after Error.RetryDelay.
	Unavailable Kind = "Unavailable"
	// DeadlineExceeded: the deadline of the call has passed.
	DeadlineExceeded Kind = "DeadlineExceeded"
	// OutcomeUnknown: a create may or may not have made a job. Repeat it with the same request_id, which
	// Error.CreateRequestID has; when that is empty, list the jobs before creating again, since a second create may be
	// billed. With the reason CREATE_OUTCOME_AMBIGUOUS repeating does not help: only a new request_id makes a new job.
	OutcomeUnknown Kind = "OutcomeUnknown"
	// InternalError: report it with Error.RequestID to the operators of the gateway.
	InternalError Kind = "InternalError"
)

func (k Kind) Error() string { return "docpreview: " + string(k) }

// Retry says whether repeating a call helps.
type Retry string

// Whether repeating a call helps.
const (
	// RetryNow: the same call may succeed within the time that a program waits; after Error.RetryDelay, else after pauses
	// that grow. A create of [OutcomeUnknown] only with the same request_id.
	RetryNow Retry = "now"
	// RetryLater: the same call may succeed when a person or a new period has made room. Do not wait for it in a program.
	RetryLater Retry = "later"
	// RetryNever: the same call fails again until something else has changed.
	RetryNever Retry = "never"
)

// Violation is a bad field of a request: its path, and what to do about it.
type Violation struct {
	Field, Description string
}

// QuotaViolation is a limit that a call met: whose it is, and what to do about it.
type QuotaViolation struct {
	Subject, Description string
}

// Error is a call that failed. Cancellation is none: a cancelled context gives context.Canceled.
type Error struct {
	// Kind says what to do.
	Kind Kind
	// Code is gRPC's.
	Code codes.Code
	// Reason is the name of an ErrorReason without ERROR_REASON_, such as JOB_NOT_FOUND. Empty when the error does not
	// come from the gateway (no connection, a local deadline, a proxy).
	Reason string
	// Message is the gateway's sentence, or gRPC's own when no gateway answered.
	Message string
	// Retry says whether repeating the call helps.
	Retry Retry
	// RetryDelay is how long to wait before the call is repeated; 0 when the gateway does not say.
	RetryDelay time.Duration
	// Violations are all bad fields of the request.
	Violations []Violation
	// Quota are the limits that the call met.
	Quota []QuotaViolation
	// Metadata is that of the error's google.rpc.ErrorInfo, for example upstream_request_id.
	Metadata map[string]string
	// RequestID is the gateway's id of the call. Empty when no gateway answered.
	RequestID string
	// CreateRequestID is the request_id of a create that failed, also when the client made it: with it the create can be
	// repeated and stays one job. Empty for other calls.
	CreateRequestID string

	status *status.Status
	cause  error
}

// Error is everything that helps to act, on one line.
func (e *Error) Error() string {
	name := e.Reason
	if name == "" {
		name = e.Code.String()
	}
	parts := []string{fmt.Sprintf("docpreview: %s: %s", name, e.Message)}
	for _, violation := range e.Violations {
		parts = append(parts, violation.Field+": "+violation.Description)
	}
	if e.Kind == OutcomeUnknown && e.Reason != reasonAmbiguous && e.CreateRequestID != "" {
		parts = append(parts, "repeat it with the request_id "+e.CreateRequestID)
	}
	if e.RequestID != "" {
		parts = append(parts, "request id "+e.RequestID)
	}
	return strings.Join(parts, "; ")
}

// Is makes errors.Is work with a [Kind], and with context.DeadlineExceeded. BudgetExhausted is a Throttled.
func (e *Error) Is(target error) bool {
	if target == context.DeadlineExceeded {
		return e.Code == codes.DeadlineExceeded
	}
	kind, ok := target.(Kind)
	return ok && (kind == e.Kind || kind == Throttled && e.Kind == BudgetExhausted)
}

// Unwrap is what failed: gRPC's error, or that of the token source, the network or the storage.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus is the status as the gateway sent it, or the one that says most of another failure.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Temporary reports whether the same call may succeed within the time that a program waits, and nothing is lost by
// repeating it.
func (e *Error) Temporary() bool { return e.Retry == RetryNow && e.Kind != OutcomeUnknown }

// JobError is a job whose pages were wanted and that has not succeeded. Its State says whether it has failed, was cancelled
// or has not ended yet, and its Failure why it failed: decide on the failure's Reason.
type JobError struct {
	Job *docpreviewv1.PreviewJob
}

// Error is the state of the job, and why it failed.
func (e *JobError) Error() string {
	state := strings.TrimPrefix(e.Job.GetState().String(), "STATE_")
	failure := e.Job.GetFailure()
	if failure == nil {
		return fmt.Sprintf("docpreview: job %s is %s and has no pages", e.Job.GetJobId(), state)
	}
	reason := strings.TrimPrefix(failure.GetReason().String(), "REASON_")
	return fmt.Sprintf("docpreview: job %s is %s: %s: %s (%s)", e.Job.GetJobId(), state, reason, failure.GetMessage(), failure.GetCode())
}

// UnfinishedError is a [Client.Preview] that failed after its job had been made. The job is billed, so never repeat the
// Preview as it was: that would make another job. Go on with [Client.Wait] and then [Client.Download] of Job, or repeat
// the Preview with the same RequestId and the same file.
//
// It does not unwrap to its cause, which may be one that a program repeats; only context.Canceled is seen through it.
type UnfinishedError struct {
	// Job is the job as it was last seen.
	Job *docpreviewv1.PreviewJob
	// Cause is what failed: an [*Error], or the error of a local file.
	Cause error
}

// Error is the job, what failed, and how to go on.
func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("docpreview: job %s was made and its pages are not all here: %s; go on with download: Client.Wait, then Client.Download",
		e.Job.GetJobId(), e.Cause)
}

// Is makes errors.Is work with context.Canceled.
func (e *UnfinishedError) Is(target error) bool {
	return target == context.Canceled && errors.Is(e.Cause, context.Canceled)
}

// Retry is always [RetryNever], whatever it is of the cause.
func (e *UnfinishedError) Retry() Retry { return RetryNever }

// Temporary is always false, whatever it is of the cause.
func (e *UnfinishedError) Temporary() bool { return false }

// reasonAmbiguous is the reason of an outcome that no later attempt can resolve.
const reasonAmbiguous = "CREATE_OUTCOME_AMBIGUOUS"

const errorDomain = "docpreview"

var kindOfReason = map[string]Kind{
	"CREATE_OUTCOME_UNKNOWN": OutcomeUnknown,
	reasonAmbiguous:          OutcomeUnknown,
	"REPLY_TOO_LARGE":        InvalidRequest,
	"PAGE_BUDGET_EXHAUSTED":  BudgetExhausted,
	"PAGE_BUDGET_TOO_SMALL":  BudgetExhausted,
}

var kindOfCode = map[codes.Code]Kind{
	codes.InvalidArgument:    InvalidRequest,
	codes.OutOfRange:         InvalidRequest,
	codes.AlreadyExists:      InvalidRequest,
	codes.NotFound:           NotFound,
	codes.Unauthenticated:    Unauthenticated,
	codes.PermissionDenied:   PermissionDenied,
	codes.FailedPrecondition: FailedPrecondition,
	codes.ResourceExhausted:  Throttled,
	codes.Unavailable:        Unavailable,
	// A stopping gRPC server cancels calls that it has not yet begun: https://github.com/grpc/grpc/issues/41785
	codes.Canceled:         Unavailable,
	codes.DeadlineExceeded: DeadlineExceeded,
}

// retryOfReason is the (retry) option of each ErrorReason of the contract. A reason that is newer than this package is not
// in it: never.
var retryOfReason = func() map[string]Retry {
	names := map[docpreviewv1.Retry]Retry{docpreviewv1.Retry_RETRY_NOW: RetryNow, docpreviewv1.Retry_RETRY_LATER: RetryLater}
	table := map[string]Retry{}
	reasons := docpreviewv1.ErrorReason(0).Descriptor().Values()
	for i := range reasons.Len() {
		retry, _ := proto.GetExtension(reasons.Get(i).Options(), docpreviewv1.E_Retry).(docpreviewv1.Retry)
		table[strings.TrimPrefix(string(reasons.Get(i).Name()), "ERROR_REASON_")] = names[retry]
	}
	return table
}()

func retryOf(reason string, code codes.Code) Retry {
	retry := retryOfReason[reason]
	if reason == "" && (code == codes.Unavailable || code == codes.Canceled || code == codes.DeadlineExceeded) {
		retry = RetryNow
	}
	if retry == "" {
		return RetryNever
	}
	return retry
}

// newError is an error that did not come from the gateway.
func newError(code codes.Code, cause error, message string) *Error {
	made := decodeStatus(status.Error(code, message), nil)
	if cause != nil {
		made.cause = cause
	}
	return made
}

// decode turns gRPC's error into an *Error; trailer helps to name the call. Cancellation by the caller passes unchanged.
func decode(ctx context.Context, err error, trailer metadata.MD) error {
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return decodeStatus(err, trailer)
}

func decodeStatus(err error, trailer metadata.MD) *Error {
	var known *Error
	if errors.As(err, &known) { // made on this side: a token source that failed
		return known
	}
	st := status.Convert(err)
	decoded := &Error{Code: st.Code(), Message: st.Message(), status: st, cause: err}
	for _, detail := range st.Details() { // what cannot be read is an error in the list: left out
		switch known := detail.(type) {
		case *errdetails.ErrorInfo:
			if known.GetDomain() == errorDomain {
				decoded.Reason, decoded.Metadata = known.GetReason(), known.GetMetadata()
			}
		case *errdetails.RetryInfo:
			decoded.RetryDelay = known.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			for _, violation := range known.GetFieldViolations() {
				decoded.Violations = append(decoded.Violations, Violation{violation.GetField(), violation.GetDescription()})
			}
		case *errdetails.QuotaFailure:
			for _, violation := range known.GetViolations() {
				decoded.Quota = append(decoded.Quota, QuotaViolation{violation.GetSubject(), violation.GetDescription()})
			}
		}
	}
	decoded.RequestID = decoded.Metadata["request_id"]
	if values := trailer.Get("x-request-id"); decoded.RequestID == "" && len(values) > 0 {
		decoded.RequestID = values[0]
	}
	decoded.Retry = retryOf(decoded.Reason, decoded.Code)
	decoded.Kind = InternalError
	if kind, ok := kindOfCode[decoded.Code]; ok {
		decoded.Kind = kind
	}
	if kind, ok := kindOfReason[decoded.Reason]; ok {
		decoded.Kind = kind
	}
	return decoded
}
