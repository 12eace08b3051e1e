package com.docpreview.client;

import io.grpc.Metadata;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Consumer;

/**
 * What can be chosen for one call: {@code CallSettings.defaults().withTimeout(Duration.ofSeconds(5)).withoutCache()}.
 *
 * @param timeout how long the call may take, all attempts together; empty: the client's own timeout
 * @param metadata sent beside the client's own, names in lower case
 * @param onReply gets the metadata of the gateway's reply, also of an error: {@code x-request-id}, {@code x-cache} and
 *     others. It is called for each reply of a call that takes several, on a thread of gRPC, and must not block
 */
public record CallSettings(
        Optional<Duration> timeout, Map<String, String> metadata, Consumer<Map<String, String>> onReply) {
    private static final CallSettings DEFAULTS = new CallSettings(Optional.empty(), Map.of(), reply -> {});

    /**
     * Checks the names of the metadata.
     *
     * @throws IllegalArgumentException a name that cannot be sent as text
     */
    public CallSettings {
        Objects.requireNonNull(timeout, "timeout");
        Objects.requireNonNull(onReply, "onReply");
        metadata = Map.copyOf(metadata);
        metadata.keySet().forEach(CallSettings::key);
    }

    /** The client's timeout, and nothing more. */
    public static CallSettings defaults() {
        return DEFAULTS;
    }

    /** The call ends after {@code longest}, all attempts together. */
    public CallSettings withTimeout(Duration longest) {
        return new CallSettings(Optional.of(longest), metadata, onReply);
    }

    /** Sends {@code value} beside the client's own metadata. */
    public CallSettings withMetadata(String name, String value) {
        Map<String, String> more = new LinkedHashMap<>(metadata);
        more.put(name, value);
        return new CallSettings(timeout, more, onReply);
    }

    /** Bypasses all caches of the gateway; of a create also the jobs that are there already. */
    public CallSettings withoutCache() {
        return withMetadata("cache-control", "no-cache");
    }

    /** Gives the metadata of the reply to {@code receiver}. */
    public CallSettings withReplyMetadata(Consumer<Map<String, String>> receiver) {
        return new CallSettings(timeout, metadata, receiver);
    }

    Metadata headers() {
        Metadata headers = new Metadata();
        metadata.forEach((name, value) -> headers.put(key(name), value));
        return headers;
    }

    /** Tells the receiver what came, unless nothing came from a gateway. */
    void replied(Metadata headers, Metadata trailers) {
        Map<String, String> texts = new LinkedHashMap<>();
        for (Metadata part : new Metadata[] {headers, trailers}) {
            for (String name : part.keys()) {
                if (!name.endsWith(Metadata.BINARY_HEADER_SUFFIX)) {
                    texts.put(name, part.get(key(name)));
                }
            }
        }
        if (!texts.isEmpty()) {
            onReply.accept(Map.copyOf(texts));
        }
    }

    private static Metadata.Key<String> key(String name) {
        return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
    }
}
