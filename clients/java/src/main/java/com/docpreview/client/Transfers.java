package com.docpreview.client;

import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.UploadedObject;
import com.docpreview.v1.WatchPreviewJobRequest;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;

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
        UploadedObject source = uploads.upload(
                file, request.getBucket(), request.getInputObject(), settings.contentType(), deadline);
        CreatePreviewJobRequest.Builder create = request.toBuilder().setInputObject(source.getObject());
        if (request.getOutput().getObject().isEmpty()) {
            create.getOutputBuilder().setObject(output(source.getObject(), request));
        }
        PreviewJob created = client.createWithin(deadline, create.build());
        PreviewJob ended = follow(created, request.getBucket(), settings, deadline);
        boolean good = ended.getState() == PreviewJob.State.STATE_SUCCESS;
        return new Preview(
                ended, good ? downloads.download(ended, directory, settings, deadline) : List.of());
    }

    private PreviewJob follow(PreviewJob created, String bucket, TransferSettings settings, Deadline deadline) {
        WatchPreviewJobRequest request = WatchPreviewJobRequest.newBuilder()
                .setBucket(bucket)
                .setJobId(created.getJobId())
                .setPageUrlTtl(Wire.of(settings.pageUrlTtl()))
                .build();
        CallSettings within = CallSettings.defaults().withTimeout(deadline.remaining());
        PreviewJob last = created;
        try (Watch<PreviewJob> watch = client.blockingWatch(request, created, within)) {
            for (PreviewJob job : watch) {
                last = job;
                settings.onJob().accept(job);
            }
        }
        return last;
    }

    private static String output(String source, CreatePreviewJobRequest request) {
        String given = request.getOptions().getSourceFormat();
        String format = Uploads.suffix(source).isEmpty() ? given : Uploads.suffix(source);
        String folder = "out/${RequestToken}/" + (SPREADSHEETS.contains(format) ? "sheet-${SheetID}/" : "");
        return folder + "page-${Number}." + PageNames.suffix(request.getOptions().getTargetFormat());
    }
}
