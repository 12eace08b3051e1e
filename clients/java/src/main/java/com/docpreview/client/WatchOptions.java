package com.docpreview.client;

import java.time.Duration;
import java.util.Optional;

/**
 * How {@link DocPreviewClient#createAndWatch} watches.
 *
 * @param pageUrlTtl when present, each page comes with an address that is valid this long, 1 second to 1 hour
 * @param timeout how long to watch; empty: the client's {@code watchTimeout}
 */
public record WatchOptions(Optional<Duration> pageUrlTtl, Optional<Duration> timeout) {
    /** No page addresses, and the client's own timeout. */
    public static WatchOptions defaults() {
        return new WatchOptions(Optional.empty(), Optional.empty());
    }

    /** Pages come with addresses that are valid for {@code ttl}. */
    public WatchOptions withPageUrlTtl(Duration ttl) {
        return new WatchOptions(Optional.of(ttl), timeout);
    }

    /** Watches no longer than {@code longest}. */
    public WatchOptions withTimeout(Duration longest) {
        return new WatchOptions(pageUrlTtl, Optional.of(longest));
    }
}
