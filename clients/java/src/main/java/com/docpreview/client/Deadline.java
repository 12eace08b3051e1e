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
     * Sleeps for {@code pause}.
     *
     * @throws DeadlineExceeded at the deadline, when that comes first
     */
    void sleep(Duration pause) throws InterruptedException {
        Duration left = remaining();
        TimeUnit.NANOSECONDS.sleep(Math.min(pause.toNanos(), left.toNanos()));
        if (pause.compareTo(left) >= 0) {
            throw new DeadlineExceeded("The deadline has passed.", Status.Code.DEADLINE_EXCEEDED, ErrorFacts.NONE, null);
        }
    }

    /** Half the range of the clock at most, so that no sum overflows: 146 years. */
    private static long saturatedNanos(Duration timeout) {
        Duration longest = Duration.ofNanos(Long.MAX_VALUE / 2);
        return timeout.compareTo(longest) < 0 ? timeout.toNanos() : longest.toNanos();
    }
}
