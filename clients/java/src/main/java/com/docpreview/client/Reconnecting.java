package com.docpreview.client;

import com.docpreview.client.DocPreviewException.Unavailable;
import java.time.Duration;

/** Whether and when a call that the gateway broke off is made again: one watch or wait, over all its calls. */
final class Reconnecting {
    private final Connection connection;
    private final Deadline deadline;
    private final Duration patience;
    private Pauses pauses = new Pauses();
    private Deadline giveUp;
    private boolean everHeard;

    Reconnecting(Connection connection, Deadline deadline, Duration patience) {
        this.connection = connection;
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
     * Sleeps until the next attempt is due.
     *
     * @throws Unavailable {@code error} itself, when no gateway has ever answered (a wrong address does not get
     *     better), or when none has for longer than the patience
     */
    void pauseAfter(Unavailable error) {
        everHeard = everHeard || !error.reason().isEmpty() || error.retryDelay().isPresent();
        if (!everHeard) {
            throw error;
        }
        giveUp = giveUp == null ? Deadline.after(patience) : giveUp;
        if (giveUp.hasPassed()) {
            throw error;
        }
        try {
            deadline.sleep(pauses.next(error));
        } catch (InterruptedException interrupt) {
            throw Errors.interrupted(interrupt);
        }
        connection.connectNow();
    }
}
