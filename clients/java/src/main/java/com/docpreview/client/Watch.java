package com.docpreview.client;

import com.docpreview.v1.PreviewJob;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.Function;

/**
 * One job, followed until its terminal state: the job as it is, then every change. Or many jobs, each until its end.
 *
 * <p>A stream ends for reasons that have nothing to do with the job: the gateway is stopping, the stream has been open
 * for long, the connection broke. Since every stream begins with the present state, another is opened and nothing is
 * lost. Slow readers get the latest state, not a backlog.
 *
 * <p>It is iterated once, by one thread, and blocks until there is a change. Close it when you stop early: that ends
 * the stream at the gateway. The iterator throws {@link DocPreviewException}, and no more after that.
 *
 * @param <E> {@code PreviewJob}, or {@link WatchEvent} where there are many jobs
 */
public final class Watch<E> implements Iterable<E>, AutoCloseable {
    /** The states after which a job does not change. */
    public static final Set<PreviewJob.State> TERMINAL_STATES =
            Set.of(PreviewJob.State.STATE_SUCCESS, PreviewJob.State.STATE_FAILED, PreviewJob.State.STATE_CANCELLED);

    private final BlockingQueue<Told<E>> told = new LinkedBlockingQueue<>();
    private final List<Subscription<?, ?, E>> subscriptions;
    private E coming;
    private Subscription<?, ?, E> due;
    private volatile int open;
    private boolean begun;
    private boolean iterated;

    /** Yields {@code first}, if it is not null, before it asks the gateway. */
    Watch(E first, Function<Subscription.Sink<E>, List<Subscription<?, ?, E>>> subscribe) {
        this.coming = first;
        this.subscriptions = subscribe.apply(new Queued());
        this.open = subscriptions.size();
    }

    @Override
    public Iterator<E> iterator() {
        if (iterated) {
            throw new IllegalStateException("A watch can be iterated once.");
        }
        iterated = true;
        return new Events();
    }

    @Override
    public void close() {
        open = 0;
        subscriptions.forEach(Subscription::close);
        told.add(new Told<>(null, null, null)); // wakes the thread that iterates
    }

    private record Told<E>(Subscription<?, ?, E> from, E event, DocPreviewException error) {}

    private final class Queued implements Subscription.Sink<E> {
        @Override
        public void event(Subscription<?, ?, E> from, E event) {
            told.add(new Told<>(from, event, null));
        }

        @Override
        public void end(Subscription<?, ?, E> from, DocPreviewException error) {
            told.add(new Told<>(from, null, error));
        }
    }

    private final class Events implements Iterator<E> {
        @Override
        public boolean hasNext() {
            while (coming == null && open > 0) {
                ask();
                take();
            }
            return coming != null;
        }

        @Override
        public E next() {
            if (!hasNext()) {
                throw new NoSuchElementException();
            }
            E event = coming;
            coming = null;
            return event;
        }

        private void ask() {
            if (!begun) {
                begun = true;
                subscriptions.forEach(Subscription::more);
            } else if (due != null) {
                due.more();
            }
            due = null;
        }

        private void take() {
            Told<E> next;
            try {
                next = told.take();
            } catch (InterruptedException interrupt) {
                close();
                throw Errors.interrupted(interrupt);
            }
            if (next.event() != null) {
                coming = next.event();
                due = next.from();
                return;
            }
            open = open - 1; // only this thread counts down
            if (next.error() != null) {
                close();
                next.error().fillInStackTrace(); // where the caller is
                throw next.error();
            }
        }
    }
}
