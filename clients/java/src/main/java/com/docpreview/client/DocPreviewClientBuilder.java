package com.docpreview.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.MethodDescriptor;
import java.net.http.HttpClient;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.Supplier;

/** What a user of the client can choose, each with its default. */
public final class DocPreviewClientBuilder {
    private final String target;
    private final List<ClientInterceptor> interceptors = new ArrayList<>();
    private Tls tls;
    private Supplier<String> token;
    private String userAgent = "";
    private boolean repeatCreates = true;
    private HttpClient http;
    private Timeouts timeouts = new Timeouts(Duration.ofSeconds(30), Duration.ofMinutes(5), Duration.ofHours(1));
    private Patience patience = new Patience(Duration.ofSeconds(60), Duration.ofSeconds(60));

    DocPreviewClientBuilder(String target) {
        this.target = Objects.requireNonNull(target, "target");
    }

    /** Encrypts the connection. Default: not encrypted. */
    public DocPreviewClientBuilder tls(Tls encryption) {
        tls = Objects.requireNonNull(encryption, "tls");
        return this;
    }

    /** Sent as {@code authorization: Bearer <token>}. Default: none. */
    public DocPreviewClientBuilder token(String bearer) {
        Objects.requireNonNull(bearer, "token");
        return token(() -> bearer);
    }

    /**
     * As {@link #token(String)}, asked before every call, for tokens that change. When it throws, the call fails at once
     * with {@link DocPreviewException.Unauthenticated} and this cause.
     */
    public DocPreviewClientBuilder token(Supplier<String> bearer) {
        token = Objects.requireNonNull(bearer, "token");
        return this;
    }

    /** Sees every attempt at the gateway, for example to add {@code traceparent}. */
    public DocPreviewClientBuilder intercept(ClientInterceptor interceptor) {
        interceptors.add(Objects.requireNonNull(interceptor, "interceptor"));
        return this;
    }

    /** Put in front of the client's own user agent: name your service here. Default: nothing. */
    public DocPreviewClientBuilder userAgent(String name) {
        userAgent = Objects.requireNonNull(name, "userAgent");
        return this;
    }

    /**
     * Whether creates are made again until their deadline while that can help, with a {@code request_id} that the client
     * makes when the request has none. Without it they are made once, and as they are. Default true.
     */
    public DocPreviewClientBuilder repeatCreates(boolean enabled) {
        repeatCreates = enabled;
        return this;
    }

    /** Carries uploads and downloads: with your proxy or authorities, for example. Default: one with Java's defaults. */
    public DocPreviewClientBuilder httpClient(HttpClient client) {
        http = Objects.requireNonNull(client, "httpClient");
        return this;
    }

    /** How long creates and reads may take, all attempts together. Default 30 seconds. */
    public DocPreviewClientBuilder unaryTimeout(Duration timeout) {
        timeouts = new Timeouts(timeout, timeouts.waiting(), timeouts.watch());
        return this;
    }

    /** How long {@code waitFor} waits. Default 5 minutes. */
    public DocPreviewClientBuilder waitTimeout(Duration timeout) {
        timeouts = new Timeouts(timeouts.unary(), timeout, timeouts.watch());
        return this;
    }

    /** How long a watch may take, over all its streams. Default 1 hour. */
    public DocPreviewClientBuilder watchTimeout(Duration timeout) {
        timeouts = new Timeouts(timeouts.unary(), timeouts.waiting(), timeout);
        return this;
    }

    /**
     * A watch's stream on which nothing comes for this long, not even a heartbeat, is dead: another is opened. Keep it
     * well above the gateway's heartbeat interval (15 seconds by default). Default 60 seconds.
     */
    public DocPreviewClientBuilder idleTimeout(Duration timeout) {
        patience = new Patience(timeout, patience.unreachable());
        return this;
    }

    /** For how long a watch or wait tries to reach the gateway again while nothing comes at all. Default 60 seconds. */
    public DocPreviewClientBuilder unreachableTimeout(Duration timeout) {
        patience = new Patience(patience.idle(), timeout);
        return this;
    }

    /**
     * A client, which connects when the first call is made.
     *
     * @throws IllegalArgumentException a token was given, the connection is not encrypted and the target is not this
     *     machine
     */
    public DocPreviewClient build() {
        List<ClientInterceptor> all = new ArrayList<>(interceptors);
        if (token != null) {
            if (tls == null && !Channels.isLoopback(target)) {
                throw new IllegalArgumentException("A token may not be sent to " + target
                        + " in the clear: give tls, or a target on this machine.");
            }
            all.add(new WithToken(new BearerToken(token)));
        }
        all.add(new Pushbacks());
        Tls encryption = tls; // what is set later belongs to the next client
        String agent = (userAgent + " docpreview-client-java/" + version()).strip();
        Connections connections = new Connections(
                new Connection(Channels.open(target, encryption, agent), all),
                () -> new Connection(Channels.openForStreams(target, encryption, agent), all));
        Creates creates = new Creates(connections, repeatCreates);
        return new DocPreviewClient(
                connections, new AsyncDocPreviewClient(connections, creates, timeouts, patience, new Store(http)));
    }

    private static String version() {
        String version = DocPreviewClientBuilder.class.getPackage().getImplementationVersion();
        return version == null ? "unknown" : version;
    }

    private record WithToken(BearerToken token) implements ClientInterceptor {
        @Override
        public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
            return next.newCall(method, options.withCallCredentials(token));
        }
    }
}
