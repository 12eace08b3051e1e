package com.docpreview.client;

import com.docpreview.v1.ErrorReason;
import com.docpreview.v1.PreviewJob;

/** What {@link DocPreviewClient#watchMany} tells: a job as it is now, or that it cannot be followed. */
public sealed interface WatchEvent {
    /** Id of the job. */
    String jobId();

    /**
     * A job as it is now. When its state is terminal nothing more comes of it.
     *
     * @param job the job
     */
    record Changed(PreviewJob job) implements WatchEvent {
        @Override
        public String jobId() {
            return job.getJobId();
        }
    }

    /**
     * An error of one job. Nothing more comes of it; the others go on.
     *
     * @param jobId id of the job
     * @param reason why, as in a failed watch of the job
     * @param message the reason, for people
     */
    record Failed(String jobId, ErrorReason reason, String message) implements WatchEvent {
        /** What a program does about it. */
        public Retry retry() {
            return Retry.of(reason);
        }
    }
}
