package com.docpreview.client;

import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/** The pauses between attempts: from 0.2 to 10 seconds, growing, and different from one client to another. */
final class Pauses {
    private static final Duration LONGEST = Duration.ofSeconds(10);

    private Duration pause = Duration.ofMillis(200);

    /** The pause before the next attempt, never shorter than {@code error} asks for. */
    Duration next(DocPreviewException error) {
        Duration asked = error.retryDelay().orElse(Duration.ZERO);
        Duration longer = asked.compareTo(pause) > 0 ? asked : pause;
        Duration doubled = pause.multipliedBy(2);
        pause = doubled.compareTo(LONGEST) < 0 ? doubled : LONGEST;
        return Duration.ofNanos((long) (longer.toNanos() * ThreadLocalRandom.current().nextDouble(1.0, 1.3)));
    }
}
