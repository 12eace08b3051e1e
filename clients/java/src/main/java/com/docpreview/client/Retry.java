package com.docpreview.client;

import com.docpreview.v1.ErrorReason;
import com.docpreview.v1.ErrorReasonOuterClass;
import io.grpc.Status;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;

/** What a program does after an error. */
public enum Retry {
    /**
     * The same call may succeed within the time that a program waits: repeat it after {@code retryDelay}, else after a
     * pause that grows. Creates with a {@code request_id} only.
     */
    NOW,
    /** The same call may succeed when a person or the next period has made room: do not wait for it. */
    LATER,
    /** The same call fails again until something else has changed. */
    NEVER;

    private static final String PREFIX = "ERROR_REASON_";
    private static final Map<String, Retry> BY_REASON = Arrays.stream(ErrorReason.values())
            .filter(reason -> reason != ErrorReason.UNRECOGNIZED)
            .collect(Collectors.toUnmodifiableMap(reason -> reason.name().substring(PREFIX.length()), Retry::of));
    private static final Set<Status.Code> NOW_BY_CODE =
            EnumSet.of(Status.Code.UNAVAILABLE, Status.Code.CANCELLED, Status.Code.DEADLINE_EXCEEDED);

    /** By the contract's option of the reason; by the code where no gateway answered. */
    static Retry of(String reason, Status.Code code) {
        if (reason.isEmpty()) {
            return NOW_BY_CODE.contains(code) ? NOW : NEVER;
        }
        return BY_REASON.getOrDefault(reason, NEVER);
    }

    /** By the contract's option of the reason. */
    static Retry of(ErrorReason reason) {
        if (reason == ErrorReason.UNRECOGNIZED) {
            return NEVER;
        }
        return switch (reason.getValueDescriptor().getOptions().getExtension(ErrorReasonOuterClass.retry)) {
            case RETRY_NOW -> NOW;
            case RETRY_LATER -> LATER;
            default -> NEVER;
        };
    }
}
