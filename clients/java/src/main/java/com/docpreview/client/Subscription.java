package com.docpreview.client;

import com.docpreview.client.DocPreviewException.Unavailable;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;

/**
 * A feed, followed over as many streams as it takes: one that breaks off, or on which nothing comes for long, is
 * replaced. An event is given when it was asked for, and one at a time, so that slow readers get the latest state.
 */
final class Subscription<Q, M, E> {
    /** After the last event nothing but the end of the stream can come. */
    private static final Duration END_OF_STREAM_WITHIN = Duration.ofSeconds(1);

    /** Who gets the events. */
    interface Sink<E> {
        /** The event that was asked for. */
        void event(Subscription<?, ?, E> from, E event);

        /** Nothing more comes; {@code error} is null when the feed is over. */
        void end(Subscription<?, ?, E> from, DocPreviewException error);
    }

    private final Connections connections;
    private final Feed<Q, M, E> feed;
    private final Deadline deadline;
    private final Duration idle;
    private final Reconnecting reconnecting;
    private final CallSettings settings;
    private final Sink<E> sink;
    private Stream stream;
    private Connections.Delayed delayed;
    private boolean asked;
    private boolean pausing;
    private boolean ended;
    private E given;
    private DocPreviewException failure;

    Subscription(
            Connections connections,
            Feed<Q, M, E> feed,
            Deadline deadline,
            Patience patience,
            CallSettings settings,
            Sink<E> sink) {
        this.connections = connections;
        this.feed = feed;
        this.deadline = deadline;
        this.idle = patience.idle();
        this.reconnecting = new Reconnecting(deadline, patience.unreachable());
        this.settings = settings;
        this.sink = sink;
    }

    /** Asks for the next event; the sink gets it, or the end. */
    void more() {
        attempt(() -> {
            asked = true;
            if (stream != null) {
                stream.request();
            } else if (feed.isOver()) {
                end(null);
            } else if (!pausing) {
                open();
            }
        });
    }

    /** Ends the stream; the sink hears nothing more. */
    synchronized void close() {
        ended = true;
        drop();
    }

    private void open() {
        pausing = false;
        stream = new Stream(connections.lease());
        stream.begin();
    }

    private void drop() {
        if (delayed != null) {
            delayed.cancel();
            delayed = null;
        }
        if (stream != null) {
            Stream dropped = stream;
            stream = null;
            dropped.drop();
        }
    }

    private void awaitMessage() {
        Duration patient = feed.isOver() ? END_OF_STREAM_WITHIN : idle;
        delayed = connections.later(patient, () -> attempt(() -> broken(new Unavailable(
                "Nothing came from the gateway for " + patient.toSeconds() + " seconds.",
                Status.Code.UNAVAILABLE,
                ErrorFacts.NONE,
                null))));
    }

    /** Another stream, unless the feed is over. */
    private void broken(Unavailable error) {
        drop();
        if (feed.isOver()) {
            end(null);
            return;
        }
        Duration pause = reconnecting.pauseAfter(error);
        pausing = true;
        delayed = connections.later(pause, () -> attempt(this::open));
    }

    private void end(DocPreviewException error) {
        ended = true;
        failure = error;
        drop();
    }

    /** Does a step under the lock; its failure is the end. The sink is told without the lock: it is the caller's code. */
    private void attempt(Runnable step) {
        E event;
        boolean over;
        synchronized (this) {
            if (ended) {
                return;
            }
            try {
                step.run();
            } catch (DocPreviewException failed) {
                end(failed);
            }
            event = given;
            given = null;
            over = ended;
        }
        if (event != null) {
            sink.event(this, event);
        }
        if (over) {
            sink.end(this, failure);
        }
    }

    private final class Stream extends ClientCall.Listener<M> {
        private final Connections.Lease lease;
        private ClientCall<Q, M> call;
        private Metadata headers = new Metadata();

        Stream(Connections.Lease lease) {
            this.lease = lease;
        }

        void begin() {
            try {
                call = lease.connection()
                        .start(feed.method(), feed.request(), deadline.callOptions(), settings, this, 0);
            } catch (RuntimeException failed) { // of an interceptor
                throw Errors.unexpected(failed);
            }
            if (asked) {
                request();
            }
        }

        void request() {
            call.request(1);
            awaitMessage();
        }

        void drop() {
            if (call != null) {
                call.cancel("The watch is over.", null);
            }
            lease.close();
        }

        @Override
        public void onHeaders(Metadata received) {
            headers = received;
        }

        @Override
        public void onMessage(M message) {
            attempt(() -> {
                if (stream == this) {
                    take(message);
                }
            });
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            attempt(() -> {
                if (stream == this) {
                    closed(status, trailers);
                }
            });
        }

        private void take(M message) {
            delayed.cancel();
            reconnecting.heard();
            given = feed.take(message).orElse(null);
            asked = given == null;
            if (asked) {
                request();
            }
        }

        private void closed(Status status, Metadata trailers) {
            try {
                settings.replied(headers, trailers);
            } catch (RuntimeException failed) { // of the caller's receiver
                throw Errors.unexpected(failed);
            }
            if (status.isOk()) {
                end(null);
                return;
            }
            DocPreviewException error = Errors.ofRead(status.asRuntimeException(trailers));
            if (error instanceof Unavailable away) {
                lease.connection().connectNow();
                broken(away);
            } else {
                end(error);
            }
        }
    }
}
