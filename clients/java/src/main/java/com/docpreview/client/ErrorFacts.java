package com.docpreview.client;

import java.time.Duration;
import java.util.List;
import java.util.Map;

/** What an error says beside code and message; whatever is not known is empty, an unknown delay is null. */
record ErrorFacts(
        String reason,
        Duration retryDelay,
        List<FieldViolation> fieldViolations,
        List<QuotaViolation> quotaViolations,
        Map<String, String> metadata,
        String requestId) {

    static final ErrorFacts NONE = new ErrorFacts("", null, List.of(), List.of(), Map.of(), "");
}
