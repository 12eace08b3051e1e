package com.docpreview.client;

import com.docpreview.client.DocPreviewException.Unavailable;
import io.grpc.Channel;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** An open channel with everything that each call over it needs. */
final class Connection {
    private static final long CONNECTS_APART_NANOS = TimeUnit.SECONDS.toNanos(1);

    private final ManagedChannel channel;
    private final Channel intercepted;
    private long lastConnect = System.nanoTime() - CONNECTS_APART_NANOS;

    Connection(ManagedChannel channel, List<ClientInterceptor> interceptors) {
        this.channel = channel;
        this.intercepted = ClientInterceptors.intercept(channel, interceptors);
    }

    Channel channel() {
        return intercepted;
    }

    /** One read, with the errors of reads. */
    <Q, R> R read(MethodDescriptor<Q, R> method, Q request, Deadline deadline) {
        try {
            return ClientCalls.blockingUnaryCall(intercepted, method, deadline.callOptions(), request);
        } catch (StatusRuntimeException error) {
            DocPreviewException decoded = Errors.ofRead(error);
            if (decoded instanceof Unavailable) {
                connectNow(); // for the next call
            }
            throw decoded;
        }
    }

    /**
     * Lets the channel reconnect now: by itself it would wait up to two minutes before it reconnects
     * to one that was away. At most once in a second, however many calls wait for it.
     */
    synchronized void connectNow() {
        long now = System.nanoTime();
        if (now - lastConnect >= CONNECTS_APART_NANOS) {
            lastConnect = now;
            channel.resetConnectBackoff();
        }
    }

    /** Ends the calls in flight. */
    void close() {
        channel.shutdownNow();
        try {
            channel.awaitTermination(Duration.ofSeconds(5).toMillis(), TimeUnit.MILLISECONDS);
        } catch (InterruptedException interrupt) {
            Thread.currentThread().interrupt();
        }
    }
}
