package com.docpreview.client;

import io.grpc.CallCredentials;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.concurrent.Executor;
import java.util.function.Supplier;

/** {@code authorization: Bearer <token>} with every call; the token is asked for each time. */
final class BearerToken extends CallCredentials {
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final Supplier<String> token;

    BearerToken(Supplier<String> token) {
        this.token = token;
    }

    @Override
    public void applyRequestMetadata(RequestInfo request, Executor executor, MetadataApplier applier) {
        executor.execute(() -> {
            try {
                Metadata metadata = new Metadata();
                metadata.put(AUTHORIZATION, "Bearer " + token.get());
                applier.apply(metadata);
            } catch (RuntimeException failure) {
                applier.fail(Status.UNAUTHENTICATED.withDescription("There is no token to send.").withCause(failure));
            }
        });
    }
}
