package com.docpreview.client;

import com.docpreview.client.DocPreviewException.Unavailable;
import com.docpreview.v1.PreviewJobServiceGrpc;
import com.docpreview.v1.WatchPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobResponse;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** One stream of messages, heartbeats included, read by one thread: the next is asked for when one was taken. */
final class WatchStream implements AutoCloseable {
    private sealed interface Event permits Message, End {}

    private record Message(WatchPreviewJobResponse content) implements Event {}

    private record End(Status status, Metadata trailers) implements Event {}

    private final BlockingQueue<Event> events = new LinkedBlockingQueue<>();
    private final ClientCall<WatchPreviewJobRequest, WatchPreviewJobResponse> call;

    WatchStream(Connection connection, WatchPreviewJobRequest request, Deadline deadline) {
        call = connection.channel()
                .newCall(PreviewJobServiceGrpc.getWatchPreviewJobMethod(), deadline.callOptions());
        call.start(new Listener(), new Metadata());
        call.request(1);
        call.sendMessage(request);
        call.halfClose();
    }

    /**
     * The next message; empty at the end of the stream.
     *
     * @throws Unavailable when nothing comes for {@code idle}
     */
    Optional<WatchPreviewJobResponse> next(Duration idle) {
        Event event = poll(idle);
        if (event instanceof Message message) {
            call.request(1);
            return Optional.of(message.content());
        }
        if (event instanceof End end) {
            if (end.status().isOk()) {
                return Optional.empty();
            }
            throw Errors.ofRead(end.status().asRuntimeException(end.trailers()));
        }
        throw new Unavailable(
                "Nothing came from the gateway for " + idle.toSeconds() + " seconds.",
                Status.Code.UNAVAILABLE,
                ErrorFacts.NONE,
                null);
    }

    @Override
    public void close() {
        call.cancel("The watch is over.", null);
    }

    private Event poll(Duration idle) {
        try {
            return events.poll(idle.toNanos(), TimeUnit.NANOSECONDS);
        } catch (InterruptedException interrupt) {
            throw Errors.interrupted(interrupt);
        }
    }

    private final class Listener extends ClientCall.Listener<WatchPreviewJobResponse> {
        @Override
        public void onMessage(WatchPreviewJobResponse message) {
            events.add(new Message(message));
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            events.add(new End(status, trailers));
        }
    }
}
