package com.docpreview.client;

import com.docpreview.client.DocPreviewException.Unavailable;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;

/**
 * The client's connections: one for short calls, and as many as it takes for watches and waits. A gateway admits 100
 * streams on a connection, health checking included; what comes on top of that waits. So 1,000 watches would stop the
 * short calls if they shared a connection with them.
 */
final class Connections {
    static final int MOST_STREAMS = 90;

    private static final Duration END_WITHIN = Duration.ofSeconds(5);

    private final Connection calls;
    private final Supplier<Connection> open;
    private final List<Shared> shared = new ArrayList<>();
    private final ScheduledThreadPoolExecutor timer = new ScheduledThreadPoolExecutor(1, daemons("timer"));
    private final ExecutorService workers = Executors.newCachedThreadPool(daemons("transfer"));
    private final Set<Delayed> waiting = new HashSet<>();
    private boolean closed;

    Connections(Connection calls, Supplier<Connection> openForStreams) {
        this.calls = calls;
        this.open = openForStreams;
        timer.setRemoveOnCancelPolicy(true);
    }

    /** For calls that are answered at once. */
    Connection calls() {
        return calls;
    }

    /** Threads for uploads and downloads. */
    ExecutorService workers() {
        return workers;
    }

    /** A place for one watch or wait. */
    synchronized Lease lease() {
        if (closed) {
            throw ended();
        }
        Shared free = shared.stream().filter(one -> one.streams < MOST_STREAMS).findFirst().orElse(null);
        if (free == null) {
            free = new Shared(open.get());
            shared.add(free);
        }
        free.streams++;
        return new Lease(this, free);
    }

    /**
     * Does {@code task} after {@code pause}; at once when the client is closed in between.
     *
     * @throws Unavailable the client is closed
     */
    synchronized Delayed later(Duration pause, Runnable task) {
        if (closed) {
            throw ended();
        }
        Delayed delayed = new Delayed(task);
        waiting.add(delayed);
        delayed.timed = timer.schedule(delayed, pause.toNanos(), TimeUnit.NANOSECONDS);
        return delayed;
    }

    /** Ends everything in flight. */
    void close() {
        List<Connection> all = new ArrayList<>(List.of(calls));
        List<Delayed> delayed;
        synchronized (this) {
            closed = true;
            shared.forEach(one -> all.add(one.connection));
            delayed = List.copyOf(waiting);
        }
        all.forEach(Connection::end);
        workers.shutdownNow();
        timer.shutdownNow();
        delayed.forEach(Delayed::run); // what waits for its next attempt finds the client closed, and fails
        Deadline deadline = Deadline.after(END_WITHIN);
        try {
            for (Connection one : all) {
                one.awaitEnd(deadline);
            }
        } catch (InterruptedException interrupt) {
            Thread.currentThread().interrupt();
        }
    }

    private synchronized void give(Shared back) {
        back.streams--;
        boolean room = shared.stream().anyMatch(one -> one != back && one.streams < MOST_STREAMS);
        if (back.streams == 0 && room) {
            shared.remove(back);
            back.connection.retire();
        }
    }

    private static Unavailable ended() {
        return new Unavailable("The client is closed.", Status.Code.UNAVAILABLE, ErrorFacts.NONE, null);
    }

    private static ThreadFactory daemons(String what) {
        AtomicInteger number = new AtomicInteger();
        return task -> {
            Thread thread = new Thread(task, "docpreview-" + what + "-" + number.incrementAndGet());
            thread.setDaemon(true);
            return thread;
        };
    }

    /** A task for later, done once at most. */
    final class Delayed implements Runnable {
        private final Runnable task;
        private Future<?> timed;

        private Delayed(Runnable task) {
            this.task = task;
        }

        @Override
        public void run() {
            if (take()) {
                task.run();
            }
        }

        void cancel() {
            take();
        }

        private boolean take() {
            synchronized (Connections.this) {
                timed.cancel(false);
                return waiting.remove(this);
            }
        }
    }

    private static final class Shared {
        private final Connection connection;
        private int streams;

        Shared(Connection connection) {
            this.connection = connection;
        }
    }

    /** A place on a connection, until it is closed. */
    static final class Lease implements AutoCloseable {
        private final Connections owner;
        private Shared place;
        private final Connection connection;

        private Lease(Connections owner, Shared place) {
            this.owner = owner;
            this.place = place;
            this.connection = place.connection;
        }

        Connection connection() {
            return connection;
        }

        @Override
        public void close() {
            Shared given;
            synchronized (this) {
                given = place;
                place = null;
            }
            if (given != null) {
                owner.give(given);
            }
        }
    }
}
