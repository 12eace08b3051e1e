package com.docpreview.client;

import com.docpreview.client.DocPreviewException.Unavailable;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

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

    /** One call that may be made twice, with its errors. Cancelling the future cancels the call. */
    <Q, R> CompletableFuture<R> read(
            MethodDescriptor<Q, R> method, Q request, Deadline deadline, CallSettings settings) {
        return call(method, request, deadline, settings, error -> {
            DocPreviewException decoded = Errors.ofRead(error);
            if (decoded instanceof Unavailable) {
                connectNow(); // for the next call
            }
            return decoded;
        });
    }

    /** One call, whose error is made by {@code decode}. */
    <Q, R> CompletableFuture<R> call(
            MethodDescriptor<Q, R> method,
            Q request,
            Deadline deadline,
            CallSettings settings,
            Function<StatusRuntimeException, DocPreviewException> decode) {
        Answer<R> answer = new Answer<>(settings, decode);
        try {
            answer.start(start(method, request, deadline.callOptions(), settings, answer.listener(), 2));
        } catch (RuntimeException failure) { // of an interceptor
            answer.completeExceptionally(failure);
        }
        return answer;
    }

    /** Begins a call of one request, and asks for so many messages. */
    <Q, R> ClientCall<Q, R> start(
            MethodDescriptor<Q, R> method,
            Q request,
            CallOptions options,
            CallSettings settings,
            ClientCall.Listener<R> listener,
            int messages) {
        ClientCall<Q, R> call = intercepted.newCall(method, options);
        try {
            call.start(listener, settings.headers());
            if (messages > 0) {
                call.request(messages);
            }
            call.sendMessage(request);
            call.halfClose();
        } catch (RuntimeException failure) {
            call.cancel("The call could not be begun.", failure);
            throw failure;
        }
        return call;
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

    /** Lets the calls in flight end, and takes no more. */
    void retire() {
        channel.shutdown();
    }

    /** Ends the calls in flight. */
    void end() {
        channel.shutdownNow();
    }

    void awaitEnd(Deadline deadline) throws InterruptedException {
        channel.awaitTermination(deadline.remaining().toNanos(), TimeUnit.NANOSECONDS);
    }

    private static final class Answer<R> extends CompletableFuture<R> {
        private final CallSettings settings;
        private final Function<StatusRuntimeException, DocPreviewException> decode;
        private volatile ClientCall<?, R> call;

        Answer(CallSettings settings, Function<StatusRuntimeException, DocPreviewException> decode) {
            this.settings = settings;
            this.decode = decode;
        }

        void start(ClientCall<?, R> begun) {
            call = begun;
            if (isCancelled()) {
                begun.cancel("The caller has cancelled the call.", null);
            }
        }

        @Override
        public boolean cancel(boolean interrupt) {
            boolean cancelled = super.cancel(interrupt);
            ClientCall<?, R> begun = call;
            if (cancelled && begun != null) {
                begun.cancel("The caller has cancelled the call.", null);
            }
            return cancelled;
        }

        ClientCall.Listener<R> listener() {
            return new ClientCall.Listener<>() {
                private Metadata headers = new Metadata();
                private R message;

                @Override
                public void onHeaders(Metadata received) {
                    headers = received;
                }

                @Override
                public void onMessage(R received) {
                    message = received;
                }

                @Override
                public void onClose(Status status, Metadata trailers) {
                    try {
                        settings.replied(headers, trailers);
                        end(status, trailers, message);
                    } catch (RuntimeException failure) { // of the receiver of metadata
                        completeExceptionally(failure);
                    }
                }
            };
        }

        private void end(Status status, Metadata trailers, R message) {
            if (status.isOk() && message != null) {
                complete(message);
            } else {
                Status failed = status.isOk() ? Status.INTERNAL.withDescription("an empty reply") : status;
                completeExceptionally(decode.apply(failed.asRuntimeException(trailers)));
            }
        }
    }
}
