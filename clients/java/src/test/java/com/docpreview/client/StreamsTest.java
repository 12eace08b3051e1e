package com.docpreview.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.docpreview.client.DocPreviewException.NotFound;
import com.docpreview.client.DocPreviewException.Unavailable;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.ErrorReason;
import com.docpreview.v1.GetPreviewJobRequest;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewJob.State;
import com.docpreview.v1.WaitPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobResponse;
import com.docpreview.v1.WatchPreviewJobsRequest;
import com.docpreview.v1.WatchPreviewJobsResponse;
import io.grpc.NameResolverRegistry;
import io.grpc.Status;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Futures, many jobs in a watch, many watches in a client, and replicas that drain. */
@Timeout(60)
final class StreamsTest {
    private static final PreviewJob RUNNING = job("d1", State.STATE_RUNNING);
    private static final PreviewJob SUCCESS = job("d1", State.STATE_SUCCESS);
    private static final GetPreviewJobRequest GET = GetPreviewJobRequest.getDefaultInstance();
    private static final WatchPreviewJobRequest WATCH = WatchPreviewJobRequest.getDefaultInstance();
    private static final WaitPreviewJobRequest WAIT = WaitPreviewJobRequest.getDefaultInstance();

    private Gateway gateway;
    private DocPreviewClient client;

    @BeforeEach
    void open() throws IOException {
        gateway = new Gateway();
        client = DocPreviewClient.builder(gateway.target()).build();
    }

    @AfterEach
    void close() throws InterruptedException {
        client.close();
        gateway.close();
    }

    private static PreviewJob job(String id, State state) {
        return PreviewJob.newBuilder().setJobId(id).setState(state).build();
    }

    private static WatchPreviewJobResponse message(PreviewJob job) {
        return WatchPreviewJobResponse.newBuilder().setJob(job).build();
    }

    private static WatchPreviewJobsResponse event(PreviewJob job) {
        return WatchPreviewJobsResponse.newBuilder().setJob(job).build();
    }

    private static WatchPreviewJobsResponse lost(String id) {
        return WatchPreviewJobsResponse.newBuilder()
                .setError(WatchPreviewJobsResponse.JobError.newBuilder()
                        .setJobId(id)
                        .setReason(ErrorReason.ERROR_REASON_JOB_NOT_FOUND)
                        .setMessage("no such job"))
                .build();
    }

    private static WatchPreviewJobsResponse heartbeat() {
        return WatchPreviewJobsResponse.newBuilder()
                .setHeartbeat(WatchPreviewJobsResponse.Heartbeat.getDefaultInstance())
                .build();
    }

    private static WatchPreviewJobsRequest many(String... ids) {
        return WatchPreviewJobsRequest.newBuilder().addAllJobIds(List.of(ids)).build();
    }

    @Test
    @DisplayName("Futures repeat, wait and fail as the blocking calls do")
    void futures() throws Exception {
        gateway.breaks(Status.UNAVAILABLE.asException())
                .answers(RUNNING)
                .answers(RUNNING)
                .answers(SUCCESS)
                .breaks(Gateway.error(Status.Code.NOT_FOUND, "JOB_NOT_FOUND"));
        AsyncDocPreviewClient async = client.async();
        assertEquals(RUNNING, async.create(CreatePreviewJobRequest.getDefaultInstance()).get());
        assertEquals(SUCCESS, async.waitFor(WAIT).get());
        ExecutionException failed =
                assertThrows(ExecutionException.class, () -> async.get(GET).get());
        assertInstanceOf(NotFound.class, failed.getCause());
    }

    @Test
    @DisplayName("A watch as a future tells each change and ends with the last, over streams that break")
    void watchAsFuture() throws Exception {
        gateway.breaks(Gateway.error(Status.Code.UNAVAILABLE, "SHUTTING_DOWN"), message(RUNNING))
                .answers(message(RUNNING), message(SUCCESS));
        List<PreviewJob> told = new ArrayList<>();
        assertEquals(SUCCESS, client.async().watch(WATCH, told::add).get());
        assertEquals(List.of(RUNNING, SUCCESS), told);
    }

    @Test
    @DisplayName("A future that is cancelled ends its call at the gateway")
    void cancelled() throws Exception {
        gateway.hangs(message(RUNNING));
        CountDownLatch first = new CountDownLatch(1);
        CompletableFuture<PreviewJob> watch = client.async().watch(WATCH, job -> first.countDown());
        assertTrue(first.await(10, TimeUnit.SECONDS));
        watch.cancel(true);
        assertTrue(gateway.cancelled.await(10, TimeUnit.SECONDS));
    }

    @Test
    @DisplayName("A client that is closed fails what waits for its next attempt, at once")
    void closed() throws Exception {
        var later = com.google.rpc.RetryInfo.newBuilder()
                .setRetryDelay(Wire.of(Duration.ofSeconds(20)))
                .build();
        CountDownLatch refused = new CountDownLatch(1);
        gateway.breaks(Gateway.error(Status.Code.UNAVAILABLE, "SHUTTING_DOWN", later));
        CompletableFuture<PreviewJob> create = client.async()
                .create(CreatePreviewJobRequest.getDefaultInstance(), CallSettings.defaults()
                        .withReplyMetadata(reply -> refused.countDown()));
        assertTrue(refused.await(10, TimeUnit.SECONDS));
        client.close();
        ExecutionException failed = assertThrows(ExecutionException.class, () -> create.get(10, TimeUnit.SECONDS));
        assertTrue(failed.getCause() instanceof DocPreviewException, failed.toString());
    }

    @Test
    @DisplayName("A watch that is closed by another thread ends for the one that iterates it")
    void closedByAnother() throws Exception {
        gateway.hangs(message(RUNNING));
        Watch<PreviewJob> watch = client.watch(WATCH);
        CountDownLatch first = new CountDownLatch(1);
        CompletableFuture<Void> iterating =
                CompletableFuture.runAsync(() -> watch.forEach(job -> first.countDown()));
        assertTrue(first.await(10, TimeUnit.SECONDS));
        watch.close();
        iterating.get(10, TimeUnit.SECONDS);
    }

    @Test
    @DisplayName("A watch of many jobs goes on with those that have not ended, and tells errors of single ids")
    void manyJobs() {
        PreviewJob other = job("d2", State.STATE_RUNNING);
        gateway.breaks(
                        Gateway.error(Status.Code.UNAVAILABLE, "WATCH_LIMIT_REACHED"),
                        event(SUCCESS),
                        heartbeat(),
                        lost("d3"),
                        event(other))
                .answers(event(other), event(job("d2", State.STATE_FAILED)));
        List<WatchEvent> events = new ArrayList<>();
        try (Watch<WatchEvent> watch = client.watchMany(many("d1", "d2", "d3", "d1"))) {
            watch.forEach(events::add);
        }
        assertEquals(
                List.of(
                        new WatchEvent.Changed(SUCCESS),
                        new WatchEvent.Failed("d3", ErrorReason.ERROR_REASON_JOB_NOT_FOUND, "no such job"),
                        new WatchEvent.Changed(other),
                        new WatchEvent.Changed(job("d2", State.STATE_FAILED))),
                events);
        assertEquals(List.of(many("d1", "d2", "d3"), many("d2")), gateway.requests);
    }

    @Test
    @DisplayName("More than 1,000 jobs are followed in several streams")
    void thousands() throws Exception {
        List<String> ids = IntStream.range(0, 2500).mapToObj(number -> "d" + number).toList();
        for (int streams = 0; streams < 3; streams++) {
            gateway.answersBy(request -> ((WatchPreviewJobsRequest) request)
                    .getJobIdsList().stream()
                            .map(id -> event(job(id, State.STATE_SUCCESS)))
                            .toList());
        }
        List<String> ended = new ArrayList<>();
        WatchPreviewJobsRequest request =
                WatchPreviewJobsRequest.newBuilder().addAllJobIds(ids).build();
        client.async().watchMany(request, event -> ended.add(event.jobId())).get();
        assertEquals(ids.size(), ended.size());
        assertEquals(Set.copyOf(ids), Set.copyOf(ended));
        assertEquals(3, gateway.requests.size());
        assertTrue(gateway.requests.stream()
                .allMatch(asked -> ((WatchPreviewJobsRequest) asked).getJobIdsCount() <= 1000));
    }

    @Test
    @DisplayName("300 watches and waits of a client leave its other calls alone, though a connection takes 100 streams")
    void manyStreams() throws Exception {
        int watches = 200;
        gateway.hang(watches, message(RUNNING));
        CountDownLatch first = new CountDownLatch(watches);
        List<CompletableFuture<?>> streams = new ArrayList<>();
        for (int count = 0; count < watches; count++) {
            streams.add(client.async().watch(WATCH, job -> first.countDown()));
        }
        assertTrue(first.await(30, TimeUnit.SECONDS));
        gateway.hang(100);
        for (int count = 0; count < 100; count++) {
            streams.add(client.async().waitFor(WAIT));
        }
        await(() -> gateway.requests.size() == 300);
        gateway.answers(RUNNING);
        assertEquals(RUNNING, client.get(GET, CallSettings.defaults().withTimeout(Duration.ofSeconds(5))));
        assertEquals(5, gateway.connections.size()); // 90 streams on each of four, and one for the get
        streams.forEach(stream -> stream.cancel(true));
    }

    @Test
    @DisplayName("Behind a single address no call fails while a replica drains and ends")
    void drains() throws Exception {
        try (OneAddress address = new OneAddress(gateway);
                Gateway other = new Gateway();
                DocPreviewClient caller = DocPreviewClient.builder(address.target()).build()) {
            gateway.answers(RUNNING);
            caller.get(GET);
            gateway.drains();
            address.leadsTo(other);
            for (int count = 0; count < 100; count++) {
                gateway.answers(RUNNING);
                other.answers(RUNNING);
                if (count == 50) {
                    gateway.stop();
                }
                assertEquals(RUNNING, caller.get(GET));
                TimeUnit.MILLISECONDS.sleep(5); // the news of the health service are on their way
            }
            assertTrue(gateway.requests.size() >= 50, "a gateway that drains still serves");
            assertTrue(other.requests.size() >= 40, "the calls go on at the other");
        }
    }

    @Test
    @DisplayName("An address whose gateway drains gets no calls while another is healthy")
    void avoidsTheDraining() throws Exception {
        NameResolverRegistry.getDefaultRegistry().register(new TwoAddresses());
        try (Gateway other = new Gateway();
                DocPreviewClient caller = DocPreviewClient.builder(
                                TwoAddresses.SCHEME + ":///" + gateway.port() + "," + other.port())
                        .build()) {
            gateway.drains();
            for (int count = 0; count < 20; count++) {
                gateway.answers(RUNNING);
                other.answers(RUNNING);
                caller.get(GET);
                TimeUnit.MILLISECONDS.sleep(5);
            }
            assertEquals(List.of(), gateway.requests);
            assertEquals(20, other.requests.size());
        }
    }

    @Test
    @DisplayName("Without any gateway a watch fails at once")
    void nobody() throws Exception {
        gateway.close();
        assertThrows(Unavailable.class, () -> client.watch(WATCH).iterator().hasNext());
        ExecutionException failed = assertThrows(
                ExecutionException.class, () -> client.async().watch(WATCH, job -> {}).get());
        assertInstanceOf(Unavailable.class, failed.getCause());
        assertFalse(failed.getMessage().isEmpty());
    }

    private static void await(java.util.function.BooleanSupplier condition) throws InterruptedException {
        for (int count = 0; count < 1000 && !condition.getAsBoolean(); count++) {
            TimeUnit.MILLISECONDS.sleep(20); // the server of the test rings no bell
        }
        assertTrue(condition.getAsBoolean());
    }
}
