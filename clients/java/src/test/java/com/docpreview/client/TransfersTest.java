package com.docpreview.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.docpreview.client.DocPreviewException.FailedPrecondition;
import com.docpreview.client.DocPreviewException.InvalidRequest;
import com.docpreview.client.DocPreviewException.PermissionDenied;
import com.docpreview.client.DocPreviewException.Unavailable;
import com.docpreview.v1.AbortUploadRequest;
import com.docpreview.v1.CompleteUploadRequest;
import com.docpreview.v1.CreateUploadRequest;
import com.docpreview.v1.GetPreviewJobRequest;
import com.docpreview.v1.Page;
import com.docpreview.v1.PreviewJob.State;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewResult;
import io.grpc.Status;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.http.HttpTimeoutException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Uploads and downloads, against a gateway and a store on real sockets. */
@Timeout(60)
final class TransfersTest extends TransfersFixture {
    @Test
    @DisplayName("An upload puts each part with its headers, and completes with the ETags in order")
    void upload() throws Exception {
        gateway.answers(upload("t", IN_AN_HOUR)).answers(UPLOADED);
        assertEquals(UPLOADED, client.upload(file("0123456789"), "b"));
        CreateUploadRequest created = requests(CreateUploadRequest.class).get(0);
        assertEquals("in/${UploadId}.pdf", created.getObject());
        assertEquals(10, created.getContentLength());
        assertArrayEquals(
                MessageDigest.getInstance("MD5").digest("0123456789".getBytes(StandardCharsets.UTF_8)),
                created.getContentMd5().toByteArray());
        assertEquals(
                List.of("\"etag-of-part-0\"", "\"etag-of-part-4\"", "\"etag-of-part-8\""),
                requests(CompleteUploadRequest.class).get(0).getEtagsList());
        for (CloudStore.Asked put : store.asked) {
            int offset = Integer.parseInt(put.path().substring("/part-".length()));
            byte[] expected = "0123456789".substring(offset, Math.min(10, offset + 4)).getBytes(StandardCharsets.UTF_8);
            assertArrayEquals(expected, put.body());
            assertEquals("yes", put.headers().get("x-cos-signed"));
            assertEquals(Integer.toString(expected.length), put.headers().get("content-length"));
            assertFalse(put.headers().containsKey("upgrade"));
        }
        assertEquals(List.of(), requests(AbortUploadRequest.class));
    }

    @Test
    @DisplayName("A part that the store cannot take now is put again")
    void partRepeated() throws Exception {
        gateway.answers(upload("t", IN_AN_HOUR)).answers(UPLOADED);
        store.refuses("/part-4", 503, 429);
        assertEquals(UPLOADED, client.upload(file("0123456789"), "b"));
        assertEquals(List.of("/part-0", "/part-4", "/part-4", "/part-4", "/part-8"), store.paths("PUT"));
    }

    @Test
    @DisplayName("A document that is there already, since a reply was lost, is completed with its MD5 as the ETag")
    void thereAlready() throws Exception {
        Path file = file("0123456789");
        for (boolean lost : List.of(true, false)) {
            gateway.requests.clear();
            store.asked.clear();
            gateway.answers(upload("t", IN_AN_HOUR, 10)).answers(UPLOADED);
            if (lost) {
                store.losesReply("/part-0");
            }
            store.refuses("/part-0", 409);
            assertEquals(UPLOADED, client.upload(file, "b"));
            assertTrue(store.asked.size() >= (lost ? 2 : 1), store.asked.toString());
            assertEquals(
                    List.of("\"781e5e245d69b566979b86e28d23f2c7\""),
                    requests(CompleteUploadRequest.class).get(0).getEtagsList());
        }
    }

    @Test
    @DisplayName("An object of another upload is the gateway's error, a conflict of one part of several is one too")
    void anotherObject() throws Exception {
        Path file = file("0123456789");
        gateway.answers(upload("t", IN_AN_HOUR, 10))
                .breaks(Gateway.error(Status.Code.FAILED_PRECONDITION, "UPLOAD_INCOMPLETE"));
        store.refuses("/part-0", 409, 409);
        FailedPrecondition error = assertThrows(FailedPrecondition.class, () -> client.upload(file, "b"));
        assertEquals("UPLOAD_INCOMPLETE", error.reason());
        gateway.answers(upload("t", IN_AN_HOUR));
        error = assertThrows(FailedPrecondition.class, () -> client.upload(file, "b"));
        assertEquals("", error.reason());
        assertEquals(2, requests(AbortUploadRequest.class).size());
    }

    @Test
    @DisplayName("An upload whose part is refused is aborted, and the error has no address")
    void partRefused() throws Exception {
        gateway.answers(upload("t", IN_AN_HOUR));
        store.refuses("/part-4", 403);
        Path file = file("0123456789");
        PermissionDenied error = assertThrows(PermissionDenied.class, () -> client.upload(file, "b"));
        assertTrue(error.getMessage().contains("HTTP 403 AsTheTestSays to part 2 of 3"), error.getMessage());
        assertFalse(error.getMessage().contains("secret"), error.getMessage());
        assertEquals("t", requests(AbortUploadRequest.class).get(0).getUploadToken());
    }

    @Test
    @DisplayName("An upload whose addresses have expired begins again, once")
    void uploadExpired() throws Exception {
        gateway.answers(upload("old", -1)).answers(upload("new", IN_AN_HOUR)).answers(UPLOADED);
        store.refuses("/part-0", 403);
        assertEquals(UPLOADED, client.upload(file("0123456789"), "b"));
        assertEquals("old", requests(AbortUploadRequest.class).get(0).getUploadToken());
        assertEquals("new", requests(CompleteUploadRequest.class).get(0).getUploadToken());
        gateway.answers(upload("old", -1)).answers(upload("old", -1));
        store.refuses("/part-0", 403, 403);
        Path file = file("0123456789");
        assertThrows(PermissionDenied.class, () -> client.upload(file, "b"));
    }

    @Test
    @DisplayName("A store that cannot be reached is Unavailable, after three repeats")
    void storeAway() throws Exception {
        gateway.answers(upload("t", IN_AN_HOUR));
        Path file = file("0123456789");
        store.close();
        Unavailable error = assertThrows(Unavailable.class, () -> client.upload(file, "b"));
        assertEquals(Retry.NOW, error.retry());
        assertFalse(error.getMessage().contains("secret"), error.getMessage());
    }

    @Test
    @DisplayName("A file that is not there is told before anything is sent")
    void noFile() {
        Path missing = folder.resolve("missing.pdf");
        UncheckedIOException error =
                assertThrows(UncheckedIOException.class, () -> client.upload(missing, "b"));
        assertTrue(error.getMessage().contains("there is no such file"), error.getMessage());
        assertEquals(List.of(), gateway.requests);
    }

    @Test
    @DisplayName("A download brings all pages under names that sort, tells its progress, and takes nothing twice")
    void download() throws Exception {
        PreviewJob job = job("d1", 12, "/a/");
        List<DownloadProgress> told = new ArrayList<>();
        TransferSettings settings = TransferSettings.defaults().withProgress(told::add);
        List<Path> files = client.download(job, pages(), settings);
        List<String> names = IntStream.rangeClosed(1, 12)
                .mapToObj(number -> String.format("page-%04d.jpg", number))
                .toList();
        assertEquals(names, files.stream().map(file -> file.getFileName().toString()).toList());
        assertEquals("content of page 12", Files.readString(files.get(11)));
        assertEquals(Stream.concat(Stream.of(Manifest.NAME), names.stream()).toList(), onDisk());
        assertEquals(12, told.size());
        assertEquals(new DownloadProgress(12, 12, 9 * 17 + 3 * 18), told.get(11));

        Files.writeString(files.get(3), "cut");
        told.clear();
        assertEquals(files, client.download(job, pages(), settings));
        assertEquals(List.of(11, 12), told.stream().map(DownloadProgress::pagesDone).toList());
        assertEquals("content of page 4", Files.readString(files.get(3)));
        assertEquals(13, store.asked.size());
    }

    @Test
    @DisplayName("Pages of another job do not stay among the new ones, and nothing else is deleted")
    void anotherJob() throws Exception {
        client.download(job("d1", 5, "/a/"), pages());
        Files.writeString(pages().resolve("page-0007.jpg.part"), "of the first job");
        Files.writeString(pages().resolve("mine.txt"), "mine");
        Path manifest = pages().resolve(Manifest.NAME);
        Path outside = Files.writeString(folder.resolve("outside.jpg"), "mine");
        Files.writeString(manifest, Files.readString(manifest).replace("{\"page-0001", "{\"../outside.jpg\":4,\"page-0001"));
        client.download(job("d2", 2, "/b/"), pages());
        assertEquals(List.of(Manifest.NAME, "mine.txt", "page-0001.jpg", "page-0002.jpg"), onDisk());
        assertTrue(Files.exists(outside));
        assertEquals(
                "{\"job_id\":\"d2\",\"pages\":{\"page-0001.jpg\":17,\"page-0002.jpg\":17}}\n",
                Files.readString(manifest));
    }

    @Test
    @DisplayName("Addresses that are missing or refused are asked for again, once for all pages")
    void freshAddresses() throws Exception {
        PreviewJob fresh = job("d1", 4, "/fresh/");
        PreviewJob old = job("d1", 4, "/old/");
        store.refuses("/old/1", 403).refuses("/old/2", 403).refuses("/old/3", 403).refuses("/old/4", 403);
        gateway.answers(fresh);
        assertEquals(4, client.download(old, pages()).size());
        assertEquals(900, requests(GetPreviewJobRequest.class).get(0).getPageUrlTtl().getSeconds());

        gateway.answers(job("d2", 4, "/fresh/"));
        assertEquals(4, client.download(job("d2", 4, null), pages()).size());
        gateway.answers(job("d3", 4, "/fresh/"));
        PreviewJob listed = job("d3", 4, null).toBuilder().clearResult().build();
        assertEquals(4, client.download(listed, pages()).size());
        assertEquals(3, gateway.requests.size());
    }

    @Test
    @DisplayName("Pages for which the gateway gives no address are PermissionDenied")
    void noAddresses() {
        PreviewJob job = job("d1", 1, null);
        gateway.answers(job);
        PermissionDenied error = assertThrows(PermissionDenied.class, () -> client.download(job, pages()));
        assertTrue(error.getMessage().contains("gives no address for page 1"), error.getMessage());
    }

    @Test
    @DisplayName("A page that breaks off goes on where it ended, and is whole before it gets its name")
    void resumed() throws Exception {
        PreviewJob job = job("d1", 1, "/a/");
        store.breaksAfter("/a/1", 5).refuses("/a/1", 500);
        List<Path> files = client.download(job, pages());
        assertEquals("content of page 1", Files.readString(files.get(0)));
        List<String> ranges = store.asked.stream()
                .map(asked -> String.valueOf(asked.headers().get("range")))
                .toList();
        assertEquals(List.of("null", "bytes=5-", "bytes=5-"), ranges);
        assertEquals(List.of(Manifest.NAME, "page-0001.jpg"), onDisk());
    }

    @Test
    @DisplayName("The beginning of a page that is longer than the page is thrown away")
    void tooLong() throws Exception {
        PreviewJob job = job("d1", 2, "/a/");
        store.refuses("/a/2", 400);
        assertThrows(FailedPrecondition.class, () -> client.download(job, pages()));
        Files.writeString(pages().resolve("page-0002.jpg.part"), "more than the page has ever had");
        List<Path> files = client.download(job, pages());
        assertEquals("content of page 2", Files.readString(files.get(1)));
    }

    @Test
    @DisplayName("Only a job that has succeeded has pages")
    void notSucceeded() {
        PreviewJob failed = job("d1", 1, "/a/").toBuilder().setState(State.STATE_FAILED).build();
        assertThrows(FailedPrecondition.class, () -> client.download(failed, pages()));
    }

    @Test
    @DisplayName("Names come from numbers: of pages, of sheets and pages, counted where they are missing")
    void names() {
        Page first = Page.newBuilder().setPageNumber(1).setPictureNumber(1).setObject("a/1.png").build();
        Page second = first.toBuilder().setPictureNumber(2).build();
        Page other = Page.newBuilder().setPageNumber(2).setObject("../../b.sh").build();
        PreviewResult.Builder sheets = PreviewResult.newBuilder().setTotalSheetCount(2);
        assertEquals(
                List.of("sheet-01-page-002.png", "sheet-01-page-001.png", "sheet-02-page-001.jpg", "sheet-02-page-002.jpg"),
                PageNames.of(sheets.addAllPages(List.of(second, first, other, other)).build()));
        assertEquals(
                List.of("page-0001.png", "page-0002.png"),
                PageNames.of(PreviewResult.newBuilder().addAllPages(List.of(first, second)).build()));
        assertEquals(
                List.of("page-12345.jpg"),
                PageNames.of(PreviewResult.newBuilder()
                        .addPages(Page.newBuilder().setPageNumber(12345).setContentType("image/jpeg"))
                        .build()));
        assertEquals(
                List.of("document.pdf"),
                PageNames.of(PreviewResult.newBuilder()
                        .addPages(Page.newBuilder().setContentType("application/pdf"))
                        .build()));
    }

    @Test
    @DisplayName("A file that changes while it is uploaded, in length or time, is aborted, also when that fails a part")
    void changedMeanwhile() throws Exception {
        Path file = file("0123456789");
        FileTime later = FileTime.from(Instant.now().plusSeconds(60));
        for (Change change : List.<Change>of(
                () -> Files.writeString(file, "0123456789 and more"),
                () -> Files.setLastModifiedTime(file, later),
                () -> {
                    Files.writeString(file, "9876543210");
                    store.refuses("/part-4", 400);
                })) {
            gateway.requests.clear();
            gateway.answers(upload("t", IN_AN_HOUR));
            Files.writeString(file, "0123456789");
            Files.setLastModifiedTime(file, FileTime.from(Instant.EPOCH));
            store.during("/part-4", () -> assertDoesNotThrow(change::make));
            FailedPrecondition error = assertThrows(FailedPrecondition.class, () -> client.upload(file, "b"));
            assertTrue(error.getMessage().contains(file + " has changed while it was uploaded"), error.getMessage());
            assertEquals(1, requests(AbortUploadRequest.class).size());
            assertEquals(List.of(), requests(CompleteUploadRequest.class));
        }
    }

    /** What is done to a file. */
    @FunctionalInterface
    private interface Change {
        void make() throws IOException;
    }

    @Test
    @DisplayName("An empty file is refused before anything is sent")
    void emptyFile() throws Exception {
        Path file = file("");
        InvalidRequest error = assertThrows(InvalidRequest.class, () -> client.upload(file, "b"));
        assertEquals(file + " is empty", error.sentence());
        assertEquals(Retry.NEVER, error.retry());
        assertThrows(InvalidRequest.class, () -> client.preview(file, "b", pages()));
        assertEquals(List.of(), gateway.requests);
    }

    @Test
    @DisplayName("A file that is no regular file is refused before anything is sent, and a FIFO is not waited for")
    void noRegularFile() throws Exception {
        Path fifo = folder.resolve("slides.pdf");
        assertEquals(0, new ProcessBuilder("mkfifo", fifo.toString()).start().waitFor());
        for (Path file : List.of(fifo, Path.of("/dev/null"), folder, Path.of("/"))) {
            InvalidRequest error = assertThrows(InvalidRequest.class, () -> client.upload(file, "b"));
            assertEquals(file + " is not a regular file", error.sentence());
            assertEquals(Retry.NEVER, error.retry());
            assertThrows(InvalidRequest.class, () -> client.preview(file, "b", pages()));
        }
        assertEquals(List.of(), gateway.requests);
    }

    @Test
    @DisplayName("What a proxy answers to a part is no reply of the store, and is not followed")
    void foreignReplies() throws Exception {
        Path file = file("0123456789");
        Store direct = new Store(null);
        String etag = "\"a\"";
        Map<CloudStore.Foreign, String> replies = Map.of(
                new CloudStore.Foreign(200, Map.of()), "it has no ETag, with HTTP 200",
                new CloudStore.Foreign(201, Map.of("etag", etag)), "its status is HTTP 201",
                new CloudStore.Foreign(204, Map.of("etag", etag)), "its status is HTTP 204",
                new CloudStore.Foreign(302, Map.of("location", store.url("/login"))), "its status is HTTP 302",
                new CloudStore.Foreign(307, Map.of("location", store.url("/login"))), "its status is HTTP 307",
                new CloudStore.Foreign(407, Map.of()), "its status is HTTP 407",
                new CloudStore.Foreign(101, Map.of("upgrade", "other")), "Unexpected 101 response, when not upgrading",
                new CloudStore.Foreign(200, Map.of("etag", etag, "content-type", "text/html; charset=utf-8")),
                        "it is a page of HTML, with HTTP 200",
                new CloudStore.Foreign(403, Map.of("content-type", "Text/HTML")), "it is a page of HTML, with HTTP 403",
                new CloudStore.Foreign(409, Map.of("content-type", "text/html")), "it is a page of HTML, with HTTP 409");
        for (Map.Entry<CloudStore.Foreign, String> reply : replies.entrySet()) {
            store.isReplaced("/part-0", reply.getKey());
            ForeignReply error = assertThrows(
                    ForeignReply.class,
                    () -> direct.put(
                            store.url("/part-0"), Map.of(), file, 0, 10, Deadline.after(Duration.ofSeconds(20))));
            assertEquals(reply.getValue(), error.getMessage());
        }
        assertEquals(Set.of("/part-0"), Set.copyOf(store.paths("PUT")));
        assertEquals(List.of(), store.paths("GET"));
    }

    @Test
    @DisplayName("A part that a proxy answers is put again, and then Unavailable")
    void foreignRepeated() throws Exception {
        Path file = file("0123456789");
        CloudStore.Foreign page = new CloudStore.Foreign(403, Map.of("content-type", "text/html"));
        gateway.answers(upload("t", IN_AN_HOUR)).answers(UPLOADED);
        store.isReplaced("/part-4", page, page);
        assertEquals(UPLOADED, client.upload(file, "b"));
        gateway.answers(upload("t", -1)); // no reason to begin again: not the store has refused
        store.isReplaced("/part-4", page, page, page, page);
        Unavailable error = assertThrows(Unavailable.class, () -> client.upload(file, "b"));
        assertEquals(Retry.NOW, error.retry());
        assertTrue(error.getMessage().contains("such as a proxy, answered to part 2 of 3"), error.getMessage());
        assertEquals(1, requests(AbortUploadRequest.class).size());
        assertEquals(2, requests(CreateUploadRequest.class).size());
    }

    @Test
    @DisplayName("A reply of another content type than the page's, or without content, is no page")
    void notThePage() throws Exception {
        PreviewJob job = typed(job("d1", 2, "/a/"), "image/jpeg");
        store.types.put("/a/1", "IMAGE/jpeg; charset=binary");
        store.types.put("/a/2", "text/html");
        Unavailable error = assertThrows(Unavailable.class, () -> client.download(job, pages()));
        assertEquals(Retry.NOW, error.retry());
        assertTrue(error.getMessage().contains("such as a proxy, answered to page 2 of 2"), error.getMessage());
        assertTrue(error.getMessage().contains("content type is text/html, not image/jpeg"), error.getMessage());
        assertFalse(Files.exists(pages().resolve("page-0002.jpg")));
        assertFalse(Files.exists(pages().resolve("page-0002.jpg.part")));
        assertEquals(4, store.paths("GET").stream().filter("/a/2"::equals).count());

        store.types.remove("/a/2");
        byte[] page = store.objects.put("/a/2", new byte[0]);
        error = assertThrows(Unavailable.class, () -> client.download(job, pages()));
        assertTrue(error.getMessage().contains("its body is empty"), error.getMessage());
        for (int status : List.of(204, 302)) {
            store.refuses("/a/2", status, status, status, status);
            error = assertThrows(Unavailable.class, () -> client.download(job, pages()));
            assertTrue(error.getMessage().contains("its status is HTTP " + status), error.getMessage());
        }
        assertFalse(Files.exists(pages().resolve("page-0002.jpg")));

        store.objects.put("/a/2", page);
        assertEquals("content of page 2", Files.readString(client.download(job, pages()).get(1)));
    }

    @Test
    @DisplayName("A page that is longer than told is fetched anew")
    void longerThanTold() throws Exception {
        PreviewJob job = job("d1", 1, "/a/");
        store.breaksAfter("/a/1", 5).isTooLong("/a/1");
        assertEquals("content of page 1", Files.readString(client.download(job, pages()).get(0)));
        assertEquals(
                Arrays.asList(null, "bytes=5-", null),
                store.asked.stream().map(asked -> asked.headers().get("range")).toList());
    }

    @Test
    @DisplayName("A body without end is no page and leaves no file, and one that stops is a broken connection")
    void withoutEnd() throws Exception {
        job("d1", 1, "/a/");
        Path part = folder.resolve("part");
        Store bounded = new Store(null, Duration.ofMillis(500), 17);
        Deadline deadline = Deadline.after(Duration.ofSeconds(30));
        store.isTooLong("/a/1");
        ForeignReply error = assertThrows(
                ForeignReply.class, () -> bounded.get(store.url("/a/1"), "", part, 0, deadline));
        assertEquals("its body has more than 17 bytes", error.getMessage());
        assertFalse(Files.exists(part));

        store.stopsAfter("/a/1", 5);
        assertThrows(HttpTimeoutException.class, () -> bounded.get(store.url("/a/1"), "", part, 0, deadline));
        assertFalse(deadline.hasPassed());
        assertEquals("conte", Files.readString(part));
    }

    private static PreviewJob typed(PreviewJob job, String type) {
        PreviewJob.Builder typed = job.toBuilder();
        typed.getResultBuilder().getPagesBuilderList().forEach(page -> page.setContentType(type));
        return typed.build();
    }
}
