package com.docpreview.client;

import com.docpreview.client.DocPreviewException.InvalidRequest;
import com.docpreview.client.DocPreviewException.PreviewUnfinished;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.CreatePreviewJobRequestOrBuilder;
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
        return downloads.download(job, directory, settings, Deadline.after(settings.timeout()));
    }

    Preview preview(Path file, CreatePreviewJobRequest request, Path directory, TransferSettings settings) {
        Deadline deadline = Deadline.after(settings.timeout());
        Uploads.check(file);
        Downloads.check(directory); // before anything is sent, and billed
        CreatePreviewJobRequest.Builder create = Creates.withRequestId(request).toBuilder();
        create.setInputObject(bring(file, create, settings, deadline));
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

    /** The key of the uploaded file. By default it follows from the request's id, so that repeating finds it there. */
    private String bring(
            Path file, CreatePreviewJobRequestOrBuilder request, TransferSettings settings, Deadline deadline) {
        boolean own = !request.getInputObject().isEmpty();
        String key = own ? request.getInputObject() : Uploads.key(file, request.getRequestId());
        try {
            return uploads.upload(file, request.getBucket(), key, settings.contentType(), deadline).getObject();
        } catch (InvalidRequest refused) {
            if (own || !Uploads.existsAlready(refused)) {
                throw refused;
            }
            return key; // an earlier attempt with this id has brought it
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
