package com.docpreview.client;

import com.docpreview.client.DocPreviewException.FailedPrecondition;
import com.docpreview.client.DocPreviewException.Interrupted;
import com.docpreview.client.DocPreviewException.InvalidRequest;
import com.docpreview.client.DocPreviewException.PermissionDenied;
import com.docpreview.v1.AbortUploadRequest;
import com.docpreview.v1.CompleteUploadRequest;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.CreateUploadRequest;
import com.docpreview.v1.Upload;
import com.docpreview.v1.UploadPart;
import com.docpreview.v1.UploadServiceGrpc;
import com.docpreview.v1.UploadedObject;
import com.google.protobuf.ByteString;
import io.grpc.Status;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Brings a file to a bucket: CreateUpload, a PUT of each part, CompleteUpload. */
final class Uploads {
    private static final int PARALLEL = 4;
    /** Contents up to this size go in one part, of which the cloud checks the MD5. */
    private static final long ONE_PART = 16L << 20;
    private static final Duration ABORT_WITHIN = Duration.ofSeconds(10);
    private static final int OK = 200;
    private static final int FORBIDDEN = 403;
    private static final int CONFLICT = 409;
    /** What a key may have in the place of digits that are new with each upload. */
    private static final String UPLOAD_ID = "${UploadId}";

    private static final Pattern SUFFIX = Pattern.compile(".*\\.([A-Za-z0-9]{1,10})");

    private final AsyncDocPreviewClient client;
    private final Store store;

    Uploads(AsyncDocPreviewClient client, Store store) {
        this.client = client;
        this.store = store;
    }

    /** A name for the file that no other upload has. */
    static String template(Path file) {
        String suffix = suffix(String.valueOf(file.getFileName()));
        return "in/" + UPLOAD_ID + (suffix.isEmpty() ? "" : "." + suffix);
    }

    /** The suffix of a name, in lower case; empty when it has none that can stand in a key. */
    static String suffix(String name) {
        Matcher matcher = SUFFIX.matcher(name);
        return matcher.matches() ? matcher.group(1).toLowerCase(Locale.ROOT) : "";
    }

    /**
     * That the file can be read and has content. One that is no regular file is not opened: a FIFO would have to be waited
     * for.
     *
     * @throws UncheckedIOException it cannot be read
     * @throws InvalidRequest it is empty, or no regular file
     */
    static void check(Path file) {
        try {
            if (!Files.isRegularFile(file)) {
                if (Files.exists(file)) {
                    throw InvalidRequest.local(file + " is not a regular file");
                }
                throw new NoSuchFileException(file.toString(), null, "there is no such file");
            }
            if (!Files.isReadable(file)) {
                throw new IOException(file + " cannot be read");
            }
            if (Files.size(file) == 0) {
                throw InvalidRequest.local(file + " is empty");
            }
        } catch (IOException failure) {
            throw new UncheckedIOException(failure.getMessage(), failure);
        }
    }

    UploadedObject upload(Path file, String bucket, String object, String contentType, Deadline deadline) {
        check(file);
        Version version = Version.of(file);
        ByteString md5 = version.isOnePart() ? md5(file, deadline) : ByteString.EMPTY;
        CreateUploadRequest request = CreateUploadRequest.newBuilder()
                .setBucket(bucket)
                .setObject(object.isEmpty() ? template(file) : object)
                .setContentLength(version.length())
                .setContentType(contentType)
                .setContentMd5(md5)
                .build();
        return attempt(file, version, request, deadline, true);
    }

    /**
     * Brings the input of a preview and returns its key, in which {@code ${UploadId}} becomes digits of this {@code
     * request_id} and this content alone. An object of several parts that is there already is the one that an earlier
     * attempt has brought; one of a single part has been compared by the gateway, and is another's.
     */
    String bring(Path file, CreatePreviewJobRequest preview, String contentType, Deadline deadline) {
        String template = preview.getInputObject().isEmpty() ? template(file) : preview.getInputObject();
        if (!template.contains(UPLOAD_ID)) {
            return upload(file, preview.getBucket(), template, contentType, deadline).getObject();
        }
        check(file);
        Version version = Version.of(file);
        ByteString md5 = md5(file, deadline);
        String key = template.replace(UPLOAD_ID, digits(preview.getRequestId(), md5));
        CreateUploadRequest request = CreateUploadRequest.newBuilder()
                .setBucket(preview.getBucket())
                .setObject(key)
                .setContentLength(version.length())
                .setContentType(contentType)
                .setContentMd5(version.isOnePart() ? md5 : ByteString.EMPTY)
                .build();
        try {
            return attempt(file, version, request, deadline, true).getObject();
        } catch (InvalidRequest refused) {
            if (version.isOnePart() || !refused.reason().equals("OBJECT_EXISTS")) {
                throw refused;
            }
            return key;
        }
    }

    private static String digits(String requestId, ByteString md5) {
        String text = requestId.toLowerCase(Locale.ROOT) + "\n" + hex(md5.toByteArray());
        return hex(md5().digest(text.getBytes(StandardCharsets.US_ASCII)));
    }

    private static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }

    private UploadedObject attempt(
            Path file, Version version, CreateUploadRequest request, Deadline deadline, boolean again) {
        Upload upload = client.within(deadline, UploadServiceGrpc.getCreateUploadMethod(), request);
        try {
            String whole = whole(upload, request.getContentMd5());
            List<Callable<String>> puts = new ArrayList<>();
            for (int number = 1; number <= upload.getPartsCount(); number++) {
                UploadPart part = upload.getParts(number - 1);
                String what = "part " + number + " of " + upload.getPartsCount() + " of the upload";
                puts.add(() -> put(what, file, part, whole, upload, deadline));
            }
            List<String> etags = parts(file, version, puts);
            CompleteUploadRequest complete = CompleteUploadRequest.newBuilder()
                    .setUploadToken(upload.getUploadToken())
                    .addAllEtags(etags)
                    .build();
            return client.within(deadline, UploadServiceGrpc.getCompleteUploadMethod(), complete);
        } catch (Expired expired) {
            abort(upload);
            if (!again) {
                throw expired.told();
            }
            return attempt(file, version, request, deadline, false);
        } catch (RuntimeException failure) {
            abort(upload);
            throw failure;
        }
    }

    /** The ETags of the parts. That the file has changed is told first: it can be why a part has failed. */
    private static List<String> parts(Path file, Version version, List<Callable<String>> puts) {
        List<String> etags;
        try {
            etags = Parallel.run(PARALLEL, puts);
        } catch (Expired | Interrupted other) {
            throw other;
        } catch (RuntimeException failure) {
            version.check(file, failure);
            throw failure;
        }
        version.check(file, null);
        return etags;
    }

    /** The ETag of the object where it has one part and its MD5 is known; else empty. */
    private static String whole(Upload upload, ByteString md5) {
        boolean known = upload.getPartsCount() == 1 && !md5.isEmpty();
        return known ? '"' + hex(md5.toByteArray()) + '"' : "";
    }

    private String put(String what, Path file, UploadPart part, String whole, Upload upload, Deadline deadline) {
        Store.Reply reply = Store.repeated(
                what,
                deadline,
                () -> store.put(
                        part.getUrl(), part.getHeadersMap(), file, part.getOffset(), part.getLength(), deadline));
        if (reply.status() == OK) {
            return reply.etag();
        }
        if (reply.status() == CONFLICT && !whole.isEmpty()) {
            // Most likely the content that an attempt has put whose reply was lost; CompleteUpload tells.
            return whole;
        }
        String sentence = "The cloud answered " + reply + " to " + what + ".";
        if (reply.status() == FORBIDDEN) {
            PermissionDenied denied =
                    new PermissionDenied(sentence, Status.Code.PERMISSION_DENIED, ErrorFacts.NONE, null);
            boolean expired = Instant.now().getEpochSecond() >= upload.getExpireTime().getSeconds();
            throw expired ? new Expired(denied) : denied;
        }
        throw new FailedPrecondition(sentence, Status.Code.FAILED_PRECONDITION, ErrorFacts.NONE, null);
    }

    /** The parts that were put are not left behind, as far as the gateway can be reached; the first failure is the one to tell. */
    private void abort(Upload upload) {
        boolean interrupted = Thread.interrupted(); // else the call ends before it begins
        try {
            AbortUploadRequest request =
                    AbortUploadRequest.newBuilder().setUploadToken(upload.getUploadToken()).build();
            client.within(Deadline.after(ABORT_WITHIN), UploadServiceGrpc.getAbortUploadMethod(), request);
        } catch (DocPreviewException left) {
            // The cloud deletes parts that nobody completes by the bucket's rules.
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    private static ByteString md5(Path file, Deadline deadline) {
        try (InputStream content = Files.newInputStream(file)) {
            MessageDigest digest = md5();
            byte[] buffer = new byte[1 << 20];
            for (int read = content.read(buffer); read >= 0; read = content.read(buffer)) {
                digest.update(buffer, 0, read);
                deadline.check();
                if (Thread.currentThread().isInterrupted()) {
                    throw Errors.interrupted(null);
                }
            }
            return ByteString.copyFrom(digest.digest());
        } catch (IOException failure) {
            throw new UncheckedIOException(failure.getMessage(), failure);
        }
    }

    private static MessageDigest md5() {
        try {
            return MessageDigest.getInstance("MD5");
        } catch (NoSuchAlgorithmException never) { // each Java has it
            throw new IllegalStateException(never);
        }
    }

    /** What tells that a file is still the same. */
    private record Version(long length, FileTime modified) {
        static Version of(Path file) {
            try {
                BasicFileAttributes found = Files.readAttributes(file, BasicFileAttributes.class);
                return new Version(found.size(), found.lastModifiedTime());
            } catch (IOException failure) {
                throw new UncheckedIOException(failure.toString(), failure);
            }
        }

        boolean isOnePart() {
            return length <= ONE_PART;
        }

        /**
         * Does nothing when the file is as it was.
         *
         * @throws FailedPrecondition it has changed
         */
        void check(Path file, RuntimeException cause) {
            if (!of(file).equals(this)) {
                throw new FailedPrecondition(
                        file + " has changed while it was uploaded; upload it again when nobody writes to it any more",
                        Status.Code.FAILED_PRECONDITION,
                        ErrorFacts.NONE,
                        cause);
            }
        }
    }

    /** The addresses were too old. */
    private static final class Expired extends RuntimeException {
        private static final long serialVersionUID = 1L;

        Expired(PermissionDenied told) {
            super(told);
        }

        PermissionDenied told() {
            return (PermissionDenied) getCause();
        }
    }
}
