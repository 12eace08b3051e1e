package com.docpreview.client;

import com.docpreview.client.DocPreviewException.OutcomeUnknown;
import com.docpreview.client.DocPreviewException.Unavailable;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewJobServiceGrpc;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import java.time.Duration;

/**
 * Creates. Those that carry a {@code request_id} are made again until their outcome is known: all attempts together
 * make one job. The others are made once.
 */
final class Creates {
    /** The reason of an outcome that no later attempt can resolve. */
    static final String AMBIGUOUS = "CREATE_OUTCOME_AMBIGUOUS";

    private static final int ATTEMPTS = 5;

    private final Connection connection;

    Creates(Connection connection) {
        this.connection = connection;
    }

    /** Makes one attempt, or with a {@code request_id} up to five, never earlier than the gateway asks for. */
    PreviewJob create(CreatePreviewJobRequest request, Deadline deadline) {
        return request.getRequestId().isEmpty() ? attempt(request, deadline) : repeated(request, deadline);
    }

    private PreviewJob repeated(CreatePreviewJobRequest request, Deadline deadline) {
        Pauses pauses = new Pauses();
        DocPreviewException unknown = null;
        for (int number = 1; ; number++) {
            try {
                return attempt(request, deadline);
            } catch (OutcomeUnknown | Unavailable error) {
                if (error.reason().equals(AMBIGUOUS)) {
                    throw error;
                }
                unknown = error instanceof OutcomeUnknown ? error : unknown;
                DocPreviewException worst = unknown == null ? error : unknown;
                Duration pause = pauses.next(error);
                if (number == ATTEMPTS || pause.compareTo(deadline.remaining()) >= 0) {
                    throw worst;
                }
                sleep(pause, deadline, worst);
                connection.connectNow();
            }
        }
    }

    private PreviewJob attempt(CreatePreviewJobRequest request, Deadline deadline) {
        try {
            return ClientCalls.blockingUnaryCall(
                    connection.channel(),
                    PreviewJobServiceGrpc.getCreatePreviewJobMethod(),
                    deadline.callOptions(),
                    request);
        } catch (StatusRuntimeException error) {
            throw Errors.ofCreate(error);
        }
    }

    /** An interrupt ends the attempts; what is known of the job until then is thrown. */
    private static void sleep(Duration pause, Deadline deadline, DocPreviewException known) {
        try {
            deadline.sleep(pause);
        } catch (InterruptedException interrupt) {
            Thread.currentThread().interrupt();
            throw known;
        }
    }
}
