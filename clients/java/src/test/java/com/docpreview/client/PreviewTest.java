package com.docpreview.client;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.docpreview.client.DocPreviewException.DeadlineExceeded;
import com.docpreview.client.DocPreviewException.FailedPrecondition;
import com.docpreview.client.DocPreviewException.InvalidRequest;
import com.docpreview.client.DocPreviewException.Interrupted;
import com.docpreview.client.DocPreviewException.OutcomeUnknown;
import com.docpreview.client.DocPreviewException.PermissionDenied;
import com.docpreview.client.DocPreviewException.PreviewUnfinished;
import com.docpreview.client.DocPreviewException.TransientError;
import com.docpreview.client.DocPreviewException.Unavailable;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.CreateUploadRequest;
import com.docpreview.v1.PreviewJob.State;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.WatchPreviewJobResponse;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Previews, against a gateway and a store on real sockets. */
@Timeout(60)
final class PreviewTest extends TransfersFixture {
    @Test
    @DisplayName("preview uploads, creates with an id and a place of its own, watches to the end and downloads")
    void preview() throws Exception {
        PreviewJob done = job("d1", 2, "/a/");
        PreviewJob submitted = PreviewJob.newBuilder().setJobId("d1").setState(State.STATE_SUBMITTED).build();
        gateway.answers(upload("t", IN_AN_HOUR))
                .answers(UPLOADED)
                .answers(submitted)
                .answers(WatchPreviewJobResponse.newBuilder().setJob(done).build());
        List<State> states = new ArrayList<>();
        CreatePreviewJobRequest request =
                CreatePreviewJobRequest.newBuilder().setBucket("b").build();
        TransferSettings settings = TransferSettings.defaults().withJobs(job -> states.add(job.getState()));
        Preview preview = client.async().preview(file("0123456789"), request, pages(), settings).get();
        assertEquals(done, preview.job());
        assertEquals(2, preview.files().size());
        assertEquals(List.of(State.STATE_SUBMITTED, State.STATE_SUCCESS), states);
        CreatePreviewJobRequest created = requests(CreatePreviewJobRequest.class).get(0);
        assertEquals("in/1.pdf", created.getInputObject());
        assertEquals("out/${RequestToken}/page-${Number}.jpg", created.getOutput().getObject());
        assertFalse(created.getRequestId().isEmpty());
    }

    @Test
    @DisplayName("A preview of a spreadsheet has a folder for each sheet")
    void spreadsheet() throws Exception {
        gateway.answers(upload("t", IN_AN_HOUR))
                .answers(UPLOADED.toBuilder().setObject("in/1.xlsx").build())
                .answers(job("d1", 1, "/a/"));
        client.preview(file("0123456789"), "b", pages());
        assertEquals(
                "out/${RequestToken}/sheet-${SheetID}/page-${Number}.jpg",
                requests(CreatePreviewJobRequest.class).get(0).getOutput().getObject());
    }

    @Test
    @DisplayName("A directory that cannot be written is told before anything is sent")
    void directory() throws Exception {
        Path file = file("0123456789");
        Path under = file.resolve("pages");
        UncheckedIOException error =
                assertThrows(UncheckedIOException.class, () -> client.preview(file, "b", under));
        assertTrue(error.getMessage().contains("cannot write to the directory"), error.getMessage());
        assertInstanceOf(IOException.class, error.getCause());
        assertEquals(List.of(), gateway.requests);
        assertEquals(List.of(), Arrays.asList(store.asked.toArray()));
    }

    private static final CreatePreviewJobRequest REQUEST =
            CreatePreviewJobRequest.newBuilder().setBucket("b").build();
    private static final PreviewJob SUBMITTED =
            PreviewJob.newBuilder().setJobId("d1").setState(State.STATE_SUBMITTED).build();
    private static final String ID = "11111111-2222-4333-8444-555555555555";
    private static final StatusRuntimeException EXISTS = Gateway.errorSaying(
            "an object is in the way", Status.Code.ALREADY_EXISTS, "OBJECT_EXISTS");

    /** A gateway that has brought the file and made the job. */
    private void created() {
        gateway.answers(upload("t", IN_AN_HOUR)).answers(UPLOADED).answers(SUBMITTED);
    }

    /** What a preview ends with whose job was made. */
    private PreviewUnfinished unfinished(TransferSettings settings, Class<? extends RuntimeException> cause)
            throws IOException {
        Path file = file("0123456789");
        PreviewUnfinished error = assertThrows(
                PreviewUnfinished.class, () -> client.preview(file, REQUEST, pages(), settings));
        assertInstanceOf(cause, error.getCause());
        assertEquals("d1", error.job().getJobId());
        assertEquals(Retry.NEVER, error.retry());
        assertEquals(Status.Code.UNKNOWN, error.code());
        assertFalse(TransientError.class.isInstance(error));
        assertEquals(
                "job d1 was made and its pages are not all here: " + error.getCause().getMessage()
                        + "; go on with download: waitFor, then download",
                error.sentence());
        assertEquals(error.sentence(), error.getMessage()); // it begins with no status
        assertEquals(1, requests(CreatePreviewJobRequest.class).size());
        return error;
    }

    @Test
    @DisplayName("A preview whose deadline passes when its job is made tells the job as seen last, and not to repeat it")
    void deadline() throws Exception {
        created();
        gateway.hangs(WatchPreviewJobResponse.newBuilder()
                .setJob(SUBMITTED.toBuilder().setState(State.STATE_RUNNING))
                .build());
        PreviewUnfinished error = unfinished(
                TransferSettings.defaults().withTimeout(Duration.ofSeconds(2)), DeadlineExceeded.class);
        assertEquals(State.STATE_RUNNING, error.job().getState());
    }

    @Test
    @DisplayName("A preview whose watch, page, directory or receiver fails when its job is made is unfinished")
    void unfinished() throws Exception {
        TransferSettings defaults = TransferSettings.defaults();
        PreviewJob done = job("d1", 2, "/a/");
        created();
        gateway.breaks(Gateway.error(Status.Code.PERMISSION_DENIED, "NOT_PERMITTED"));
        PreviewUnfinished error = unfinished(defaults, PermissionDenied.class);
        assertEquals("0123", error.requestId());

        gateway.requests.clear();
        created();
        gateway.answers(WatchPreviewJobResponse.newBuilder().setJob(done).build());
        store.refuses("/a/2", 503, 503, 503, 503);
        error = unfinished(defaults, Unavailable.class);
        assertEquals(done, error.job());

        gateway.requests.clear();
        created();
        gateway.answers(WatchPreviewJobResponse.newBuilder().setJob(done).build());
        Files.createDirectories(pages().resolve("page-0002.jpg").resolve("in the way"));
        error = unfinished(defaults, UncheckedIOException.class);
        assertEquals(done, error.job());

        gateway.requests.clear();
        created();
        unfinished(
                defaults.withJobs(job -> {
                    throw new IllegalStateException("as the test says");
                }),
                IllegalStateException.class);
    }

    @Test
    @DisplayName("A preview that is interrupted when its job is made tells the job, and leaves the thread interrupted")
    void interrupted() throws Exception {
        created();
        gateway.hangs();
        Thread caller = Thread.currentThread();
        unfinished(TransferSettings.defaults().withJobs(job -> caller.interrupt()), Interrupted.class);
        assertTrue(Thread.interrupted());
    }

    @Test
    @DisplayName("The future of a preview fails with the job that was made")
    void futureUnfinished() throws Exception {
        created();
        gateway.breaks(Gateway.error(Status.Code.NOT_FOUND, "JOB_NOT_FOUND"));
        CompletableFuture<Preview> future =
                client.async().preview(file("0123456789"), REQUEST, pages(), TransferSettings.defaults());
        ExecutionException failed = assertThrows(ExecutionException.class, future::get);
        assertEquals("d1", assertInstanceOf(PreviewUnfinished.class, failed.getCause()).job().getJobId());
    }

    private static String md5(byte[] content) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("MD5").digest(content));
    }

    /** What stands in a key for {@code ${UploadId}}. */
    private static String digits(String id, byte[] content) throws Exception {
        return md5((id.toLowerCase(Locale.ROOT) + "\n" + md5(content)).getBytes(StandardCharsets.US_ASCII));
    }

    private static String digits(String id, String content) throws Exception {
        return digits(id, content.getBytes(StandardCharsets.US_ASCII));
    }

    private String lastKey() {
        List<CreateUploadRequest> uploads = requests(CreateUploadRequest.class);
        return uploads.get(uploads.size() - 1).getObject();
    }

    @Test
    @DisplayName("The key of a preview's input follows from the id of its create and the content, also in one's own template")
    void keyOfIdAndContent() throws Exception {
        PreviewJob done = job("d1", 1, "/a/");
        for (String given : List.of("", ID, ID.replace('1', 'A'))) {
            for (String template : List.of("", "a/${UploadId}/${UploadId}.txt", "a/b.txt")) {
                for (String content : List.of("0123456789", "9876543210")) {
                    gateway.requests.clear();
                    gateway.answers(upload("t", IN_AN_HOUR)).answers(UPLOADED).answers(done);
                    CreatePreviewJobRequest request = REQUEST.toBuilder()
                            .setRequestId(given)
                            .setInputObject(template)
                            .build();
                    client.preview(file(content), request, pages(), TransferSettings.defaults());
                    String id = requests(CreatePreviewJobRequest.class).get(0).getRequestId();
                    assertEquals(id, given.isEmpty() ? UUID.fromString(id).toString() : given);
                    String expected = template.isEmpty() ? "in/${UploadId}.pdf" : template;
                    assertEquals(expected.replace("${UploadId}", digits(id, content)), lastKey());
                }
            }
        }
    }

    @Test
    @DisplayName("A preview of a large file goes on with the object of its key that is there, and makes the same create")
    void repeated() throws Exception {
        PreviewJob done = job("d1", 1, "/a/");
        CreatePreviewJobRequest request = REQUEST.toBuilder().setRequestId(ID).build();
        byte[] content = new byte[(16 << 20) + 1];
        Path file = Files.write(folder.resolve("slides.pdf"), content);
        gateway.answers(upload("t", IN_AN_HOUR)).breaks(EXISTS).answers(done);
        assertEquals(done, client.preview(file, request, pages(), TransferSettings.defaults()).job());
        gateway.breaks(EXISTS).answers(done);
        assertEquals(done, client.preview(file, request, pages(), TransferSettings.defaults()).job());
        List<CreatePreviewJobRequest> creates = requests(CreatePreviewJobRequest.class);
        assertEquals("in/" + digits(ID, content) + ".pdf", creates.get(0).getInputObject());
        assertEquals(2, creates.size());
        assertEquals(1, Set.copyOf(creates).size());
        assertTrue(requests(CreateUploadRequest.class).get(0).getContentMd5().isEmpty());

        CreatePreviewJobRequest fixed = request.toBuilder().setInputObject("in/mine.pdf").build();
        gateway.breaks(EXISTS);
        assertThrows(InvalidRequest.class, () -> client.preview(file, fixed, pages(), TransferSettings.defaults()));
    }

    @Test
    @DisplayName("A small object that the gateway says is another's is not taken for a preview's input")
    void another() throws Exception {
        Path file = file("0123456789");
        gateway.answers(upload("t", IN_AN_HOUR, 10)).breaks(EXISTS);
        InvalidRequest error = assertThrows(InvalidRequest.class, () -> client.preview(file, "b", pages()));
        assertEquals("OBJECT_EXISTS", error.reason());
        assertEquals(List.of(), requests(CreatePreviewJobRequest.class));
    }

    @Test
    @DisplayName("A request_id that is no UUID and a directory without a name are refused before anything is sent")
    void badArguments() throws Exception {
        Path file = file("0123456789");
        CreatePreviewJobRequest request = REQUEST.toBuilder().setRequestId("mine").build();
        InvalidRequest error = assertThrows(
                InvalidRequest.class, () -> client.preview(file, request, pages(), TransferSettings.defaults()));
        assertTrue(error.sentence().startsWith("request_id must be a UUID"), error.sentence());
        assertEquals(Retry.NEVER, error.retry());
        PreviewJob done = job("d1", 1, "/a/");
        assertThrows(InvalidRequest.class, () -> client.preview(file, "b", Path.of("")));
        assertThrows(InvalidRequest.class, () -> client.download(done, Path.of("")));
        TransferSettings settings = TransferSettings.defaults();
        assertThrows(IllegalArgumentException.class, () -> settings.withParallel(0));
        assertThrows(IllegalArgumentException.class, () -> settings.withPageUrlTtl(Duration.ofMillis(999)));
        assertThrows(IllegalArgumentException.class, () -> settings.withPageUrlTtl(Duration.ofHours(2)));
        assertEquals(List.of(), gateway.requests);
    }

    @Test
    @DisplayName("A second preview or download to a directory is refused before anything is sent, until the first has ended")
    void oneAtATime() throws Exception {
        Path file = file("0123456789");
        PreviewJob done = job("d1", 1, "/a/");
        created();
        gateway.answers(WatchPreviewJobResponse.newBuilder().setJob(done).build());
        List<String> refused = new ArrayList<>();
        Path link = Files.createSymbolicLink(folder.resolve("link"), pages());
        TransferSettings settings = TransferSettings.defaults().withJobs(job -> {
            int sent = gateway.requests.size();
            for (Path same : List.of(pages(), folder.resolve("x").resolve("..").resolve("pages"), link)) {
                InvalidRequest error = assertThrows(InvalidRequest.class, () -> client.preview(file, "b", same));
                assertEquals("another download goes to " + same, error.sentence());
                assertEquals(Retry.NEVER, error.retry());
                assertThrows(InvalidRequest.class, () -> client.download(done, same));
                refused.add(error.sentence());
            }
            assertEquals(sent, gateway.requests.size());
        });
        Files.createDirectories(folder.resolve("x"));
        client.preview(file, REQUEST, pages(), settings);
        assertEquals(6, refused.size());
        assertEquals(1, client.download(done, pages()).size());
    }

    @Test
    @DisplayName("A preview's own key that is taken, or a content that is not whole, stays an error, and no job is made")
    void uploadRefused() throws Exception {
        Path file = file("0123456789");
        CreatePreviewJobRequest own = REQUEST.toBuilder().setInputObject("in/mine.pdf").build();
        gateway.breaks(EXISTS);
        assertThrows(InvalidRequest.class, () -> client.preview(file, own, pages(), TransferSettings.defaults()));
        assertEquals("in/mine.pdf", requests(CreateUploadRequest.class).get(0).getObject());
        gateway.answers(upload("t", IN_AN_HOUR))
                .breaks(Gateway.errorSaying(
                        "an object of this key exists already", Status.Code.FAILED_PRECONDITION, "UPLOAD_INCOMPLETE"));
        assertThrows(FailedPrecondition.class, () -> client.preview(file, "b", pages()));
        assertEquals(List.of(), requests(CreatePreviewJobRequest.class));
    }

    @Test
    @DisplayName("A preview whose create is lost tells the id to repeat it with, also where creates are made once")
    void outcomeUnknown() throws Exception {
        gateway.answers(upload("t", IN_AN_HOUR)).answers(UPLOADED).breaks(Status.UNAVAILABLE.asException());
        Path file = file("0123456789");
        try (DocPreviewClient careful = DocPreviewClient.builder(gateway.target()).repeatCreates(false).build()) {
            OutcomeUnknown error = assertThrows(OutcomeUnknown.class, () -> careful.preview(file, "b", pages()));
            assertEquals("in/" + digits(error.createId(), "0123456789") + ".pdf", lastKey());
        }
    }

    @Test
    @DisplayName("Pages of another job are gone as soon as the new job is made, also when that one fails")
    void stalePages() throws Exception {
        client.download(job("d0", 2, "/a/"), pages());
        created();
        PreviewJob failed = SUBMITTED.toBuilder().setState(State.STATE_FAILED).build();
        gateway.answers(WatchPreviewJobResponse.newBuilder().setJob(failed).build());
        List<List<String>> seen = new ArrayList<>();
        TransferSettings settings =
                TransferSettings.defaults().withJobs(job -> seen.add(assertDoesNotThrow(this::onDisk)));
        Preview preview = client.preview(file("0123456789"), REQUEST, pages(), settings);
        assertEquals(failed, preview.job());
        assertEquals(List.of(List.of(Manifest.NAME), List.of(Manifest.NAME)), seen);
    }
}
