package com.docpreview.client;

import com.google.gson.Gson;
import com.google.gson.JsonParseException;
import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;

/**
 * {@code .docpreview.json}: which pages of which job a directory has. With it a download goes on where an earlier one
 * ended, and the pages of another job do not stay among the new ones.
 */
final class Manifest {
    static final String NAME = ".docpreview.json";
    static final String PART = ".part";

    private static final long WRITES_APART_NANOS = TimeUnit.SECONDS.toNanos(1);

    private final Path directory;
    private final Content content;
    private long lastWrite = System.nanoTime();

    private Manifest(Path directory, Content content) {
        this.directory = directory;
        this.content = content;
    }

    /** The file, as all clients write it. */
    private static final class Content {
        private String job_id = "";
        private Map<String, Long> pages = new TreeMap<>();
    }

    /** Takes the directory for a job: pages and beginnings of pages of another one are deleted. */
    static Manifest open(Path directory, String jobId) throws IOException {
        Content found = read(directory.resolve(NAME));
        if (!found.job_id.equals(jobId)) {
            clear(directory, found);
            found = new Content();
            found.job_id = jobId;
        }
        Manifest manifest = new Manifest(directory, found);
        manifest.write();
        return manifest;
    }

    /** Bytes of the page, when it is here whole; else -1. */
    synchronized long bytes(String name) throws IOException {
        Long length = content.pages.get(name);
        Path file = directory.resolve(name);
        return length != null && Files.isRegularFile(file) && Files.size(file) == length ? length : -1;
    }

    /** Takes note of a page that is here whole. */
    synchronized void add(String name, long bytes) throws IOException {
        content.pages.put(name, bytes);
        if (System.nanoTime() - lastWrite >= WRITES_APART_NANOS) {
            write(); // not after each of thousands of pages
        }
    }

    synchronized void write() throws IOException {
        Path fresh = directory.resolve(NAME + PART);
        Files.writeString(fresh, new Gson().toJson(content) + "\n");
        Files.move(fresh, directory.resolve(NAME), StandardCopyOption.REPLACE_EXISTING);
        lastWrite = System.nanoTime();
    }

    private static Content read(Path file) throws IOException {
        if (!Files.exists(file)) {
            return new Content();
        }
        try {
            Content content = new Gson().fromJson(Files.readString(file), Content.class);
            return content == null || content.job_id == null || content.pages == null ? new Content() : content;
        } catch (JsonParseException damaged) {
            return new Content();
        }
    }

    /** Only what a client may have written: the names in a manifest can be anything. */
    private static void clear(Path directory, Content other) throws IOException {
        for (String name : other.pages.keySet()) {
            if (PageNames.NAME.matcher(name).matches()) {
                Files.deleteIfExists(directory.resolve(name));
            }
        }
        try (DirectoryStream<Path> parts = Files.newDirectoryStream(directory, "*" + PART)) {
            for (Path part : parts) {
                String name = part.getFileName().toString();
                if (PageNames.NAME.matcher(name.substring(0, name.length() - PART.length())).matches()) {
                    Files.delete(part);
                }
            }
        }
    }
}
