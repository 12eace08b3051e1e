package com.docpreview.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import java.net.ConnectException;
import java.net.NoRouteToHostException;
import java.net.UnknownHostException;
import java.util.EnumMap;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.stream.Stream;
import javax.net.ssl.SSLHandshakeException;

/**
 * From gRPC's one exception to the tree of {@link DocPreviewException}.
 *
 * <p>The details of an error travel as {@code google.rpc.Status} in the trailing metadata. Details that cannot be read
 * are left out: an error that can be half understood is better than an error about an error.
 */
final class Errors {
    private static final String DOMAIN = "docpreview";
    private static final Metadata.Key<com.google.rpc.Status> DETAILS = Metadata.Key.of(
            "grpc-status-details-bin", ProtoUtils.metadataMarshaller(com.google.rpc.Status.getDefaultInstance()));
    private static final Metadata.Key<String> REQUEST_ID =
            Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER);

    private static final Map<String, Kind> BY_REASON = Map.of(
            "CREATE_OUTCOME_UNKNOWN", DocPreviewException.OutcomeUnknown::new,
            Creates.AMBIGUOUS, DocPreviewException.OutcomeUnknown::new,
            "CREATE_IN_PROGRESS", DocPreviewException.OutcomeUnknown::new,
            "REPLY_TOO_LARGE", DocPreviewException.InvalidRequest::new,
            "PAGE_BUDGET_EXHAUSTED", DocPreviewException.BudgetExhausted::new,
            "PAGE_BUDGET_TOO_SMALL", DocPreviewException.BudgetExhausted::new);
    private static final Map<Status.Code, Kind> BY_CODE = new EnumMap<>(Map.of(
            Status.Code.INVALID_ARGUMENT, DocPreviewException.InvalidRequest::new,
            Status.Code.OUT_OF_RANGE, DocPreviewException.InvalidRequest::new,
            Status.Code.ALREADY_EXISTS, DocPreviewException.InvalidRequest::new,
            Status.Code.NOT_FOUND, DocPreviewException.NotFound::new,
            Status.Code.UNAUTHENTICATED, DocPreviewException.Unauthenticated::new,
            Status.Code.PERMISSION_DENIED, DocPreviewException.PermissionDenied::new,
            Status.Code.FAILED_PRECONDITION, DocPreviewException.FailedPrecondition::new,
            Status.Code.RESOURCE_EXHAUSTED, DocPreviewException.Throttled::new,
            Status.Code.UNAVAILABLE, DocPreviewException.Unavailable::new,
            Status.Code.DEADLINE_EXCEEDED, DocPreviewException.DeadlineExceeded::new));
    /** Without a reason these leave open whether a create arrived. */
    private static final Set<Status.Code> OPEN = EnumSet.of(
            Status.Code.UNAVAILABLE,
            Status.Code.CANCELLED,
            Status.Code.DEADLINE_EXCEEDED,
            Status.Code.UNKNOWN,
            Status.Code.INTERNAL);
    /** How Java says that there was never a connection. Anything else is taken for "may have been sent". */
    private static final Set<Class<? extends Exception>> NEVER_CONNECTED = Set.of(
            ConnectException.class,
            NoRouteToHostException.class,
            UnknownHostException.class,
            SSLHandshakeException.class);

    static {
        // A stopping gRPC server cancels calls that it has not yet begun: https://github.com/grpc/grpc/issues/41785
        BY_CODE.put(Status.Code.CANCELLED, DocPreviewException.Unavailable::new);
    }

    private Errors() {}

    @FunctionalInterface
    private interface Kind {
        DocPreviewException make(String sentence, Status.Code code, ErrorFacts facts, Throwable cause);
    }

    /** The failure of a call that changes nothing. */
    static DocPreviewException ofRead(StatusRuntimeException error) {
        ErrorFacts facts = facts(error);
        Kind byCode = BY_CODE.getOrDefault(error.getStatus().getCode(), DocPreviewException.InternalError::new);
        return make(BY_REASON.getOrDefault(facts.reason(), byCode), error, facts);
    }

    /** The failure of a create; whatever leaves open whether a job was made is an OutcomeUnknown. */
    static DocPreviewException ofCreate(StatusRuntimeException error) {
        ErrorFacts facts = facts(error);
        boolean open = OPEN.contains(error.getStatus().getCode())
                && facts.reason().isEmpty()
                && causes(error).noneMatch(Errors::saysNeverConnected);
        return open ? make(DocPreviewException.OutcomeUnknown::new, error, facts) : ofRead(error);
    }

    /** The failure of a call whose thread was interrupted while it waited. The interrupt flag is set again. */
    static DocPreviewException interrupted(Throwable cause) {
        Thread.currentThread().interrupt();
        return new DocPreviewException.Interrupted(
                "The thread was interrupted.", Status.Code.CANCELLED, ErrorFacts.NONE, cause);
    }

    /** What code of the caller has thrown in the midst of a call: an interceptor, a receiver of metadata. */
    static DocPreviewException unexpected(RuntimeException failure) {
        return failure instanceof DocPreviewException known
                ? known
                : new DocPreviewException.InternalError(
                        "Code of the caller has failed: " + failure, Status.Code.INTERNAL, ErrorFacts.NONE, failure);
    }

    private static DocPreviewException make(Kind kind, StatusRuntimeException error, ErrorFacts facts) {
        return kind.make(sentence(error.getStatus()), error.getStatus().getCode(), facts, error);
    }

    /** The gateway's sentence; what failed on this side is named too, where gRPC says no more than "io exception". */
    private static String sentence(Status status) {
        String description = status.getDescription();
        String sentence = description == null || description.isEmpty() ? status.getCode().name() : description;
        String cause = causes(status.getCause())
                .map(Throwable::getMessage)
                .filter(Objects::nonNull)
                .reduce("", (outer, inner) -> inner);
        return cause.isEmpty() ? sentence : sentence + ": " + cause;
    }

    private static boolean saysNeverConnected(Throwable cause) {
        return NEVER_CONNECTED.stream().anyMatch(kind -> kind.isInstance(cause));
    }

    private static Stream<Throwable> causes(Throwable error) {
        return Stream.iterate(error, cause -> cause != null, Throwable::getCause);
    }

    private static ErrorFacts facts(StatusRuntimeException error) {
        Metadata trailers = error.getTrailers() == null ? new Metadata() : error.getTrailers();
        List<Any> details = details(trailers).getDetailsList();
        ErrorInfo info = find(details, ErrorInfo.getDefaultInstance());
        RetryInfo retry = find(details, RetryInfo.getDefaultInstance());
        boolean ours = info.getDomain().equals(DOMAIN);
        String header = trailers.get(REQUEST_ID);
        Map<String, String> metadata = ours ? info.getMetadataMap() : Map.of();
        return new ErrorFacts(
                ours ? info.getReason() : "",
                retry.hasRetryDelay() ? Wire.read(retry.getRetryDelay()) : null,
                find(details, BadRequest.getDefaultInstance()).getFieldViolationsList().stream()
                        .map(bad -> new FieldViolation(bad.getField(), bad.getDescription()))
                        .toList(),
                find(details, QuotaFailure.getDefaultInstance()).getViolationsList().stream()
                        .map(limit -> new QuotaViolation(limit.getSubject(), limit.getDescription()))
                        .toList(),
                Map.copyOf(metadata),
                metadata.getOrDefault("request_id", header == null ? "" : header));
    }

    /** The code that the details in these trailers name; UNKNOWN without details. */
    static int codeOf(Metadata trailers) {
        com.google.rpc.Status status = details(trailers);
        return status.getDetailsCount() == 0 ? Status.Code.UNKNOWN.value() : status.getCode();
    }

    private static com.google.rpc.Status details(Metadata trailers) {
        try {
            com.google.rpc.Status status = trailers.get(DETAILS);
            return status == null ? com.google.rpc.Status.getDefaultInstance() : status;
        } catch (RuntimeException unreadable) { // what the marshaller makes of bytes that are not a Status
            return com.google.rpc.Status.getDefaultInstance();
        }
    }

    /** The detail of this type, or an empty one. */
    private static <M extends Message> M find(List<Any> details, M empty) {
        @SuppressWarnings("unchecked") // the class of an M
        Class<M> type = (Class<M>) empty.getClass();
        for (Any detail : details) {
            if (detail.is(type)) {
                try {
                    return detail.unpack(type);
                } catch (InvalidProtocolBufferException unreadable) {
                    return empty;
                }
            }
        }
        return empty;
    }
}
