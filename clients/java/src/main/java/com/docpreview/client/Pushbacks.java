package com.docpreview.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientStreamTracer;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;

/**
 * Keeps gRPC from repeating what its service config does not list. In Java, unlike elsewhere, a failure that carries
 * {@code grpc-retry-pushback-ms} is repeated whatever its code is: a caller over its limit would wait without being
 * told. So the pushback of other codes is taken out of each attempt's trailers before the retries see them.
 */
final class Pushbacks implements ClientInterceptor {
    private static final Metadata.Key<String> PUSHBACK =
            Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

    private static final ClientStreamTracer.Factory TRACERS = new ClientStreamTracer.Factory() {
        @Override
        public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
            return new ClientStreamTracer() {
                @Override
                public void inboundTrailers(Metadata trailers) {
                    if (!Channels.RETRYABLE.contains(Status.fromCodeValue(Errors.codeOf(trailers)).getCode())) {
                        trailers.discardAll(PUSHBACK);
                    }
                }
            };
        }
    };

    @Override
    public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
        return next.newCall(method, options.withStreamTracerFactory(TRACERS));
    }
}
