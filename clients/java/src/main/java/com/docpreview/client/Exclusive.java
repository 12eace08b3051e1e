package com.docpreview.client;

import com.docpreview.client.DocPreviewException.InvalidRequest;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/** A directory that one download of this process has for itself: two would delete each other's pages. */
final class Exclusive implements AutoCloseable {
    private static final Set<Path> TAKEN = ConcurrentHashMap.newKeySet();

    private final Path real;

    private Exclusive(Path real) {
        this.real = real;
    }

    /**
     * Makes the directory, and takes it.
     *
     * @throws InvalidRequest it has no name, or another download has it
     * @throws UncheckedIOException it cannot be made, or nothing can be written there
     */
    static Exclusive of(Path directory) {
        if (directory.toString().isEmpty()) {
            throw InvalidRequest.local("the name of the directory is empty; the current one is \".\"");
        }
        try {
            Files.createDirectories(directory);
            Files.delete(Files.createTempFile(directory, ".docpreview", ""));
            Path real = directory.toRealPath();
            if (!TAKEN.add(real)) {
                throw InvalidRequest.local("another download goes to " + directory);
            }
            return new Exclusive(real);
        } catch (IOException failure) {
            throw new UncheckedIOException("cannot write to the directory " + directory + ": " + failure, failure);
        }
    }

    @Override
    public void close() {
        TAKEN.remove(real);
    }
}
