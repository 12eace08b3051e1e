package com.docpreview.client;

import com.docpreview.client.DocPreviewException.PreviewUnfinished;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.UploadedObject;
import com.docpreview.v1.WatchPreviewJobRequest;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicReference;

/** Uploads, downloads, and both around a job. They block, on the thread that calls. */
final class Transfers {
    /** The suffixes of spreadsheets, whose results need {@code ${SheetID}} in their names. */
    private static final Set<String> SPREADSHEETS =
            Set.of("csv", "et", "ets", "ett", "xls", "xlsb", "xlsm", "xlsx", "xlt", "xltm", "xltx");

    private final AsyncDocPreviewClient client;
    private final Uploads uploads;
    private final Downloads downloads;

    Transfers(AsyncDocPreviewClient client, Store store) {
        this.client = client;
        this.uploads = new Uploads(client, store);
        this.downloads = new Downloads(client, store);
    }

    UploadedObject upload(Path file, String bucket, String object, TransferSettings settings) {
        return uploads.upload(file, bucket, object, settings.contentType(), Deadline.after(settings.timeout()));
    }

    List<Path> download(PreviewJob job, Path directory, TransferSettings settings) {
        Deadline deadline = Deadline.after(settings.timeout());
        Downloads.check(job);
        try (Exclusive taken = Exclusive.of(directory)) {
            return downloads.download(job, directory, settings, deadline);
        }
    }

    Preview preview(Path file, CreatePreviewJobRequest request, Path directory, TransferSettings settings) {
        Deadline deadline = Deadline.after(settings.timeout());
        Uploads.check(file);
        CreatePreviewJobRequest identified = Creates.withRequestId(request);
        Creates.check(identified.getRequestId());
        try (Exclusive taken = Exclusive.of(directory)) { // before anything is sent, and billed
            return preview(file, identified, directory, settings, deadline);
        }
    }

    private Preview preview(
            Path file,
            CreatePreviewJobRequest request,
            Path directory,
            TransferSettings settings,
            Deadline deadline) {
        CreatePreviewJobRequest.Builder create = request.toBuilder();
        create.setInputObject(uploads.bring(file, request, settings.contentType(), deadline));
        if (create.getOutput().getObject().isEmpty()) {
            create.getOutputBuilder().setObject(output(create.getInputObject(), request));
        }
        AtomicReference<PreviewJob> seen = new AtomicReference<>(client.createWithin(deadline, create.build()));
        try {
            Downloads.take(directory, seen.get()); // a job that fails leaves no pages of an earlier one
            PreviewJob ended = follow(seen, request.getBucket(), settings, deadline);
            boolean good = ended.getState() == PreviewJob.State.STATE_SUCCESS;
            return new Preview(
                    ended, good ? downloads.download(ended, directory, settings, deadline) : List.of());
        } catch (RuntimeException failure) {
            throw new PreviewUnfinished(seen.get(), failure); // the job is billed: repeating all of it bills another
        }
    }

    private PreviewJob follow(
            AtomicReference<PreviewJob> seen, String bucket, TransferSettings settings, Deadline deadline) {
        PreviewJob created = seen.get();
        WatchPreviewJobRequest request = WatchPreviewJobRequest.newBuilder()
                .setBucket(bucket)
                .setJobId(created.getJobId())
                .setPageUrlTtl(Wire.of(settings.pageUrlTtl()))
                .build();
        CallSettings within = CallSettings.defaults().withTimeout(deadline.remaining());
        try (Watch<PreviewJob> watch = client.blockingWatch(request, created, within)) {
            for (PreviewJob job : watch) {
                seen.set(job);
                settings.onJob().accept(job);
            }
        }
        return seen.get();
    }

    private static String output(String source, CreatePreviewJobRequest request) {
        String given = request.getOptions().getSourceFormat();
        String format = Uploads.suffix(source).isEmpty() ? given : Uploads.suffix(source);
        String folder = "out/${RequestToken}/" + (SPREADSHEETS.contains(format) ? "sheet-${SheetID}/" : "");
        return folder + "page-${Number}." + PageNames.suffix(request.getOptions().getTargetFormat());
    }
}
