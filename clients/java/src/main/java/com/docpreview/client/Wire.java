package com.docpreview.client;

import com.google.protobuf.Duration;

/** Lengths of time on the wire. */
final class Wire {
    private Wire() {}

    static Duration of(java.time.Duration length) {
        return Duration.newBuilder()
                .setSeconds(length.getSeconds())
                .setNanos(length.getNano())
                .build();
    }

    static java.time.Duration read(Duration wire) {
        return java.time.Duration.ofSeconds(wire.getSeconds(), wire.getNanos());
    }
}
