package com.docpreview.client;

import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.function.Supplier;

/** A call that is made again until a judge is satisfied. Cancelling it cancels the attempt in flight. */
final class Repeated<T> extends CompletableFuture<T> {
    /** Whether an attempt was the last one. */
    @FunctionalInterface
    interface Judge<T> {
        /**
         * The pause before the next attempt; empty when {@code value} is the result.
         *
         * @param value of the attempt, or null
         * @param error of the attempt, or null
         * @throws DocPreviewException the failure of the whole call
         */
        Optional<Duration> pause(T value, DocPreviewException error);
    }

    private final Connections connections;
    private final Supplier<CompletableFuture<T>> attempt;
    private final Judge<T> judge;
    private volatile CompletableFuture<T> current;

    private Repeated(Connections connections, Supplier<CompletableFuture<T>> attempt, Judge<T> judge) {
        this.connections = connections;
        this.attempt = attempt;
        this.judge = judge;
    }

    static <T> CompletableFuture<T> of(
            Connections connections, Supplier<CompletableFuture<T>> attempt, Judge<T> judge) {
        Repeated<T> repeated = new Repeated<>(connections, attempt, judge);
        repeated.run();
        return repeated;
    }

    @Override
    public boolean cancel(boolean interrupt) {
        boolean cancelled = super.cancel(interrupt);
        CompletableFuture<T> begun = current;
        if (cancelled && begun != null) {
            begun.cancel(interrupt);
        }
        return cancelled;
    }

    private void run() {
        if (isDone()) {
            return;
        }
        CompletableFuture<T> begun;
        try {
            begun = attempt.get();
        } catch (RuntimeException failure) {
            completeExceptionally(failure);
            return;
        }
        current = begun;
        if (isCancelled()) {
            begun.cancel(true);
        }
        begun.whenComplete(this::judge);
    }

    private void judge(T value, Throwable error) {
        if (error != null && !(error instanceof DocPreviewException)) {
            completeExceptionally(error);
            return;
        }
        try {
            Optional<Duration> pause = judge.pause(value, (DocPreviewException) error);
            if (pause.isEmpty()) {
                complete(value);
            } else {
                connections.later(pause.get(), this::run);
            }
        } catch (RuntimeException over) {
            completeExceptionally(over);
        }
    }
}
