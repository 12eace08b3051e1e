package com.docpreview.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.docpreview.client.DocPreviewException.BudgetExhausted;
import com.docpreview.client.DocPreviewException.DeadlineExceeded;
import com.docpreview.client.DocPreviewException.Interrupted;
import com.docpreview.client.DocPreviewException.InvalidRequest;
import com.docpreview.client.DocPreviewException.NotFound;
import com.docpreview.client.DocPreviewException.OutcomeUnknown;
import com.docpreview.client.DocPreviewException.Throttled;
import com.docpreview.client.DocPreviewException.Unauthenticated;
import com.docpreview.client.DocPreviewException.Unavailable;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.ErrorReason;
import com.docpreview.v1.ErrorReasonOuterClass;
import com.docpreview.v1.GetPreviewJobRequest;
import com.docpreview.v1.ListPreviewJobsRequest;
import com.docpreview.v1.ListPreviewJobsResponse;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewJob.State;
import com.docpreview.v1.WaitPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobResponse;
import com.google.rpc.BadRequest;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import java.io.IOException;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Supplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What the client promises, over real sockets. What the gateway's own errors become is in the conformance table too. */
@Timeout(30)
final class DocPreviewClientTest {
    private static final PreviewJob SUBMITTED = job(State.STATE_SUBMITTED);
    private static final PreviewJob RUNNING = job(State.STATE_RUNNING);
    private static final PreviewJob SUCCESS = job(State.STATE_SUCCESS);
    private static final CreatePreviewJobRequest CREATE = CreatePreviewJobRequest.getDefaultInstance();
    private static final CreatePreviewJobRequest IDEMPOTENT = CREATE.toBuilder().setRequestId("1").build();
    private static final CallSettings ONE_SECOND = CallSettings.defaults().withTimeout(Duration.ofSeconds(1));
    private static final GetPreviewJobRequest GET = GetPreviewJobRequest.getDefaultInstance();
    private static final WatchPreviewJobRequest WATCH = WatchPreviewJobRequest.getDefaultInstance();

    private Gateway gateway;
    private DocPreviewClient client;

    @BeforeEach
    void open() throws IOException {
        gateway = new Gateway();
        client = builder().build();
    }

    @AfterEach
    void close() throws InterruptedException {
        client.close();
        gateway.close();
    }

    private DocPreviewClientBuilder builder() {
        return DocPreviewClient.builder(gateway.target());
    }

    private static PreviewJob job(State state) {
        return PreviewJob.newBuilder().setJobId("d1").setState(state).build();
    }

    private static WatchPreviewJobResponse message(PreviewJob job) {
        return WatchPreviewJobResponse.newBuilder().setJob(job).build();
    }

    private static List<State> states(Watch<PreviewJob> watch) {
        List<State> states = new ArrayList<>();
        watch.forEach(job -> states.add(job.getState()));
        return states;
    }

    @Test
    @DisplayName("A read that the gateway cannot serve now is made again")
    void readRepeated() {
        gateway.breaks(Status.UNAVAILABLE.asException()).answers(RUNNING);
        assertEquals(RUNNING, client.get(GET));
    }

    @Test
    @DisplayName("A caller over its limit gets Throttled with the retry delay, and does not wait unasked")
    void pushbackOfThrottled() {
        RetryInfo wait = RetryInfo.newBuilder()
                .setRetryDelay(Wire.of(Duration.ofMillis(2500)))
                .build();
        var error = Gateway.error(Status.Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", wait);
        error.getTrailers()
                .put(Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER), "2500");
        gateway.breaks(error);
        Throttled told = assertThrows(Throttled.class, () -> client.get(GET));
        assertEquals(Optional.of(Duration.ofMillis(2500)), told.retryDelay());
        assertEquals(1, gateway.requests.size());
    }

    @Test
    @DisplayName("An error names code, reason, every bad field, the limit that was reached and the request's id")
    void facts() {
        QuotaFailure quota = QuotaFailure.newBuilder()
                .addViolations(QuotaFailure.Violation.newBuilder().setSubject("shop").setDescription("too many"))
                .build();
        gateway.breaks(Gateway.error(Status.Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", quota));
        Throttled limited = assertThrows(Throttled.class, () -> client.get(GET));
        assertEquals(List.of(new QuotaViolation("shop", "too many")), limited.quotaViolations());
        assertEquals(Retry.NOW, limited.retry());
        BadRequest bad = BadRequest.newBuilder()
                .addFieldViolations(
                        BadRequest.FieldViolation.newBuilder().setField("bucket").setDescription("is required"))
                .build();
        gateway.breaks(Gateway.error(Status.Code.INVALID_ARGUMENT, "INVALID_REQUEST", bad));
        InvalidRequest error = assertThrows(InvalidRequest.class, () -> client.create(CREATE));
        assertEquals(Status.Code.INVALID_ARGUMENT, error.code());
        assertEquals("INVALID_REQUEST", error.reason());
        assertEquals(List.of(new FieldViolation("bucket", "is required")), error.fieldViolations());
        assertEquals("0123", error.requestId());
        assertEquals("INVALID_REQUEST: as the test says; bucket: is required; request id 0123", error.getMessage());
    }

    @Test
    @DisplayName("A create that may not be repeated is made once as it is, and its outcome is unknown when the answer is lost")
    void createOnce() {
        gateway.breaks(Status.UNAVAILABLE.asException());
        try (DocPreviewClient careful = builder().repeatCreates(false).build()) {
            assertThrows(OutcomeUnknown.class, () -> careful.create(CREATE));
        }
        assertEquals(List.of(CREATE), gateway.requests);
    }

    @Test
    @DisplayName("A create gets a request_id and is made again with it while that can help, not before the gateway asks for it")
    void createRepeated() {
        Duration asked = Duration.ofMillis(700);
        RetryInfo wait = RetryInfo.newBuilder().setRetryDelay(Wire.of(asked)).build();
        gateway.breaks(Status.UNAVAILABLE.asException())
                .breaks(Gateway.error(Status.Code.UNKNOWN, "CREATE_OUTCOME_UNKNOWN", wait))
                .breaks(Gateway.error(Status.Code.RESOURCE_EXHAUSTED, "UPSTREAM_THROTTLED"))
                .breaks(Gateway.error(Status.Code.UNAVAILABLE, "SHUTTING_DOWN"))
                .answers(SUBMITTED);
        long begin = System.nanoTime();
        assertEquals(SUBMITTED, client.create(CREATE));
        assertTrue(System.nanoTime() - begin >= asked.toNanos());
        assertEquals(5, gateway.requests.size());
        assertEquals(1, Set.copyOf(gateway.requests).size());
        String id = ((CreatePreviewJobRequest) gateway.requests.get(0)).getRequestId();
        assertEquals(id, UUID.fromString(id).toString());
    }

    @Test
    @DisplayName("A create with a request_id of the caller keeps it")
    void createKeepsId() {
        gateway.answers(SUBMITTED);
        client.create(IDEMPOTENT);
        assertEquals(List.of(IDEMPOTENT), gateway.requests);
    }

    @Test
    @DisplayName("Each reason of the contract says whether to repeat the call; without a reason the code does")
    void retryOfReasons() {
        for (ErrorReason reason : ErrorReason.values()) {
            if (reason != ErrorReason.UNRECOGNIZED && reason != ErrorReason.ERROR_REASON_UNSPECIFIED) {
                String expected = reason.getValueDescriptor()
                        .getOptions()
                        .getExtension(ErrorReasonOuterClass.retry)
                        .name();
                String name = reason.name().substring("ERROR_REASON_".length());
                assertEquals(expected, "RETRY_" + Retry.of(name, Status.Code.UNKNOWN), name);
            }
        }
        assertEquals(Retry.LATER, Retry.of("PAGE_BUDGET_EXHAUSTED", Status.Code.RESOURCE_EXHAUSTED));
        assertEquals(Retry.NEVER, Retry.of("NEWER_THAN_THIS_CLIENT", Status.Code.UNAVAILABLE));
        assertEquals(Retry.NOW, Retry.of("", Status.Code.DEADLINE_EXCEEDED));
        assertEquals(Retry.NEVER, Retry.of("", Status.Code.INTERNAL));
    }

    @Test
    @DisplayName("A call can bypass caches and send metadata, and the metadata of the reply reaches it")
    void metadata() {
        gateway.answers(RUNNING);
        AtomicReference<Map<String, String>> reply = new AtomicReference<>(Map.of());
        CallSettings settings = CallSettings.defaults()
                .withoutCache()
                .withMetadata("x-request-id", "mine")
                .withReplyMetadata(reply::set);
        client.get(GET, settings);
        assertTrue(reply.get().entrySet().containsAll(Gateway.REPLY.entrySet()), reply.get().toString());
        Map<String, String> sent = Map.of("cache-control", "no-cache", "x-request-id", "mine");
        sent.forEach((name, value) -> assertEquals(
                value,
                gateway.headers.get(0).get(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER))));
        assertThrows(IllegalArgumentException.class, () -> settings.withMetadata("Not A Name", "1"));
    }

    @Test
    @DisplayName("A wait that the gateway asks for beyond the deadline is not begun, and the error has the request_id")
    void createWaitsInVain() {
        RetryInfo wait = RetryInfo.newBuilder()
                .setRetryDelay(Wire.of(Duration.ofHours(1)))
                .build();
        gateway.breaks(Gateway.error(Status.Code.UNKNOWN, "CREATE_OUTCOME_UNKNOWN", wait));
        OutcomeUnknown error = assertThrows(OutcomeUnknown.class, () -> client.create(CREATE));
        assertEquals(((CreatePreviewJobRequest) gateway.requests.get(0)).getRequestId(), error.createId());
    }

    @Test
    @DisplayName("A create that is still in progress when the time is up has an unknown outcome: a new request_id would bill twice")
    void createInProgress() {
        RetryInfo wait = RetryInfo.newBuilder().setRetryDelay(Wire.of(Duration.ofSeconds(1))).build();
        gateway.breaks(Gateway.error(Status.Code.UNAVAILABLE, "CREATE_IN_PROGRESS"))
                .breaks(Gateway.error(Status.Code.UNAVAILABLE, "CREATE_IN_PROGRESS", wait));
        OutcomeUnknown error = assertThrows(OutcomeUnknown.class, () -> client.create(CREATE, ONE_SECOND));
        assertEquals(Retry.NOW, error.retry());
        assertEquals(2, gateway.requests.size());
        assertEquals(((CreatePreviewJobRequest) gateway.requests.get(0)).getRequestId(), error.createId());
    }

    @Test
    @DisplayName("A create beyond the budget is not made again, even when the next period begins before the deadline")
    void createBeyondTheBudget() {
        RetryInfo wait = RetryInfo.newBuilder()
                .setRetryDelay(Wire.of(Duration.ofMillis(1)))
                .build();
        gateway.breaks(Gateway.error(Status.Code.RESOURCE_EXHAUSTED, "PAGE_BUDGET_EXHAUSTED", wait))
                .breaks(Gateway.error(Status.Code.RESOURCE_EXHAUSTED, "PAGE_BUDGET_TOO_SMALL"));
        for (String reason : List.of("PAGE_BUDGET_EXHAUSTED", "PAGE_BUDGET_TOO_SMALL")) {
            DocPreviewException error = assertThrows(BudgetExhausted.class, () -> client.create(IDEMPOTENT));
            assertEquals(reason, error.reason());
            assertFalse(error instanceof DocPreviewException.TransientError);
        }
        assertEquals(2, gateway.requests.size());
    }

    @Test
    @DisplayName("A create whose outcome is ambiguous is not made again, and an earlier reason does not hide this one")
    void createAmbiguous() {
        gateway.breaks(Status.UNAVAILABLE.asException())
                .breaks(Gateway.error(Status.Code.UNKNOWN, "CREATE_OUTCOME_AMBIGUOUS"));
        OutcomeUnknown error = assertThrows(OutcomeUnknown.class, () -> client.create(IDEMPOTENT));
        assertEquals("CREATE_OUTCOME_AMBIGUOUS", error.reason());
        assertEquals(2, gateway.requests.size());
    }

    @Test
    @DisplayName("A create that never left this machine is Unavailable, not of unknown outcome")
    void createNeverSent() throws IOException {
        try (ServerSocket free = new ServerSocket(0)) {
            free.close();
            try (DocPreviewClient nobody = DocPreviewClient.builder("127.0.0.1:" + free.getLocalPort()).build()) {
                Unavailable error = assertThrows(Unavailable.class, () -> nobody.create(CREATE, ONE_SECOND));
                assertTrue(error.sentence().contains("refused"), error.sentence());
            }
        }
    }

    @Test
    @DisplayName("A watch goes on over streams that break, and leaves out heartbeats and what did not change")
    void watchReconnects() {
        var draining = Gateway.error(Status.Code.UNAVAILABLE, "SHUTTING_DOWN");
        gateway.breaks(draining, message(SUBMITTED), WatchPreviewJobResponse.getDefaultInstance())
                .breaks(Status.UNAVAILABLE.asException())
                .answers(message(SUBMITTED), message(RUNNING), message(SUCCESS));
        assertEquals(List.of(State.STATE_SUBMITTED, State.STATE_RUNNING, State.STATE_SUCCESS), states(client.watch(WATCH)));
    }

    @Test
    @DisplayName("A stream on which nothing comes is replaced")
    void watchIdle() {
        gateway.hangs(message(RUNNING)).answers(message(SUCCESS));
        try (DocPreviewClient impatient =
                builder().idleTimeout(Duration.ofMillis(300)).build()) {
            assertEquals(List.of(State.STATE_RUNNING, State.STATE_SUCCESS), states(impatient.watch(WATCH)));
        }
    }

    @Test
    @DisplayName("A watch ends at its deadline, over all its streams, and then for good")
    void watchDeadline() {
        gateway.hangs(message(RUNNING));
        Iterator<PreviewJob> jobs = client.watch(WATCH, CallSettings.defaults().withTimeout(Duration.ofMillis(500)))
                .iterator();
        assertEquals(RUNNING, jobs.next());
        assertThrows(DeadlineExceeded.class, jobs::hasNext);
        assertEquals(false, jobs.hasNext());
    }

    @Test
    @DisplayName("An interrupt ends a watch, and the thread stays interrupted")
    void watchInterrupted() {
        gateway.hangs(message(RUNNING));
        Iterator<PreviewJob> jobs = client.watch(WATCH).iterator();
        jobs.next();
        Thread.currentThread().interrupt();
        assertThrows(Interrupted.class, jobs::hasNext);
        assertTrue(Thread.interrupted());
    }

    @Test
    @DisplayName("createAndWatch yields the new job first and only changes after it")
    void createAndWatch() {
        gateway.answers(SUBMITTED).answers(message(SUBMITTED), message(SUCCESS));
        WatchOptions options = WatchOptions.defaults().withPageUrlTtl(Duration.ofMinutes(1));
        try (Watch<PreviewJob> watch = client.createAndWatch(CREATE, options)) {
            assertEquals(List.of(State.STATE_SUBMITTED, State.STATE_SUCCESS), states(watch));
        }
        WatchPreviewJobRequest asked = (WatchPreviewJobRequest) gateway.requests.get(1);
        assertEquals("d1", asked.getJobId());
        assertEquals(60, asked.getPageUrlTtl().getSeconds());
    }

    @Test
    @DisplayName("A job that does not exist ends a watch immediately")
    void watchNotFound() {
        gateway.breaks(Gateway.error(Status.Code.NOT_FOUND, "JOB_NOT_FOUND"));
        assertThrows(NotFound.class, () -> states(client.watch(WATCH)));
    }

    @Test
    @DisplayName("waitFor waits again until the job has ended")
    void waitsAgain() {
        gateway.answers(RUNNING)
                .breaks(Gateway.error(Status.Code.UNAVAILABLE, "SHUTTING_DOWN"))
                .answers(SUCCESS);
        assertEquals(SUCCESS, client.waitFor(WaitPreviewJobRequest.getDefaultInstance()));
    }

    @Test
    @DisplayName("list asks for a page of 100 when the jobs of the one before are used up, with its token")
    void listPages() {
        gateway.answers(ListPreviewJobsResponse.newBuilder().addJobs(RUNNING).setNextPageToken("2").build())
                .answers(ListPreviewJobsResponse.newBuilder().addJobs(SUCCESS).build());
        ListPreviewJobsRequest request = ListPreviewJobsRequest.getDefaultInstance();
        assertEquals(List.of(RUNNING, SUCCESS), client.list(request).toList());
        ListPreviewJobsRequest sized = request.toBuilder().setPageSize(100).build();
        assertEquals(List.of(sized, sized.toBuilder().setPageToken("2").build()), gateway.requests);
        gateway.answers(ListPreviewJobsResponse.newBuilder().addJobs(RUNNING).setNextPageToken("2").build());
        assertEquals(Optional.of(RUNNING), client.list(request).findFirst());
        assertEquals(3, gateway.requests.size());
    }

    @Test
    @DisplayName("A token is asked for at every call")
    void tokens() {
        gateway.answers(RUNNING).answers(RUNNING);
        List<String> tokens = new ArrayList<>(List.of("a", "b"));
        try (DocPreviewClient caller = builder().token(() -> tokens.remove(0)).build()) {
            caller.get(GET);
            caller.get(GET);
        }
        assertTrue(gateway.authorizations().containsAll(List.of("Bearer a", "Bearer b")));
    }

    @Test
    @DisplayName("A source of tokens that fails is Unauthenticated at once, with its cause, and nothing is sent")
    void tokenFails() {
        IllegalStateException sealed = new IllegalStateException("the vault is sealed");
        List<Supplier<String>> sources = List.of(
                () -> {
                    throw sealed;
                },
                () -> "a token\nof two lines",
                () -> "");
        for (Supplier<String> source : sources) {
            try (DocPreviewClient caller = builder().token(source).build()) {
                Unauthenticated error = assertThrows(Unauthenticated.class, () -> caller.get(GET, ONE_SECOND));
                assertEquals(Retry.NEVER, error.retry());
                assertFalse(error.getMessage().contains("two lines"), error.getMessage());
                assertThrows(Unauthenticated.class, () -> caller.create(CREATE, ONE_SECOND));
                assertThrows(Unauthenticated.class, () -> states(caller.watch(WATCH, ONE_SECOND)));
                if (source == sources.get(0)) {
                    assertTrue(error.getMessage().contains("the vault is sealed"), error.getMessage());
                    assertEquals(sealed, error.getCause().getCause());
                }
            }
        }
        assertEquals(List.of(), gateway.requests);
    }

    @Test
    @DisplayName("A token never goes over the network in the clear")
    void tokenInTheClear() {
        for (String remote : List.of("gateway:50051", "dns:///gateway:50051", "10.0.0.1:50051", "127.0.0.1.example:1")) {
            assertThrows(
                    IllegalArgumentException.class,
                    () -> DocPreviewClient.builder(remote).token("secret").build());
        }
        for (String local : List.of("localhost:1", "127.0.0.1:1", "[::1]:1", "dns:///localhost:1")) {
            assertTrue(Channels.isLoopback(local), local);
        }
    }
}
