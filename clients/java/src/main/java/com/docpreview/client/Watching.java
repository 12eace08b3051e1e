package com.docpreview.client;

import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.function.Consumer;
import java.util.function.Function;

/** A watch as a future, made from its last event. Cancelling it ends the streams. */
final class Watching<E, R> extends CompletableFuture<R> implements Subscription.Sink<E> {
    private final Consumer<? super E> receiver;
    private final Function<E, R> result;
    private List<Subscription<?, ?, E>> subscriptions = List.of();
    private E last;
    private int open;

    private Watching(Consumer<? super E> receiver, Function<E, R> result) {
        this.receiver = receiver;
        this.result = result;
    }

    static <E, R> CompletableFuture<R> of(
            Consumer<? super E> receiver,
            Function<E, R> result,
            Function<Subscription.Sink<E>, List<Subscription<?, ?, E>>> subscribe) {
        Watching<E, R> watching = new Watching<>(receiver, result);
        synchronized (watching) {
            watching.subscriptions = subscribe.apply(watching);
            watching.open = watching.subscriptions.size();
        }
        watching.subscriptions.forEach(Subscription::more);
        return watching;
    }

    @Override
    public void event(Subscription<?, ?, E> from, E event) {
        try {
            synchronized (this) { // one after the other, also of several streams
                last = event;
                receiver.accept(event);
            }
            from.more();
        } catch (RuntimeException failure) { // of the receiver
            subscriptions.forEach(Subscription::close);
            completeExceptionally(failure);
        }
    }

    @Override
    public void end(Subscription<?, ?, E> from, DocPreviewException error) {
        if (error != null) {
            completeExceptionally(error);
            others(from);
        } else if (isLast()) {
            complete(result.apply(last));
        }
    }

    @Override
    public boolean cancel(boolean interrupt) {
        boolean cancelled = super.cancel(interrupt);
        subscriptions.forEach(Subscription::close);
        return cancelled;
    }

    private void others(Subscription<?, ?, E> failed) {
        subscriptions.stream().filter(one -> one != failed).forEach(Subscription::close);
    }

    private synchronized boolean isLast() {
        open--;
        return open == 0;
    }
}
