package com.docpreview.client;

import com.docpreview.client.DocPreviewException.Unavailable;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.WatchPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobResponse;
import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.Set;

/**
 * One job, followed until its terminal state: the job as it is, then every change.
 *
 * <p>A stream ends for reasons that have nothing to do with the job: the gateway is stopping, the stream has been open
 * for long, the connection broke. Since every stream begins with the present state, another is opened and nothing is
 * lost. Slow readers get the latest state, not a backlog.
 *
 * <p>It is iterated once, by one thread, and blocks until there is a change. Close it when you stop early: that ends
 * the stream at the gateway. The iterator throws {@link DocPreviewException}, and no more after that.
 */
public final class Watch implements Iterable<PreviewJob>, AutoCloseable {
    /** The states after which a job does not change. */
    public static final Set<PreviewJob.State> TERMINAL_STATES =
            Set.of(PreviewJob.State.STATE_SUCCESS, PreviewJob.State.STATE_FAILED, PreviewJob.State.STATE_CANCELLED);

    /** After the terminal state nothing but the end of the stream can come. */
    private static final Duration END_OF_STREAM_WITHIN = Duration.ofSeconds(1);

    private final Connection connection;
    private final WatchPreviewJobRequest request;
    private final Deadline deadline;
    private final Duration idle;
    private final Reconnecting reconnecting;
    private PreviewJob last = PreviewJob.getDefaultInstance();
    private PreviewJob coming;
    private WatchStream stream;
    private boolean ended;
    private boolean iterated;

    Watch(Connection connection, WatchPreviewJobRequest request, Deadline deadline, Patience patience) {
        this.connection = connection;
        this.request = request;
        this.deadline = deadline;
        this.idle = patience.idle();
        this.reconnecting = new Reconnecting(connection, deadline, patience.unreachable());
    }

    /** The same watch, which yields {@code created} before it asks the gateway, and after that only what differs. */
    Watch startingWith(PreviewJob created) {
        coming = created;
        last = created;
        return this;
    }

    @Override
    public Iterator<PreviewJob> iterator() {
        if (iterated) {
            throw new IllegalStateException("A watch can be iterated once.");
        }
        iterated = true;
        return new Jobs();
    }

    @Override
    public void close() {
        ended = true;
        dropStream();
    }

    private final class Jobs implements Iterator<PreviewJob> {
        @Override
        public boolean hasNext() {
            while (coming == null && !ended) {
                advance();
            }
            return coming != null;
        }

        @Override
        public PreviewJob next() {
            if (!hasNext()) {
                throw new NoSuchElementException();
            }
            PreviewJob job = coming;
            coming = null;
            return job;
        }
    }

    /** Takes one message, opening a stream when there is none. */
    private void advance() {
        try {
            take();
        } catch (Unavailable error) {
            dropStream();
            if (isOver()) {
                ended = true;
            } else {
                pauseAfter(error);
            }
        } catch (RuntimeException error) {
            close();
            throw error;
        }
    }

    private void take() {
        if (stream == null) {
            stream = new WatchStream(connection, request, deadline);
        }
        Optional<WatchPreviewJobResponse> message = stream.next(isOver() ? END_OF_STREAM_WITHIN : idle);
        if (message.isEmpty()) {
            close();
            return;
        }
        reconnecting.heard();
        PreviewJob job = message.get().getJob();
        if (message.get().hasJob() && !job.equals(last)) {
            last = job;
            coming = job;
        }
    }

    private void pauseAfter(Unavailable error) {
        try {
            reconnecting.pauseAfter(error);
        } catch (RuntimeException over) {
            ended = true;
            throw over;
        }
    }

    private void dropStream() {
        if (stream != null) {
            stream.close();
            stream = null;
        }
    }

    private boolean isOver() {
        return TERMINAL_STATES.contains(last.getState());
    }
}
