package com.docpreview.client;

/**
 * How far a download is.
 *
 * @param pagesDone pages that are complete on disk, those of an earlier download included
 * @param pages pages in all
 * @param bytes bytes of the pages that are complete
 */
public record DownloadProgress(int pagesDone, int pages, long bytes) {}
