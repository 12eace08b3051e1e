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
                metadata.put(AUTHORIZATION, "Bearer " + checked(token.get()));
                applier.apply(metadata);
            } catch (Exception | LinkageError failure) {
                // UNAUTHENTICATED is not repeated: the caller is told at once.
                applier.fail(Status.UNAUTHENTICATED
                        .withDescription("the source of the token failed")
                        .withCause(failure));
            }
        });
    }

    /** The token, if it can be sent. The message never has the token itself. */
    private static String checked(String token) {
        if (token == null || token.isBlank()) {
            throw new IllegalArgumentException("the token is empty");
        }
        String stripped = token.strip();
        if (!stripped.chars().allMatch(letter -> letter > ' ' && letter < 127)) {
            throw new IllegalArgumentException(
                    "the token has white space, a second line or a character that is not ASCII: give the token alone");
        }
        return stripped;
    }
}
