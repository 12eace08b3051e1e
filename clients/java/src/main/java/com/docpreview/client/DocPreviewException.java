package com.docpreview.client;

import com.docpreview.v1.PreviewJob;
import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * A call that failed. The subclasses are divided by what a caller can do about it:
 *
 * <pre>
 * DocPreviewException
 * ├── InvalidRequest          change the request: fieldViolations() names every bad field
 * ├── NotFound                there is no such job, document or queue (any more)
 * ├── Unauthenticated         bring a valid token or client certificate
 * ├── PermissionDenied        ask the operators of the gateway for the permission
 * ├── FailedPrecondition      put the bucket or the cloud account in order, then call again
 * ├── BudgetExhausted         the pages of the day or month are used up, or too few for the job
 * ├── TransientError          call again, after retryDelay() when it is known
 * │   ├── Throttled               too many calls: quotaViolations() names the limit
 * │   ├── Unavailable             gateway or cloud cannot be reached, or the gateway is stopping
 * │   └── DeadlineExceeded        the deadline of the call has passed
 * ├── PreviewUnfinished       a preview has made its job, and failed after that: go on with job()
 * ├── OutcomeUnknown          a create may or may not have made a job: list the jobs before creating again
 * ├── Interrupted             the calling thread was interrupted; its interrupt flag is set
 * └── InternalError           report it with requestId() to the operators of the gateway
 * </pre>
 *
 * <p>{@link #retry()} says for each error whether the same call can succeed now, later or never.
 */
public abstract class DocPreviewException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final Status.Code code;
    private final transient ErrorFacts facts;
    private final String sentence;

    private DocPreviewException(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
        this(summary(sentence, code, facts), sentence, code, facts, cause);
    }

    private DocPreviewException(
            String message, String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
        super(message, cause);
        this.sentence = sentence;
        this.code = code;
        this.facts = facts;
    }

    /**
     * The same failure as one of these exceptions, for those who call the generated stubs over {@link
     * DocPreviewClient#channel()} themselves. Not for creates: whether they left their outcome open is only told by
     * {@link DocPreviewClient#create}.
     */
    public static DocPreviewException from(io.grpc.StatusRuntimeException error) {
        return Errors.ofRead(error);
    }

    /** The gRPC status code. */
    public Status.Code code() {
        return code;
    }

    /** The gateway's sentence, or gRPC's own when no gateway answered. */
    public String sentence() {
        return sentence;
    }

    /**
     * Name of a {@code com.docpreview.v1.ErrorReason} without {@code ERROR_REASON_}, for example {@code
     * JOB_NOT_FOUND}. Empty when the error does not come from the gateway itself: no connection, a local deadline, a
     * proxy.
     */
    public String reason() {
        return facts().reason();
    }

    /** Whether the same call can succeed: now, later or never. Creates may be repeated with a {@code request_id} only. */
    public Retry retry() {
        return Retry.of(reason(), code);
    }

    /** How long to wait before the call is repeated; empty when the gateway does not say. */
    public Optional<Duration> retryDelay() {
        return Optional.ofNullable(facts().retryDelay());
    }

    /** Every bad field of the request. */
    public List<FieldViolation> fieldViolations() {
        return facts().fieldViolations();
    }

    /** The limits that were reached. */
    public List<QuotaViolation> quotaViolations() {
        return facts().quotaViolations();
    }

    /** The metadata of the error's {@code google.rpc.ErrorInfo}, for example {@code upstream_request_id}. */
    public Map<String, String> metadata() {
        return facts().metadata();
    }

    /** The gateway's id of the call. Empty when no gateway answered. */
    public String requestId() {
        return facts().requestId();
    }

    private ErrorFacts facts() {
        return facts == null ? ErrorFacts.NONE : facts;
    }

    /** Everything that helps to act, on one line. */
    private static String summary(String sentence, Status.Code code, ErrorFacts facts) {
        Stream<String> head = Stream.of((facts.reason().isEmpty() ? code.name() : facts.reason()) + ": " + sentence);
        Stream<String> fields = facts.fieldViolations().stream().map(bad -> bad.field() + ": " + bad.description());
        Stream<String> id = facts.requestId().isEmpty() ? Stream.of() : Stream.of("request id " + facts.requestId());
        return Stream.of(head, fields, id).flatMap(part -> part).collect(Collectors.joining("; "));
    }

    /** The request cannot be served as it is; repeating it is useless. */
    public static final class InvalidRequest extends DocPreviewException {
        private static final long serialVersionUID = 1L;

        InvalidRequest(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }

        /** What is refused before anything is sent. */
        static InvalidRequest local(String sentence) {
            return new InvalidRequest(sentence, Status.Code.INVALID_ARGUMENT, ErrorFacts.NONE, null);
        }
    }

    /** The job, document, bucket or queue does not exist (any more). */
    public static final class NotFound extends DocPreviewException {
        private static final long serialVersionUID = 1L;

        NotFound(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }
    }

    /** The gateway does not know who calls: the token or client certificate is missing, wrong or expired. */
    public static final class Unauthenticated extends DocPreviewException {
        private static final long serialVersionUID = 1L;

        Unauthenticated(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }
    }

    /** The gateway knows the caller and refuses, or it is not configured for the bucket. */
    public static final class PermissionDenied extends DocPreviewException {
        private static final long serialVersionUID = 1L;

        PermissionDenied(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }
    }

    /** The request is fine, but bucket or cloud account are not in the state that it needs. */
    public static final class FailedPrecondition extends DocPreviewException {
        private static final long serialVersionUID = 1L;

        FailedPrecondition(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }
    }

    /** The same call can succeed later. */
    public abstract static class TransientError extends DocPreviewException {
        private static final long serialVersionUID = 1L;

        private TransientError(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }
    }

    /** Too many calls, or a quota of the cloud account is used up. Nothing was accepted. */
    public static final class Throttled extends TransientError {
        private static final long serialVersionUID = 1L;

        Throttled(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }
    }

    /**
     * The pages that the caller may make in this day or month (UTC) are used up, or too few are left for the job. With
     * the reason {@code PAGE_BUDGET_TOO_SMALL} the job never fits: select fewer pages, or ask for a larger budget.
     */
    public static final class BudgetExhausted extends DocPreviewException {
        private static final long serialVersionUID = 1L;

        BudgetExhausted(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }
    }

    /** Gateway or cloud cannot be reached, or the gateway is stopping. A create was not accepted. */
    public static final class Unavailable extends TransientError {
        private static final long serialVersionUID = 1L;

        Unavailable(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }
    }

    /** The deadline of the call has passed. */
    public static final class DeadlineExceeded extends TransientError {
        private static final long serialVersionUID = 1L;

        DeadlineExceeded(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }
    }

    /**
     * A create was sent and its answer is lost: the job may or may not exist; repeating it may bill a second one. With
     * the reason {@code CREATE_OUTCOME_AMBIGUOUS} repeating does not help: only a new {@code request_id} makes a new
     * job.
     */
    public static final class OutcomeUnknown extends DocPreviewException {
        private static final long serialVersionUID = 1L;

        private String createId = "";

        OutcomeUnknown(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }

        /** The {@code request_id} that the create carried, also when the client has made it: with it the create can be repeated. */
        public String createId() {
            return createId;
        }

        OutcomeUnknown of(String requestId) {
            createId = requestId;
            return this;
        }
    }

    /**
     * {@link DocPreviewClient#preview} has made its job, and failed after that: {@code getCause()} says by what. The job is
     * billed, and goes on: follow {@link #job} with {@code waitFor}, then bring its pages with {@code download}, or repeat
     * the preview with its {@code request_id} and the same file. Without this id another preview makes a second job.
     */
    public static final class PreviewUnfinished extends DocPreviewException {
        private static final long serialVersionUID = 1L;

        private final PreviewJob job;

        PreviewUnfinished(PreviewJob job, RuntimeException cause) {
            this(
                    "job " + job.getJobId() + " was made and its pages are not all here: " + told(cause)
                            + "; go on with download: waitFor, then download",
                    job,
                    cause);
        }

        private PreviewUnfinished(String sentence, PreviewJob job, RuntimeException cause) {
            // Not the cause's code, by which a program might repeat; and no code in the message, as it says nothing.
            super(sentence, sentence, Status.Code.UNKNOWN, ErrorFacts.NONE, cause);
            this.job = job;
        }

        /** The job as it was seen last. */
        public PreviewJob job() {
            return job;
        }

        /** {@link Retry#NEVER}, whatever the cause is: the job is there. */
        @Override
        public Retry retry() {
            return Retry.NEVER;
        }

        /** The gateway's id of the call that failed. Empty when no gateway answered. */
        @Override
        public String requestId() {
            return getCause() instanceof DocPreviewException known ? known.requestId() : "";
        }

        private static String told(RuntimeException cause) {
            return cause.getMessage() == null ? cause.toString() : cause.getMessage();
        }
    }

    /** The calling thread was interrupted, and its interrupt flag is set again. */
    public static final class Interrupted extends DocPreviewException {
        private static final long serialVersionUID = 1L;

        Interrupted(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }
    }

    /** Something unexpected happened in the gateway, or it answered in a way that this client does not know. */
    public static final class InternalError extends DocPreviewException {
        private static final long serialVersionUID = 1L;

        InternalError(String sentence, Status.Code code, ErrorFacts facts, Throwable cause) {
            super(sentence, code, facts, cause);
        }
    }
}
