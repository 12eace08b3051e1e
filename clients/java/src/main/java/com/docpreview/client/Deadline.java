package com.docpreview.client;

import com.docpreview.client.DocPreviewException.DeadlineExceeded;
import io.grpc.CallOptions;
import io.grpc.Status;
import java.time.Duration;
import java.util.concurrent.TimeUnit;

/** A point in time by which a call of several attempts must be done, on a clock that cannot be set back. */
final class Deadline {
    private final long at;

    private Deadline(long at) {
        this.at = at;
    }

    /** The deadline that lies {@code timeout} ahead. */
    static Deadline after(Duration timeout) {
        return new Deadline(System.nanoTime() + saturatedNanos(timeout));
    }

    /** The time until the deadline; zero when it has passed. */
    Duration remaining() {
        return Duration.ofNanos(Math.max(0, at - System.nanoTime()));
    }

    boolean hasPassed() {
        return remaining().isZero();
    }

    /** Options of a gRPC call that ends at the deadline. */
    CallOptions callOptions() {
        return CallOptions.DEFAULT.withDeadlineAfter(remaining().toNanos(), TimeUnit.NANOSECONDS);
    }

    /**
     * Does nothing before the deadline.
     *
     * @throws DeadlineExceeded it has passed
     */
    void check() {
        if (hasPassed()) {
            throw new DeadlineExceeded("The deadline has passed.", Status.Code.DEADLINE_EXCEEDED, ErrorFacts.NONE, null);
        }
    }

    /** The shorter one of {@code length} and the time until the deadline. */
    Duration atMost(Duration length) {
        Duration left = remaining();
        return length.compareTo(left) < 0 ? length : left;
    }

    /** Half the range of the clock at most, so that no sum overflows: 146 years. */
    private static long saturatedNanos(Duration timeout) {
        Duration longest = Duration.ofNanos(Long.MAX_VALUE / 2);
        return timeout.compareTo(longest) < 0 ? timeout.toNanos() : longest.toNanos();
    }
}
