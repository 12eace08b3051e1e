package com.docpreview.client;

import com.docpreview.v1.Page;
import com.docpreview.v1.PreviewJob.State;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewResult;
import com.docpreview.v1.Upload;
import com.docpreview.v1.UploadPart;
import com.docpreview.v1.UploadedObject;
import com.google.protobuf.Message;
import com.google.protobuf.Timestamp;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.io.TempDir;

/** A client, its gateway and its store on real sockets, and what they exchange. */
abstract class TransfersFixture {
    static final long IN_AN_HOUR = 3600;
    static final UploadedObject UPLOADED =
            UploadedObject.newBuilder().setObject("in/1.pdf").setContentLength(10).build();

    @TempDir
    Path folder;

    Gateway gateway;
    CloudStore store;
    DocPreviewClient client;

    @BeforeEach
    final void open() throws IOException {
        gateway = new Gateway();
        store = new CloudStore();
        client = DocPreviewClient.builder(gateway.target()).build();
    }

    @AfterEach
    final void close() throws InterruptedException {
        client.close();
        store.close();
        gateway.close();
    }

    Path file(String content) throws IOException {
        return Files.writeString(folder.resolve("slides.PDF"), content);
    }

    Path pages() {
        return folder.resolve("pages");
    }

    /** An upload of ten bytes in parts of four. */
    Upload upload(String token, long expiresInSeconds) {
        return upload(token, expiresInSeconds, 4);
    }

    /** An upload of ten bytes. */
    Upload upload(String token, long expiresInSeconds, int partLength) {
        Upload.Builder upload = Upload.newBuilder()
                .setUploadToken(token)
                .setExpireTime(Timestamp.newBuilder().setSeconds(Instant.now().getEpochSecond() + expiresInSeconds));
        for (int begin = 0; begin < 10; begin += partLength) {
            int length = Math.min(partLength, 10 - begin);
            upload.addParts(UploadPart.newBuilder()
                    .setUrl(store.url("/part-" + begin))
                    .setOffset(begin)
                    .setLength(length)
                    .putHeaders("host", "bucket.cos.example")
                    .putHeaders("content-length", Integer.toString(length))
                    .putHeaders("x-cos-signed", "yes"));
        }
        return upload.build();
    }

    /** A job whose pages have addresses in the store, under this prefix. */
    PreviewJob job(String id, int pages, String prefix) {
        PreviewResult.Builder result = PreviewResult.newBuilder().setTotalPageCount(pages);
        for (int number = 1; number <= pages; number++) {
            Page.Builder page = Page.newBuilder().setPageNumber(number).setObject("../" + number + ".jpg");
            if (prefix != null) {
                page.setUrl(store.url(prefix + number));
                store.objects.put(prefix + number, ("content of page " + number).getBytes(StandardCharsets.UTF_8));
            }
            result.addPages(page);
        }
        return PreviewJob.newBuilder()
                .setBucket("b")
                .setJobId(id)
                .setState(State.STATE_SUCCESS)
                .setResult(result)
                .build();
    }

    List<String> onDisk() throws IOException {
        try (Stream<Path> files = Files.list(pages())) {
            return files.map(file -> file.getFileName().toString()).sorted().toList();
        }
    }

    <M extends Message> List<M> requests(Class<M> type) {
        return gateway.requests.stream().filter(type::isInstance).map(type::cast).toList();
    }
}
