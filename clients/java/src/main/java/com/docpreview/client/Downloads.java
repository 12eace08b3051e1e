package com.docpreview.client;

import com.docpreview.client.DocPreviewException.FailedPrecondition;
import com.docpreview.client.DocPreviewException.NotFound;
import com.docpreview.client.DocPreviewException.PermissionDenied;
import com.docpreview.v1.GetPreviewJobRequest;
import com.docpreview.v1.Page;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewJobServiceGrpc;
import io.grpc.Status;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;

/** Brings the pages of a job to a directory. */
final class Downloads {
    private static final int OK = 200;
    private static final int PARTIAL_CONTENT = 206;
    private static final int FORBIDDEN = 403;
    private static final int NOT_FOUND = 404;
    private static final int RANGE_NOT_SATISFIABLE = 416;
    /** So often in a row a page's fresh address may be refused. */
    private static final int REFUSALS = 4;

    private final AsyncDocPreviewClient client;
    private final Store store;

    Downloads(AsyncDocPreviewClient client, Store store) {
        this.client = client;
        this.store = store;
    }

    /**
     * That the job can be downloaded.
     *
     * @throws FailedPrecondition it has not succeeded
     */
    static void check(PreviewJob job) {
        if (job.getState() != PreviewJob.State.STATE_SUCCESS) {
            throw new FailedPrecondition(
                    "job " + job.getJobId() + " is in " + job.getState() + ": only a job in STATE_SUCCESS has pages;"
                            + " wait for its end with waitFor or watch",
                    Status.Code.FAILED_PRECONDITION,
                    ErrorFacts.NONE,
                    null);
        }
    }

    /**
     * Takes the directory for the job: pages of another one are deleted.
     *
     * @throws UncheckedIOException it cannot be written
     */
    static void take(Path directory, PreviewJob job) {
        try {
            Manifest.open(directory, job.getJobId());
        } catch (IOException failure) {
            throw new UncheckedIOException(failure.toString(), failure);
        }
    }

    /** Brings the pages of a job that has succeeded to a directory that is there. */
    List<Path> download(PreviewJob job, Path directory, TransferSettings settings, Deadline deadline) {
        try {
            return new Download(job, directory, settings, deadline).run();
        } catch (IOException failure) {
            throw new UncheckedIOException(failure.toString(), failure);
        }
    }

    /** The job with addresses, asked for again by whoever finds an address refused. */
    private final class Addresses {
        private final GetPreviewJobRequest request;
        private final Deadline deadline;
        private PreviewJob job;
        private int version;

        Addresses(PreviewJob job, TransferSettings settings, Deadline deadline) {
            this.job = job;
            this.deadline = deadline;
            this.request = GetPreviewJobRequest.newBuilder()
                    .setBucket(job.getBucket())
                    .setJobId(job.getJobId())
                    .setPageUrlTtl(Wire.of(settings.pageUrlTtl()))
                    .build();
            if (job.getResult().getPagesCount() == 0) {
                refresh(0); // of a list, which leaves out the pages
            }
        }

        synchronized PreviewJob job() {
            return job;
        }

        synchronized int version() {
            return version;
        }

        synchronized String of(int index) {
            if (job.getResult().getPages(index).getUrl().isEmpty()) {
                refresh(version);
            }
            Page page = job.getResult().getPages(index);
            if (page.getUrl().isEmpty()) {
                throw denied("the gateway gives no address for page " + page.getPageNumber() + " of job "
                        + job.getJobId() + ": its policy or its list of buckets does not have the output");
            }
            return page.getUrl();
        }

        /** Fresh addresses, unless somebody else has got them since {@code seen}. */
        synchronized void refresh(int seen) {
            if (version == seen) {
                PreviewJob fresh = client.within(deadline, PreviewJobServiceGrpc.getGetPreviewJobMethod(), request);
                int pages = job.getResult().getPagesCount();
                if (pages > 0 && pages != fresh.getResult().getPagesCount()) {
                    throw new FailedPrecondition(
                            "the pages of job " + job.getJobId() + " have changed",
                            Status.Code.FAILED_PRECONDITION,
                            ErrorFacts.NONE,
                            null);
                }
                job = fresh;
                version++;
            }
        }
    }

    private final class Download {
        private final Path directory;
        private final TransferSettings settings;
        private final Deadline deadline;
        private final Addresses addresses;
        private final Manifest manifest;
        private final List<String> names;
        private int done;
        private long bytes;

        Download(PreviewJob job, Path directory, TransferSettings settings, Deadline deadline) throws IOException {
            this.directory = directory;
            this.settings = settings;
            this.deadline = deadline;
            this.addresses = new Addresses(job, settings, deadline);
            this.names = PageNames.of(addresses.job().getResult());
            this.manifest = Manifest.open(directory, job.getJobId());
        }

        List<Path> run() throws IOException {
            List<Callable<Path>> missing = new ArrayList<>();
            for (int index = 0; index < names.size(); index++) {
                long length = manifest.bytes(names.get(index));
                if (length >= 0) {
                    done++;
                    bytes += length;
                } else {
                    int page = index;
                    missing.add(() -> fetch(page));
                }
            }
            if (done > 0) {
                settings.onProgress().accept(new DownloadProgress(done, names.size(), bytes));
            }
            try {
                Parallel.run(settings.parallel(), missing);
            } finally {
                manifest.write();
            }
            return names.stream().map(directory::resolve).toList();
        }

        private Path fetch(int index) {
            Path file = directory.resolve(names.get(index));
            Path part = directory.resolve(names.get(index) + Manifest.PART);
            try {
                transfer(index, part);
                Files.move(part, file, StandardCopyOption.REPLACE_EXISTING);
                count(names.get(index), Files.size(file));
                return file;
            } catch (IOException failure) {
                throw new UncheckedIOException(file + ": " + failure.getMessage(), failure);
            }
        }

        private void transfer(int index, Path part) throws IOException {
            String what = "page " + (index + 1) + " of " + names.size();
            for (int refusal = 0; ; refusal++) {
                int version = addresses.version();
                String url = addresses.of(index);
                String type = addresses.job().getResult().getPages(index).getContentType();
                Store.Reply reply =
                        Store.repeated(what, deadline, () -> store.get(url, type, part, size(part), deadline));
                if (reply.status() == OK || reply.status() == PARTIAL_CONTENT) {
                    return;
                }
                if (reply.status() == RANGE_NOT_SATISFIABLE && Files.deleteIfExists(part)) {
                    continue; // what is here is not the beginning of this page
                }
                if (reply.status() == NOT_FOUND) {
                    throw new NotFound(
                            what + " is not in the bucket any more", Status.Code.NOT_FOUND, ErrorFacts.NONE, null);
                }
                String sentence = "The cloud answered " + reply + " to " + what + ".";
                if (reply.status() != FORBIDDEN) {
                    throw new FailedPrecondition(
                            sentence, Status.Code.FAILED_PRECONDITION, ErrorFacts.NONE, null);
                }
                if (refusal == REFUSALS) {
                    throw denied(sentence);
                }
                addresses.refresh(version);
            }
        }

        private synchronized void count(String name, long length) throws IOException {
            manifest.add(name, length);
            done++;
            bytes += length;
            settings.onProgress().accept(new DownloadProgress(done, names.size(), bytes));
        }

        private static long size(Path part) throws LocalFailure {
            try {
                return Files.exists(part) ? Files.size(part) : 0;
            } catch (IOException failure) {
                throw new LocalFailure(part, failure);
            }
        }
    }

    private static PermissionDenied denied(String sentence) {
        return new PermissionDenied(sentence, Status.Code.PERMISSION_DENIED, ErrorFacts.NONE, null);
    }
}
