package com.docpreview.client;

import com.docpreview.client.DocPreviewException.InvalidRequest;
import com.docpreview.client.DocPreviewException.OutcomeUnknown;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewJobServiceGrpc;
import java.time.Duration;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.regex.Pattern;

/**
 * Creates. They carry a {@code request_id}, so that all attempts together make one job, and are made again until the
 * deadline while that can help.
 */
final class Creates {
    /** The reason of an outcome that no later attempt can resolve. */
    static final String AMBIGUOUS = "CREATE_OUTCOME_AMBIGUOUS";

    private static final Pattern ID = Pattern.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}");

    private final Connections connections;
    private final boolean repeating;

    Creates(Connections connections, boolean repeating) {
        this.connections = connections;
        this.repeating = repeating;
    }

    CompletableFuture<PreviewJob> create(CreatePreviewJobRequest request, Deadline deadline, CallSettings settings) {
        if (!repeating) {
            return attempt(request, deadline, settings);
        }
        CreatePreviewJobRequest sent = withRequestId(request);
        return Repeated.of(connections, () -> attempt(sent, deadline, settings), new Judge(deadline));
    }

    /** The same request, with an id of its own if it has none. */
    static CreatePreviewJobRequest withRequestId(CreatePreviewJobRequest request) {
        return request.getRequestId().isEmpty()
                ? request.toBuilder().setRequestId(UUID.randomUUID().toString()).build()
                : request;
    }

    /**
     * That the id is one.
     *
     * @throws InvalidRequest it is not
     */
    static void check(String requestId) {
        if (!ID.matcher(requestId).matches()) {
            throw InvalidRequest.local(
                    "request_id must be a UUID, such as 7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10, not " + requestId);
        }
    }

    private CompletableFuture<PreviewJob> attempt(
            CreatePreviewJobRequest request, Deadline deadline, CallSettings settings) {
        return connections
                .calls()
                .call(PreviewJobServiceGrpc.getCreatePreviewJobMethod(), request, deadline, settings, failure -> {
                    DocPreviewException error = Errors.ofCreate(failure);
                    return error instanceof OutcomeUnknown open ? open.of(request.getRequestId()) : error;
                });
    }

    private final class Judge implements Repeated.Judge<PreviewJob> {
        private final Deadline deadline;
        private final Pauses pauses = new Pauses();
        private OutcomeUnknown unknown;

        Judge(Deadline deadline) {
            this.deadline = deadline;
        }

        @Override
        public Optional<Duration> pause(PreviewJob job, DocPreviewException error) {
            if (error == null) {
                return Optional.empty();
            }
            if (error instanceof OutcomeUnknown open) {
                unknown = open;
            }
            if (!canHelp(error)) {
                throw error;
            }
            Duration pause = pauses.next(error);
            if (pause.compareTo(deadline.remaining()) >= 0) {
                throw unknown == null ? error : unknown;
            }
            connections.calls().connectNow();
            return Optional.of(pause);
        }

        /** A connection that was lost leaves the outcome open whatever its code is; with the id asking again is safe. */
        private static boolean canHelp(DocPreviewException error) {
            boolean lost = error instanceof OutcomeUnknown && error.reason().isEmpty();
            return lost || error.retry() == Retry.NOW;
        }
    }
}
