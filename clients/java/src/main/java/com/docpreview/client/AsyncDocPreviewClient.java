package com.docpreview.client;

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
import com.docpreview.v1.PreviewQueueServiceGrpc;
import com.docpreview.v1.UploadedObject;
import com.docpreview.v1.Usage;
import com.docpreview.v1.UsageServiceGrpc;
import com.docpreview.v1.WaitPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobsRequest;
import io.grpc.MethodDescriptor;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.function.Consumer;

/**
 * The calls of {@link DocPreviewClient} as futures, of the same client: {@link DocPreviewClient#async}. What is not said
 * here is as there.
 *
 * <p>A future fails with a {@link DocPreviewException}. Cancelling one of these futures (not one that was made from it,
 * such as by {@code thenApply}) cancels the call. No call but uploads and downloads takes a thread while it waits.
 */
public final class AsyncDocPreviewClient {
    /** The largest that the gateway gives. */
    private static final int PAGE_SIZE = 100;

    private final Connections connections;
    private final Creates creates;
    private final Waits waits;
    private final Timeouts timeouts;
    private final Patience patience;
    private final Transfers transfers;

    AsyncDocPreviewClient(
            Connections connections, Creates creates, Timeouts timeouts, Patience patience, Store store) {
        this.connections = connections;
        this.creates = creates;
        this.waits = new Waits(connections, patience);
        this.timeouts = timeouts;
        this.patience = patience;
        this.transfers = new Transfers(this, store);
    }

    /** As {@link DocPreviewClient#create(CreatePreviewJobRequest)}. */
    public CompletableFuture<PreviewJob> create(CreatePreviewJobRequest request) {
        return create(request, CallSettings.defaults());
    }

    /** As {@link DocPreviewClient#create(CreatePreviewJobRequest, CallSettings)}. */
    public CompletableFuture<PreviewJob> create(CreatePreviewJobRequest request, CallSettings settings) {
        return creates.create(request, deadline(settings, timeouts.unary()), settings);
    }

    /** As {@link DocPreviewClient#get(GetPreviewJobRequest)}. */
    public CompletableFuture<PreviewJob> get(GetPreviewJobRequest request) {
        return get(request, CallSettings.defaults());
    }

    /** As {@link DocPreviewClient#get(GetPreviewJobRequest, CallSettings)}. */
    public CompletableFuture<PreviewJob> get(GetPreviewJobRequest request, CallSettings settings) {
        return read(PreviewJobServiceGrpc.getGetPreviewJobMethod(), request, settings);
    }

    /** As {@link DocPreviewClient#batchGet(BatchGetPreviewJobsRequest)}. */
    public CompletableFuture<BatchGetPreviewJobsResponse> batchGet(BatchGetPreviewJobsRequest request) {
        return batchGet(request, CallSettings.defaults());
    }

    /** As {@link DocPreviewClient#batchGet(BatchGetPreviewJobsRequest, CallSettings)}. */
    public CompletableFuture<BatchGetPreviewJobsResponse> batchGet(
            BatchGetPreviewJobsRequest request, CallSettings settings) {
        return read(PreviewJobServiceGrpc.getBatchGetPreviewJobsMethod(), request, settings);
    }

    /** As {@link DocPreviewClient#listPage(ListPreviewJobsRequest)}. */
    public CompletableFuture<ListPreviewJobsResponse> listPage(ListPreviewJobsRequest request) {
        return listPage(request, CallSettings.defaults());
    }

    /** As {@link DocPreviewClient#listPage(ListPreviewJobsRequest, CallSettings)}. */
    public CompletableFuture<ListPreviewJobsResponse> listPage(ListPreviewJobsRequest request, CallSettings settings) {
        ListPreviewJobsRequest sized =
                request.getPageSize() == 0 ? request.toBuilder().setPageSize(PAGE_SIZE).build() : request;
        return read(PreviewJobServiceGrpc.getListPreviewJobsMethod(), sized, settings);
    }

    /** As {@link DocPreviewClient#listQueuesPage(ListPreviewQueuesRequest)}. */
    public CompletableFuture<ListPreviewQueuesResponse> listQueuesPage(ListPreviewQueuesRequest request) {
        return listQueuesPage(request, CallSettings.defaults());
    }

    /** As {@link DocPreviewClient#listQueuesPage(ListPreviewQueuesRequest, CallSettings)}. */
    public CompletableFuture<ListPreviewQueuesResponse> listQueuesPage(
            ListPreviewQueuesRequest request, CallSettings settings) {
        ListPreviewQueuesRequest sized =
                request.getPageSize() == 0 ? request.toBuilder().setPageSize(PAGE_SIZE).build() : request;
        return read(PreviewQueueServiceGrpc.getListPreviewQueuesMethod(), sized, settings);
    }

    /** As {@link DocPreviewClient#usage()}. */
    public CompletableFuture<Usage> usage() {
        return usage(CallSettings.defaults());
    }

    /** As {@link DocPreviewClient#usage(CallSettings)}. */
    public CompletableFuture<Usage> usage(CallSettings settings) {
        return read(UsageServiceGrpc.getGetUsageMethod(), GetUsageRequest.getDefaultInstance(), settings);
    }

    /** As {@link DocPreviewClient#waitFor(WaitPreviewJobRequest)}. */
    public CompletableFuture<PreviewJob> waitFor(WaitPreviewJobRequest request) {
        return waitFor(request, CallSettings.defaults());
    }

    /** As {@link DocPreviewClient#waitFor(WaitPreviewJobRequest, CallSettings)}. */
    public CompletableFuture<PreviewJob> waitFor(WaitPreviewJobRequest request, CallSettings settings) {
        Duration usual = request.hasTimeout() ? Wire.read(request.getTimeout()) : timeouts.waiting();
        return waits.waitFor(request, deadline(settings, usual), settings);
    }

    /** As {@link #watch(WatchPreviewJobRequest, CallSettings, Consumer)}, within the client's {@code watchTimeout}. */
    public CompletableFuture<PreviewJob> watch(WatchPreviewJobRequest request, Consumer<? super PreviewJob> onChange) {
        return watch(request, CallSettings.defaults(), onChange);
    }

    /**
     * Follows a job as {@link DocPreviewClient#watch} does.
     *
     * @param onChange gets the job as it is and after each change, one after the other, on threads of gRPC; what it
     *     throws ends the watch
     * @return the job when its state is terminal
     */
    public CompletableFuture<PreviewJob> watch(
            WatchPreviewJobRequest request, CallSettings settings, Consumer<? super PreviewJob> onChange) {
        Deadline deadline = deadline(settings, timeouts.watch());
        PreviewJob nothing = PreviewJob.getDefaultInstance();
        return Watching.<PreviewJob, PreviewJob>of(onChange, job -> job, sink -> List.of(subscription(
                new Feed.OneJob(request, nothing), deadline, settings, sink)));
    }

    /** As {@link #watchMany(WatchPreviewJobsRequest, CallSettings, Consumer)}, within the client's {@code watchTimeout}. */
    public CompletableFuture<Void> watchMany(WatchPreviewJobsRequest request, Consumer<? super WatchEvent> onEvent) {
        return watchMany(request, CallSettings.defaults(), onEvent);
    }

    /**
     * Follows many jobs as {@link DocPreviewClient#watchMany} does.
     *
     * @param onEvent gets each event, one after the other, on threads of gRPC; what it throws ends the watch
     * @return done when each job has ended or failed to be followed
     */
    public CompletableFuture<Void> watchMany(
            WatchPreviewJobsRequest request, CallSettings settings, Consumer<? super WatchEvent> onEvent) {
        Deadline deadline = deadline(settings, timeouts.watch());
        return Watching.<WatchEvent, Void>of(onEvent, event -> null, sink -> subscriptions(request, deadline, settings, sink));
    }

    /** As {@link DocPreviewClient#upload(Path, String, String, TransferSettings)}. */
    public CompletableFuture<UploadedObject> upload(
            Path file, String bucket, String object, TransferSettings settings) {
        return onThread(() -> transfers.upload(file, bucket, object, settings));
    }

    /** As {@link DocPreviewClient#download(PreviewJob, Path, TransferSettings)}. */
    public CompletableFuture<List<Path>> download(PreviewJob job, Path directory, TransferSettings settings) {
        return onThread(() -> transfers.download(job, directory, settings));
    }

    /**
     * As {@link DocPreviewClient#preview(Path, CreatePreviewJobRequest, Path, TransferSettings)}. A future that is cancelled
     * does not tell its job, which goes on: {@link TransferSettings#withJobs} gets it as soon as it is made.
     */
    public CompletableFuture<Preview> preview(
            Path file, CreatePreviewJobRequest request, Path directory, TransferSettings settings) {
        return onThread(() -> transfers.preview(file, request, directory, settings));
    }

    Transfers transfers() {
        return transfers;
    }

    Watch<PreviewJob> blockingWatch(WatchPreviewJobRequest request, PreviewJob created, CallSettings settings) {
        Deadline deadline = deadline(settings, timeouts.watch());
        PreviewJob known = created == null ? PreviewJob.getDefaultInstance() : created;
        return new Watch<>(created, sink -> List.of(
                subscription(new Feed.OneJob(request, known), deadline, settings, sink)));
    }

    Watch<WatchEvent> blockingWatchMany(WatchPreviewJobsRequest request, CallSettings settings) {
        Deadline deadline = deadline(settings, timeouts.watch());
        return new Watch<>(null, sink -> subscriptions(request, deadline, settings, sink));
    }

    /** A call of the uploads, within {@code deadline} and the client's timeout. */
    <Q, R> R within(Deadline deadline, MethodDescriptor<Q, R> method, Q request) {
        Deadline sooner = Deadline.after(deadline.atMost(timeouts.unary()));
        return Futures.await(connections.calls().read(method, request, sooner, CallSettings.defaults()));
    }

    /** A create of a preview, which has a {@code request_id}, within {@code deadline} and the client's timeout. */
    PreviewJob createWithin(Deadline deadline, CreatePreviewJobRequest request) {
        Deadline sooner = Deadline.after(deadline.atMost(timeouts.unary()));
        return Futures.await(creates.create(request, sooner, CallSettings.defaults()));
    }

    private List<Subscription<?, ?, WatchEvent>> subscriptions(
            WatchPreviewJobsRequest request,
            Deadline deadline,
            CallSettings settings,
            Subscription.Sink<WatchEvent> sink) {
        return Feed.ManyJobs.of(request).stream()
                .<Subscription<?, ?, WatchEvent>>map(feed -> subscription(feed, deadline, settings, sink))
                .toList();
    }

    private <Q, M, E> Subscription<?, ?, E> subscription(
            Feed<Q, M, E> feed, Deadline deadline, CallSettings settings, Subscription.Sink<E> sink) {
        return new Subscription<>(connections, feed, deadline, patience, settings, sink);
    }

    private <Q, R> CompletableFuture<R> read(MethodDescriptor<Q, R> method, Q request, CallSettings settings) {
        return connections.calls().read(method, request, deadline(settings, timeouts.unary()), settings);
    }

    private static Deadline deadline(CallSettings settings, Duration usual) {
        return Deadline.after(settings.timeout().orElse(usual));
    }

    /** A transfer on a thread of its own; cancelling it interrupts the thread. */
    private <T> CompletableFuture<T> onThread(Callable<T> transfer) {
        CompletableFuture<T> result = new CompletableFuture<>();
        Future<?> running = connections.workers().submit(() -> {
            try {
                result.complete(transfer.call());
            } catch (Exception failure) {
                result.completeExceptionally(failure);
            }
        });
        result.whenComplete((value, error) -> {
            if (result.isCancelled()) {
                running.cancel(true);
            }
        });
        return result;
    }
}
