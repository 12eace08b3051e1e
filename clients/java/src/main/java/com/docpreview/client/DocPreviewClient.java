package com.docpreview.client;

import com.docpreview.v1.BatchGetPreviewJobsRequest;
import com.docpreview.v1.BatchGetPreviewJobsResponse;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.GetPreviewJobRequest;
import com.docpreview.v1.ListPreviewJobsRequest;
import com.docpreview.v1.ListPreviewJobsResponse;
import com.docpreview.v1.ListPreviewQueuesRequest;
import com.docpreview.v1.ListPreviewQueuesResponse;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewQueue;
import com.docpreview.v1.UploadedObject;
import com.docpreview.v1.Usage;
import com.docpreview.v1.WaitPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobsRequest;
import io.grpc.Channel;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/**
 * Talks to one docpreview gateway (all its replicas).
 *
 * <p>Make one and share it: it serves any number of threads, and balances over all addresses of a {@code dns:///}
 * target. Its methods block; {@link #async} has them as futures. Every call has a deadline and throws {@link
 * DocPreviewException}. Reads are repeated up to three times when gateway or cloud are unavailable, creates until their
 * deadline.
 */
public final class DocPreviewClient implements AutoCloseable {
    private final Connections connections;
    private final AsyncDocPreviewClient async;

    DocPreviewClient(Connections connections, AsyncDocPreviewClient async) {
        this.connections = connections;
        this.async = async;
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

    /** The same client, with futures. */
    public AsyncDocPreviewClient async() {
        return async;
    }

    /** As {@link #preview(Path, CreatePreviewJobRequest, Path, TransferSettings)}, with all defaults. */
    public Preview preview(Path file, String bucket, Path directory) {
        CreatePreviewJobRequest request =
                CreatePreviewJobRequest.newBuilder().setBucket(bucket).build();
        return preview(file, request, directory, TransferSettings.defaults());
    }

    /**
     * From a file to its pages on disk: uploads it, creates the job, watches it to its end, downloads the pages. The
     * directory is made and checked before anything is sent. It can be repeated with the same {@code request_id} and the
     * same file, which gives the same job; with another content it is refused. Give an id of your own when the call may be
     * cancelled or the process may end: then it can be repeated without a second job.
     *
     * @param request the create. {@code input_object} names the uploaded object, by default {@code
     *     in/${UploadId}.<suffix of the file>}. {@code ${UploadId}} becomes 32 digits that follow from the {@code
     *     request_id} and the content, so that repeating finds what is there already, and never takes another content.
     *     A {@code request_id} is made where there is none, also with {@code repeatCreates(false)}. Without output the pages are {@code
     *     out/${RequestToken}/page-${Number}.jpg} in the bucket, of spreadsheets {@code
     *     out/${RequestToken}/sheet-${SheetID}/page-${Number}.jpg}
     * @param directory for this job's pages: those of an earlier job of this method are deleted when the new one is made
     * @throws DocPreviewException.PreviewUnfinished the job was made, and something failed after that, whatever it is
     * @throws DocPreviewException.OutcomeUnknown the job may have been made: repeat it with its {@code createId}
     * @throws DocPreviewException.InvalidRequest the file is empty or no regular file, the {@code request_id} is no UUID,
     *     the name of the directory is empty, or another download of this process goes there
     * @throws java.io.UncheckedIOException the file cannot be read, or the directory cannot be written
     * @throws DocPreviewException.PermissionDenied the gateway's policy does not let the caller upload this
     */
    public Preview preview(
            Path file, CreatePreviewJobRequest request, Path directory, TransferSettings settings) {
        return async.transfers().preview(file, request, directory, settings);
    }

    /** As {@link #upload(Path, String, String, TransferSettings)}, to an object that no other upload has. */
    public UploadedObject upload(Path file, String bucket) {
        return upload(file, bucket, Uploads.template(file), TransferSettings.defaults());
    }

    /**
     * Brings a file to a bucket, straight to the cloud: its content does not pass through the gateway. Large files go in
     * parts, four at a time; what fails is cleaned up.
     *
     * @param object key of the object; {@code ${UploadId}} in it is replaced by 32 random digits
     * @throws java.io.UncheckedIOException the file cannot be read
     * @throws DocPreviewException.InvalidRequest the file is empty, or no regular file
     * @throws DocPreviewException.Unavailable the cloud cannot be reached, or, after repeats, something on the way to it,
     *     such as a proxy, has answered to a part
     * @throws DocPreviewException.FailedPrecondition the file has changed while it was uploaded
     * @throws DocPreviewException.PermissionDenied the gateway's policy does not let the caller upload this
     */
    public UploadedObject upload(Path file, String bucket, String object, TransferSettings settings) {
        return async.transfers().upload(file, bucket, object, settings);
    }

    /** As {@link #download(PreviewJob, Path, TransferSettings)}, with all defaults. */
    public List<Path> download(PreviewJob job, Path directory) {
        return download(job, directory, TransferSettings.defaults());
    }

    /**
     * Brings the pages of a job to a directory, several at a time, and returns them in order. Their names sort: {@code
     * page-0001.jpg}, of spreadsheets {@code sheet-01-page-001.jpg}, of a PDF {@code document.pdf}. A download that
     * broke off goes on where it ended; pages of another job that an earlier download brought here are deleted. Only one
     * download at a time may go to a directory.
     *
     * @param job in {@code STATE_SUCCESS}; with or without addresses of pages, which are asked for when they are missing
     *     or have expired
     * @throws java.io.UncheckedIOException the directory or a page cannot be written
     * @throws DocPreviewException.InvalidRequest another download of this process goes to the directory, or its name is
     *     empty
     * @throws DocPreviewException.FailedPrecondition the job has not succeeded
     * @throws DocPreviewException.Unavailable the cloud cannot be reached, or, after repeats, something on the way to it,
     *     such as a proxy, has answered with what is no page: it is empty, of another content type, or longer than it
     *     says (than 1 GiB, where it does not)
     */
    public List<Path> download(PreviewJob job, Path directory, TransferSettings settings) {
        return async.transfers().download(job, directory, settings);
    }

    /** As {@link #create(CreatePreviewJobRequest, CallSettings)}, with all defaults. */
    public PreviewJob create(CreatePreviewJobRequest request) {
        return create(request, CallSettings.defaults());
    }

    /**
     * Submits a job and returns it. Every create is billed, and with a {@code request_id} any number of attempts makes one
     * job. So the client makes an id where the request has none, and repeats the create until the deadline while that
     * can help; {@link DocPreviewClientBuilder#repeatCreates} switches it off.
     *
     * @throws DocPreviewException.OutcomeUnknown the job may or may not exist, also when the deadline passes or the
     *     connection breaks before the gateway has answered; with a {@code request_id} of your own creating again is safe
     * @throws DocPreviewException.Unavailable nothing was accepted; creating again is safe
     */
    public PreviewJob create(CreatePreviewJobRequest request, CallSettings settings) {
        return Futures.await(async.create(request, settings));
    }

    /** As {@link #get(GetPreviewJobRequest, CallSettings)}, with all defaults. */
    public PreviewJob get(GetPreviewJobRequest request) {
        return get(request, CallSettings.defaults());
    }

    /**
     * Returns one job.
     *
     * @throws DocPreviewException.NotFound there is no such job in the bucket, or it is older than a month
     */
    public PreviewJob get(GetPreviewJobRequest request, CallSettings settings) {
        return Futures.await(async.get(request, settings));
    }

    /** As {@link #batchGet(BatchGetPreviewJobsRequest, CallSettings)}, with all defaults. */
    public BatchGetPreviewJobsResponse batchGet(BatchGetPreviewJobsRequest request) {
        return batchGet(request, CallSettings.defaults());
    }

    /** Returns 1 to 100 jobs in the order asked, and the ids that do not exist. */
    public BatchGetPreviewJobsResponse batchGet(BatchGetPreviewJobsRequest request, CallSettings settings) {
        return Futures.await(async.batchGet(request, settings));
    }

    /** As {@link #listPage(ListPreviewJobsRequest, CallSettings)}, with all defaults. */
    public ListPreviewJobsResponse listPage(ListPreviewJobsRequest request) {
        return listPage(request, CallSettings.defaults());
    }

    /**
     * Returns one page of the bucket's jobs, 100 unless the request says how many; {@code next_page_token} of the answer
     * leads to the next.
     */
    public ListPreviewJobsResponse listPage(ListPreviewJobsRequest request, CallSettings settings) {
        return Futures.await(async.listPage(request, settings));
    }

    /** As {@link #list(ListPreviewJobsRequest, CallSettings)}, with all defaults. */
    public Stream<PreviewJob> list(ListPreviewJobsRequest request) {
        return list(request, CallSettings.defaults());
    }

    /** All jobs from the page of {@code request} on. Pages are asked for as they are needed, each with these settings. */
    public Stream<PreviewJob> list(ListPreviewJobsRequest request, CallSettings settings) {
        return Pages.from(
                request.getPageToken(),
                token -> listPage(request.toBuilder().setPageToken(token).build(), settings),
                ListPreviewJobsResponse::getNextPageToken,
                ListPreviewJobsResponse::getJobsList);
    }

    /** As {@link #listQueuesPage(ListPreviewQueuesRequest, CallSettings)}, with all defaults. */
    public ListPreviewQueuesResponse listQueuesPage(ListPreviewQueuesRequest request) {
        return listQueuesPage(request, CallSettings.defaults());
    }

    /** Returns one page of the bucket's queues, as {@link #listPage(ListPreviewJobsRequest, CallSettings)} of the jobs. */
    public ListPreviewQueuesResponse listQueuesPage(ListPreviewQueuesRequest request, CallSettings settings) {
        return Futures.await(async.listQueuesPage(request, settings));
    }

    /** As {@link #listQueues(ListPreviewQueuesRequest, CallSettings)}, with all defaults. */
    public Stream<PreviewQueue> listQueues(ListPreviewQueuesRequest request) {
        return listQueues(request, CallSettings.defaults());
    }

    /** The bucket's queues, page by page, each with these settings. */
    public Stream<PreviewQueue> listQueues(ListPreviewQueuesRequest request, CallSettings settings) {
        return Pages.from(
                request.getPageToken(),
                token -> listQueuesPage(request.toBuilder().setPageToken(token).build(), settings),
                ListPreviewQueuesResponse::getNextPageToken,
                ListPreviewQueuesResponse::getQueuesList);
    }

    /** As {@link #usage(CallSettings)}, with all defaults. */
    public Usage usage() {
        return usage(CallSettings.defaults());
    }

    /** What the caller has used up: the pages of this day and month (UTC), and what is left of its budgets. */
    public Usage usage(CallSettings settings) {
        return Futures.await(async.usage(settings));
    }

    /** As {@link #waitFor(WaitPreviewJobRequest, CallSettings)}, with all defaults. */
    public PreviewJob waitFor(WaitPreviewJobRequest request) {
        return waitFor(request, CallSettings.defaults());
    }

    /**
     * Returns the job when its state is terminal, or as it is when the time is up: look at its state. The time is that
     * of the settings, else the request's {@code timeout}, which may be of any length here, else the client's {@code
     * waitTimeout}.
     *
     * <p>Times when the gateway asks to come back later (it is stopping, or the cloud is away) are waited out, up to
     * the client's {@code unreachableTimeout}. An answer that is late is awaited 10 seconds longer.
     *
     * @throws DocPreviewException.Unavailable no gateway answers, or none any more
     * @throws DocPreviewException.DeadlineExceeded the time is up and the gateway has not said how the job is
     */
    public PreviewJob waitFor(WaitPreviewJobRequest request, CallSettings settings) {
        return Futures.await(async.waitFor(request, settings));
    }

    /** As {@link #watch(WatchPreviewJobRequest, CallSettings)}, within the client's {@code watchTimeout}. */
    public Watch<PreviewJob> watch(WatchPreviewJobRequest request) {
        return watch(request, CallSettings.defaults());
    }

    /**
     * Follows a job: as it is, then after every change, to its terminal state. Nothing is sent before the watch is
     * iterated; the time counts from now, over all the streams that it takes. Any number of watches leaves other calls
     * alone: they have connections of their own.
     *
     * <p>Iterating throws {@link DocPreviewException.NotFound} when there is no such job, {@link
     * DocPreviewException.Unavailable} when no gateway answers, or none any more for longer than the client's {@code
     * unreachableTimeout}, and {@link DocPreviewException.DeadlineExceeded} when the time is up.
     */
    public Watch<PreviewJob> watch(WatchPreviewJobRequest request, CallSettings settings) {
        return async.blockingWatch(request, null, settings);
    }

    /** As {@link #watchMany(WatchPreviewJobsRequest, CallSettings)}, within the client's {@code watchTimeout}. */
    public Watch<WatchEvent> watchMany(WatchPreviewJobsRequest request) {
        return watchMany(request, CallSettings.defaults());
    }

    /**
     * Follows many jobs of a bucket, each as {@link #watch} does, in one stream for 1,000 of them. It ends when each has
     * ended or failed to be followed. An id that is given twice is followed once.
     */
    public Watch<WatchEvent> watchMany(WatchPreviewJobsRequest request, CallSettings settings) {
        return async.blockingWatchMany(request, settings);
    }

    /** As {@link #createAndWatch(CreatePreviewJobRequest, WatchOptions)}, without page addresses. */
    public Watch<PreviewJob> createAndWatch(CreatePreviewJobRequest request) {
        return createAndWatch(request, WatchOptions.defaults());
    }

    /** Creates a job as {@link #create(CreatePreviewJobRequest)} does, and follows it as {@link #watch} does. */
    public Watch<PreviewJob> createAndWatch(CreatePreviewJobRequest request, WatchOptions options) {
        PreviewJob created = create(request);
        WatchPreviewJobRequest.Builder watch =
                WatchPreviewJobRequest.newBuilder().setBucket(request.getBucket()).setJobId(created.getJobId());
        options.pageUrlTtl().ifPresent(ttl -> watch.setPageUrlTtl(Wire.of(ttl)));
        CallSettings defaults = CallSettings.defaults();
        CallSettings settings = options.timeout().map(defaults::withTimeout).orElse(defaults);
        return async.blockingWatch(watch.build(), created, settings);
    }

    /**
     * The channel of short calls with the client's token and interceptors, for the generated stubs. Give those calls a
     * deadline of their own, and read their errors with {@link DocPreviewException#from}. Watches belong on the client's
     * own: on one connection the gateway admits 100 streams.
     */
    public Channel channel() {
        return connections.calls().channel();
    }

    /** Closes the connections; calls in flight end. */
    @Override
    public void close() {
        connections.close();
    }
}
