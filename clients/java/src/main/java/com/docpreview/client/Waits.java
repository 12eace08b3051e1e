package com.docpreview.client;

import com.docpreview.client.DocPreviewException.Unavailable;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewJobServiceGrpc;
import com.docpreview.v1.WaitPreviewJobRequest;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;

/** Waits of any length, made of the gateway's. */
final class Waits {
    /** The gateway waits no longer in one call. */
    private static final Duration LONGEST = Duration.ofMinutes(5);
    /** The gateway answers when its waiting time is over; this much longer the client listens for that answer. */
    private static final Duration MARGIN = Duration.ofSeconds(10);

    private final Connections connections;
    private final Patience patience;

    Waits(Connections connections, Patience patience) {
        this.connections = connections;
        this.patience = patience;
    }

    CompletableFuture<PreviewJob> waitFor(WaitPreviewJobRequest request, Deadline deadline, CallSettings settings) {
        Reconnecting reconnecting = new Reconnecting(deadline, patience.unreachable());
        return Repeated.of(connections, () -> attempt(request, deadline, settings), (job, error) -> {
            if (error instanceof Unavailable away) {
                return Optional.of(reconnecting.pauseAfter(away));
            }
            if (error != null) {
                throw error;
            }
            reconnecting.heard();
            boolean ended = Watch.TERMINAL_STATES.contains(job.getState()) || deadline.hasPassed();
            return ended ? Optional.empty() : Optional.of(Duration.ZERO);
        });
    }

    private CompletableFuture<PreviewJob> attempt(
            WaitPreviewJobRequest request, Deadline deadline, CallSettings settings) {
        Duration part = deadline.atMost(LONGEST);
        Connections.Lease lease = connections.lease();
        CompletableFuture<PreviewJob> answer = lease.connection()
                .read(
                        PreviewJobServiceGrpc.getWaitPreviewJobMethod(),
                        request.toBuilder().setTimeout(Wire.of(part)).build(),
                        Deadline.after(part.plus(MARGIN)),
                        settings);
        answer.whenComplete((job, error) -> lease.close());
        return answer;
    }
}
