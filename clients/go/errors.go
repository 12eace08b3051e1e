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
	// Throttled: too many calls, or a quota is used up. Nothing was accepted. Call again after Error.RetryDelay.
	Throttled Kind = "Throttled"
	// BudgetExhausted: the pages of the day or month (UTC) are used up, or too few for the job; it is a Throttled too.
	// With the reason PAGE_BUDGET_TOO_SMALL the job never fits. Nothing was accepted.
	BudgetExhausted Kind = "BudgetExhausted"
	// Unavailable: gateway or cloud cannot be reached. A create was not accepted. Call again after Error.RetryDelay.
	Unavailable Kind = "Unavailable"
	// DeadlineExceeded: the deadline of the call has passed.
	DeadlineExceeded Kind = "DeadlineExceeded"
	// OutcomeUnknown: a create may or may not have made a job. With a request_id repeat it; without one, list the jobs
	// before creating again, since a second create may be billed. With the reason CREATE_OUTCOME_AMBIGUOUS repeating does
	// not help: only a new request_id makes a new job.
	OutcomeUnknown Kind = "OutcomeUnknown"
	// InternalError: report it with Error.RequestID to the operators of the gateway.
	InternalError Kind = "InternalError"
)

func (k Kind) Error() string { return "docpreview: " + string(k) }

// Violation is a bad field of a request: its path, and what to do about it.
type Violation struct {
	Field, Description string
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
	// RetryDelay is how long to wait before the call is repeated; 0 when the gateway does not say.
	RetryDelay time.Duration
	// Violations are all bad fields of the request.
	Violations []Violation
	// Metadata is that of the error's google.rpc.ErrorInfo, for example upstream_request_id.
	Metadata map[string]string
	// RequestID is the gateway's id of the call. Empty when no gateway answered.
	RequestID string

	cause error
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

// Unwrap is gRPC's error.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus is the status as the gateway sent it.
func (e *Error) GRPCStatus() *status.Status { return status.Convert(e.cause) }

// Temporary reports whether the same call can succeed later, and nothing is lost by repeating it.
func (e *Error) Temporary() bool {
	switch e.Kind {
	case Throttled, Unavailable, DeadlineExceeded:
		return true
	case BudgetExhausted:
		return e.Reason != "PAGE_BUDGET_TOO_SMALL"
	}
	return false
}

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
	st := status.Convert(err)
	decoded := &Error{Code: st.Code(), Message: st.Message(), cause: err}
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
		}
	}
	decoded.RequestID = decoded.Metadata["request_id"]
	if values := trailer.Get("x-request-id"); decoded.RequestID == "" && len(values) > 0 {
		decoded.RequestID = values[0]
	}
	decoded.Kind = InternalError
	if kind, ok := kindOfCode[decoded.Code]; ok {
		decoded.Kind = kind
	}
	if kind, ok := kindOfReason[decoded.Reason]; ok {
		decoded.Kind = kind
	}
	return decoded
}
