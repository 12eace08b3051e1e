package com.docpreview.client;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.ProtocolException;
import java.nio.file.Path;

/** A file on this machine cannot be read or written, in the midst of an exchange: making it again does not help. */
final class LocalFailure extends IOException {
    private static final long serialVersionUID = 1L;

    LocalFailure(Path file, IOException cause) {
        super(file + ": " + cause.getMessage(), cause);
    }

    /** What the caller gets. */
    UncheckedIOException unchecked() {
        return new UncheckedIOException(getMessage(), (IOException) getCause());
    }

    /** The failure of an exchange; one that is no broken connection is found among its causes. */
    static IOException asIoException(Throwable failure) {
        for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
            if (cause instanceof LocalFailure || cause instanceof ForeignReply) {
                return (IOException) cause;
            }
            if (cause instanceof ProtocolException) { // no HTTP, or a switch to what nobody has asked for
                return new ForeignReply(cause.getMessage());
            }
        }
        return failure instanceof IOException broken ? broken : new IOException(failure);
    }
}
