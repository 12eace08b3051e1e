package com.docpreview.client;

import com.docpreview.client.DocPreviewException.Unavailable;
import com.docpreview.v1.BatchGetPreviewJobsRequest;
import com.docpreview.v1.BatchGetPreviewJobsResponse;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.GetPreviewJobRequest;
import com.docpreview.v1.GetUsageRequest;
import com.docpreview.v1.ListPreviewJobsRequest;
import com.docpreview.v1.ListPreviewJobsResponse;
import com.docpreview.v1.ListPreviewQueuesRequest;
import com.docpreview.v1.ListPreviewQueuesResponse;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewJobServiceGrpc;
import com.docpreview.v1.PreviewQueue;
import com.docpreview.v1.PreviewQueueServiceGrpc;
import com.docpreview.v1.Usage;
import com.docpreview.v1.UsageServiceGrpc;
import com.docpreview.v1.WaitPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobRequest;
import io.grpc.Channel;
import java.time.Duration;
import java.util.stream.Stream;

/**
 * Talks to one docpreview gateway (all its replicas).
 *
 * <p>Make one and share it: it serves any number of threads, and balances over all addresses of a {@code dns:///}
 * target. Every call has a deadline and throws {@link DocPreviewException}. Reads are repeated up to three times when
 * gateway or cloud are unavailable, creates only when they carry a {@code request_id}.
 */
public final class DocPreviewClient implements AutoCloseable {
    /** The gateway waits no longer in one call. */
    private static final Duration LONGEST_WAIT = Duration.ofMinutes(5);
    /** The gateway answers when its waiting time is over; this much longer the client listens for that answer. */
    private static final Duration WAIT_MARGIN = Duration.ofSeconds(10);

    private final Connection connection;
    private final Creates creates;
    private final Timeouts timeouts;
    private final Patience patience;

    DocPreviewClient(Connection connection, Timeouts timeouts, Patience patience) {
        this.connection = connection;
        this.creates = new Creates(connection);
        this.timeouts = timeouts;
        this.patience = patience;
    }

    /**
     * Settings of a new client.
     *
     * @param target {@code host:port}, or a target as gRPC resolves it: {@code dns:///host:port} (all addresses of the
     *     host are used in turn)
     */
    public static DocPreviewClientBuilder builder(String target) {
        return new DocPreviewClientBuilder(target);
    }

    /** As {@link #create(CreatePreviewJobRequest, Duration)}, within the client's {@code unaryTimeout}. */
    public PreviewJob create(CreatePreviewJobRequest request) {
        return create(request, timeouts.unary());
    }

    /**
     * Submits a job and returns it. Every create is billed, so it is made once; with a {@code request_id} up to five
     * times, within {@code timeout}, until its outcome is known.
     *
     * @throws DocPreviewException.OutcomeUnknown the job may or may not exist, also when the deadline passes or the
     *     connection breaks before the gateway has answered; with a {@code request_id} creating again is safe
     * @throws DocPreviewException.Unavailable nothing was accepted; creating again is safe
     */
    public PreviewJob create(CreatePreviewJobRequest request, Duration timeout) {
        return creates.create(request, Deadline.after(timeout));
    }

    /** As {@link #get(GetPreviewJobRequest, Duration)}, within the client's {@code unaryTimeout}. */
    public PreviewJob get(GetPreviewJobRequest request) {
        return get(request, timeouts.unary());
    }

    /**
     * Returns one job.
     *
     * @throws DocPreviewException.NotFound there is no such job in the bucket, or it is older than a month
     */
    public PreviewJob get(GetPreviewJobRequest request, Duration timeout) {
        return connection.read(PreviewJobServiceGrpc.getGetPreviewJobMethod(), request, Deadline.after(timeout));
    }

    /** As {@link #batchGet(BatchGetPreviewJobsRequest, Duration)}, within the client's {@code unaryTimeout}. */
    public BatchGetPreviewJobsResponse batchGet(BatchGetPreviewJobsRequest request) {
        return batchGet(request, timeouts.unary());
    }

    /** Returns 1 to 100 jobs in the order asked, and the ids that do not exist. */
    public BatchGetPreviewJobsResponse batchGet(BatchGetPreviewJobsRequest request, Duration timeout) {
        return connection.read(PreviewJobServiceGrpc.getBatchGetPreviewJobsMethod(), request, Deadline.after(timeout));
    }

    /** As {@link #listPage(ListPreviewJobsRequest, Duration)}, within the client's {@code unaryTimeout}. */
    public ListPreviewJobsResponse listPage(ListPreviewJobsRequest request) {
        return listPage(request, timeouts.unary());
    }

    /** Returns one page of the bucket's jobs; {@code next_page_token} of the answer leads to the next. */
    public ListPreviewJobsResponse listPage(ListPreviewJobsRequest request, Duration timeout) {
        return connection.read(PreviewJobServiceGrpc.getListPreviewJobsMethod(), request, Deadline.after(timeout));
    }

    /** As {@link #list(ListPreviewJobsRequest, Duration)}, each page within the client's {@code unaryTimeout}. */
    public Stream<PreviewJob> list(ListPreviewJobsRequest request) {
        return list(request, timeouts.unary());
    }

    /** All jobs from the page of {@code request} on. Pages are asked for as they are needed, each within {@code timeout}. */
    public Stream<PreviewJob> list(ListPreviewJobsRequest request, Duration timeout) {
        return Pages.from(
                request.getPageToken(),
                token -> listPage(request.toBuilder().setPageToken(token).build(), timeout),
                ListPreviewJobsResponse::getNextPageToken,
                ListPreviewJobsResponse::getJobsList);
    }

    /** As {@link #listQueues(ListPreviewQueuesRequest, Duration)}, each page within the client's {@code unaryTimeout}. */
    public Stream<PreviewQueue> listQueues(ListPreviewQueuesRequest request) {
        return listQueues(request, timeouts.unary());
    }

    /** The bucket's queues, page by page, each within {@code timeout}. */
    public Stream<PreviewQueue> listQueues(ListPreviewQueuesRequest request, Duration timeout) {
        return Pages.from(
                request.getPageToken(),
                token -> connection.read(
                        PreviewQueueServiceGrpc.getListPreviewQueuesMethod(),
                        request.toBuilder().setPageToken(token).build(),
                        Deadline.after(timeout)),
                ListPreviewQueuesResponse::getNextPageToken,
                ListPreviewQueuesResponse::getQueuesList);
    }

    /** As {@link #usage(Duration)}, within the client's {@code unaryTimeout}. */
    public Usage usage() {
        return usage(timeouts.unary());
    }

    /** What the caller has used up: the pages of this day and month (UTC), and what is left of its budgets. */
    public Usage usage(Duration timeout) {
        GetUsageRequest request = GetUsageRequest.getDefaultInstance();
        return connection.read(UsageServiceGrpc.getGetUsageMethod(), request, Deadline.after(timeout));
    }

    /**
     * Returns the job when its state is terminal, or as it is when the request's {@code timeout} has passed: look at
     * its state. That timeout may be of any length here; by default it is the client's {@code waitTimeout}.
     *
     * <p>Times when the gateway asks to come back later (it is stopping, or the cloud is away) are waited out, up to
     * the client's {@code unreachableTimeout}. An answer that is late is awaited 10 seconds longer.
     *
     * @throws DocPreviewException.Unavailable no gateway answers, or none any more
     * @throws DocPreviewException.DeadlineExceeded the time is up and the gateway has not said how the job is
     */
    public PreviewJob waitFor(WaitPreviewJobRequest request) {
        Deadline deadline = Deadline.after(request.hasTimeout() ? Wire.read(request.getTimeout()) : timeouts.waiting());
        Reconnecting reconnecting = new Reconnecting(connection, deadline, patience.unreachable());
        while (true) {
            try {
                PreviewJob job = waitOnce(request, deadline);
                if (Watch.TERMINAL_STATES.contains(job.getState()) || deadline.hasPassed()) {
                    return job;
                }
                reconnecting.heard();
            } catch (Unavailable error) {
                reconnecting.pauseAfter(error);
            }
        }
    }

    /** As {@link #watch(WatchPreviewJobRequest, Duration)}, within the client's {@code watchTimeout}. */
    public Watch watch(WatchPreviewJobRequest request) {
        return watch(request, timeouts.watch());
    }

    /**
     * Follows a job: as it is, then after every change, to its terminal state. Nothing is sent before the watch is
     * iterated; {@code timeout} counts from now, over all the streams that it takes.
     *
     * <p>Iterating throws {@link DocPreviewException.NotFound} when there is no such job, {@link
     * DocPreviewException.Unavailable} when no gateway answers, or none any more for longer than the client's {@code
     * unreachableTimeout}, and {@link DocPreviewException.DeadlineExceeded} when the time is up.
     */
    public Watch watch(WatchPreviewJobRequest request, Duration timeout) {
        return new Watch(connection, request, Deadline.after(timeout), patience);
    }

    /** As {@link #createAndWatch(CreatePreviewJobRequest, WatchOptions)}, without page addresses. */
    public Watch createAndWatch(CreatePreviewJobRequest request) {
        return createAndWatch(request, WatchOptions.defaults());
    }

    /** Creates a job as {@link #create(CreatePreviewJobRequest)} does, and follows it as {@link #watch} does. */
    public Watch createAndWatch(CreatePreviewJobRequest request, WatchOptions options) {
        PreviewJob created = create(request);
        WatchPreviewJobRequest.Builder watch =
                WatchPreviewJobRequest.newBuilder().setBucket(request.getBucket()).setJobId(created.getJobId());
        options.pageUrlTtl().ifPresent(ttl -> watch.setPageUrlTtl(Wire.of(ttl)));
        return watch(watch.build(), options.timeout().orElse(timeouts.watch())).startingWith(created);
    }

    /**
     * The channel with the client's token and interceptors, for the generated stubs (asynchronous ones, for example).
     * Give those calls a deadline of their own, and read their errors with {@link DocPreviewException#from}.
     */
    public Channel channel() {
        return connection.channel();
    }

    /** Closes the channel; calls in flight end. */
    @Override
    public void close() {
        connection.close();
    }

    private PreviewJob waitOnce(WaitPreviewJobRequest request, Deadline deadline) {
        Duration remaining = deadline.remaining();
        Duration part = remaining.compareTo(LONGEST_WAIT) < 0 ? remaining : LONGEST_WAIT;
        return connection.read(
                PreviewJobServiceGrpc.getWaitPreviewJobMethod(),
                request.toBuilder().setTimeout(Wire.of(part)).build(),
                Deadline.after(part.plus(WAIT_MARGIN)));
    }
}
