package com.docpreview.client;

import com.docpreview.v1.PreviewJob;
import java.nio.file.Path;
import java.util.List;

/**
 * What {@link DocPreviewClient#preview} made.
 *
 * @param job the job at its end; when its state is not {@code STATE_SUCCESS}, {@code job.getFailure()} says why
 * @param files the pages on disk, in order; empty when the job made none
 */
public record Preview(PreviewJob job, List<Path> files) {}
