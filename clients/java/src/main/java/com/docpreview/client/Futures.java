package com.docpreview.client;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;

/** From futures to blocking calls. */
final class Futures {
    private Futures() {}

    /**
     * The future's value. An interrupt cancels it.
     *
     * @throws DocPreviewException the call failed, or the thread was interrupted
     */
    static <T> T await(CompletableFuture<T> future) {
        try {
            return future.get();
        } catch (InterruptedException interrupt) {
            future.cancel(true);
            throw Errors.interrupted(interrupt);
        } catch (ExecutionException failed) {
            if (failed.getCause() instanceof RuntimeException error) {
                error.fillInStackTrace(); // where the caller is, not the thread that got the reply
                throw error;
            }
            throw new IllegalStateException(failed.getCause());
        }
    }
}
