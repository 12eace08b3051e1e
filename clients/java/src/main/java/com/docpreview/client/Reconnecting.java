package com.docpreview.client;

import com.docpreview.client.DocPreviewException.Unavailable;
import java.time.Duration;

/** Whether and when a call that the gateway broke off is made again: one watch or wait, over all its calls. */
final class Reconnecting {
    private final Deadline deadline;
    private final Duration patience;
    private Pauses pauses = new Pauses();
    private Deadline giveUp;
    private boolean everHeard;

    Reconnecting(Deadline deadline, Duration patience) {
        this.deadline = deadline;
        this.patience = patience;
    }

    /** Takes note that a message came: the gateway is there. */
    void heard() {
        everHeard = true;
        giveUp = null;
        pauses = new Pauses();
    }

    /**
     * The pause until the next attempt is due, or until the deadline.
     *
     * @throws Unavailable {@code error} itself, when no gateway has ever answered (a wrong address does not get
     *     better), or when none has for longer than the patience
     * @throws DocPreviewException.DeadlineExceeded the deadline has passed
     */
    Duration pauseAfter(Unavailable error) {
        everHeard = everHeard || !error.reason().isEmpty() || error.retryDelay().isPresent();
        if (!everHeard) {
            throw error;
        }
        giveUp = giveUp == null ? Deadline.after(patience) : giveUp;
        if (giveUp.hasPassed()) {
            throw error;
        }
        deadline.check();
        return deadline.atMost(pauses.next(error));
    }
}
