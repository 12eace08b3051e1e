package com.docpreview.client;

import com.docpreview.v1.PreviewJob;
import java.time.Duration;
import java.util.Objects;
import java.util.function.Consumer;

/**
 * What can be chosen for uploads, downloads and previews.
 *
 * @param contentType MIME type of an uploaded file; empty: the one of its name
 * @param parallel pages that are downloaded concurrently, 1 to 64. Default 8
 * @param pageUrlTtl how long addresses of pages are valid, 1 second to 1 hour. Default 15 minutes
 * @param timeout how long all of it may take. Default 1 hour
 * @param onJob gets the job of a preview after each change
 * @param onProgress gets the progress of a download after each page, one after the other
 */
public record TransferSettings(
        String contentType,
        int parallel,
        Duration pageUrlTtl,
        Duration timeout,
        Consumer<? super PreviewJob> onJob,
        Consumer<? super DownloadProgress> onProgress) {
    private static final int MOST_PARALLEL = 64;
    private static final Duration SHORTEST_TTL = Duration.ofSeconds(1);
    private static final Duration LONGEST_TTL = Duration.ofHours(1);
    private static final TransferSettings DEFAULTS =
            new TransferSettings("", 8, Duration.ofMinutes(15), Duration.ofHours(1), job -> {}, progress -> {});

    /**
     * Checks the numbers.
     *
     * @throws IllegalArgumentException a number is out of its range
     */
    public TransferSettings {
        Objects.requireNonNull(contentType, "contentType");
        Objects.requireNonNull(pageUrlTtl, "pageUrlTtl");
        Objects.requireNonNull(timeout, "timeout");
        Objects.requireNonNull(onJob, "onJob");
        Objects.requireNonNull(onProgress, "onProgress");
        if (parallel < 1 || parallel > MOST_PARALLEL) {
            throw new IllegalArgumentException("parallel must be 1 to " + MOST_PARALLEL + ", not " + parallel);
        }
        if (pageUrlTtl.compareTo(SHORTEST_TTL) < 0 || pageUrlTtl.compareTo(LONGEST_TTL) > 0) {
            throw new IllegalArgumentException("pageUrlTtl must be 1 second to 1 hour, not " + pageUrlTtl);
        }
    }

    /** All defaults. */
    public static TransferSettings defaults() {
        return DEFAULTS;
    }

    /** Uploads with this MIME type. */
    public TransferSettings withContentType(String type) {
        return new TransferSettings(type, parallel, pageUrlTtl, timeout, onJob, onProgress);
    }

    /** Downloads so many pages concurrently. */
    public TransferSettings withParallel(int pages) {
        return new TransferSettings(contentType, pages, pageUrlTtl, timeout, onJob, onProgress);
    }

    /** Asks for addresses that are valid this long. */
    public TransferSettings withPageUrlTtl(Duration ttl) {
        return new TransferSettings(contentType, parallel, ttl, timeout, onJob, onProgress);
    }

    /** Ends all of it after {@code longest}. */
    public TransferSettings withTimeout(Duration longest) {
        return new TransferSettings(contentType, parallel, pageUrlTtl, longest, onJob, onProgress);
    }

    /** Tells {@code receiver} of each change of a preview's job. */
    public TransferSettings withJobs(Consumer<? super PreviewJob> receiver) {
        return new TransferSettings(contentType, parallel, pageUrlTtl, timeout, receiver, onProgress);
    }

    /** Tells {@code receiver} of each page on disk. */
    public TransferSettings withProgress(Consumer<? super DownloadProgress> receiver) {
        return new TransferSettings(contentType, parallel, pageUrlTtl, timeout, onJob, receiver);
    }
}
