package com.docpreview.client;

import com.docpreview.v1.PreviewJobServiceGrpc;
import com.docpreview.v1.PreviewQueueServiceGrpc;
import com.docpreview.v1.UploadServiceGrpc;
import com.docpreview.v1.UsageServiceGrpc;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/** Channels to the gateway: balancing, retries of reads, keepalive. */
final class Channels {
    private static final int LARGEST_MESSAGE = 4 * 1024 * 1024;
    /** Errors that name many fields are longer than the 8 KiB that gRPC takes by default. */
    private static final int LARGEST_METADATA = 32 * 1024;
    /** A connection of watches that has none is closed after this time. */
    private static final long IDLE_SECONDS = 60;
    /** gRPC's own. */
    private static final long LONG_IDLE_SECONDS = TimeUnit.MINUTES.toSeconds(30);
    /**
     * Calls that may be made twice: they change nothing, or what is left over is not billed (CreateUpload begins an upload
     * that nobody completes). CreatePreviewJob is not among them and never may be: every create is billed. Those
     * with a request_id are repeated above gRPC, which cannot tell the two kinds apart ({@link Creates}).
     */
    private static final List<MethodDescriptor<?, ?>> REPEATABLE = List.of(
            PreviewJobServiceGrpc.getGetPreviewJobMethod(),
            PreviewJobServiceGrpc.getBatchGetPreviewJobsMethod(),
            PreviewJobServiceGrpc.getListPreviewJobsMethod(),
            PreviewJobServiceGrpc.getWaitPreviewJobMethod(),
            PreviewJobServiceGrpc.getWatchPreviewJobMethod(),
            PreviewJobServiceGrpc.getWatchPreviewJobsMethod(),
            PreviewQueueServiceGrpc.getListPreviewQueuesMethod(),
            UploadServiceGrpc.getCreateUploadMethod(),
            UploadServiceGrpc.getCompleteUploadMethod(),
            UploadServiceGrpc.getAbortUploadMethod(),
            UsageServiceGrpc.getGetUsageMethod());

    /**
     * CANCELLED: a stopping server cancels calls that it has not yet begun, https://github.com/grpc/grpc/issues/41785.
     */
    static final List<Status.Code> RETRYABLE = List.of(Status.Code.UNAVAILABLE, Status.Code.CANCELLED);

    private static final Pattern RESOLVER = Pattern.compile("^(dns:(///)?|ipv4:|ipv6:)");
    private static final Pattern LOOPBACK =
            Pattern.compile("localhost|127\\.\\d+\\.\\d+\\.\\d+|\\[::1]|::1", Pattern.CASE_INSENSITIVE);

    static {
        Balancing.register();
    }

    private Channels() {}

    /** A channel for short calls, which connects when the first is made. */
    static ManagedChannel open(String target, Tls tls, String userAgent) {
        return open(target, tls, userAgent, LONG_IDLE_SECONDS);
    }

    /** A channel for watches and waits. */
    static ManagedChannel openForStreams(String target, Tls tls, String userAgent) {
        return open(target, tls, userAgent, IDLE_SECONDS);
    }

    private static ManagedChannel open(String target, Tls tls, String userAgent, long idleSeconds) {
        ChannelCredentials credentials = tls == null ? InsecureChannelCredentials.create() : tls.credentials();
        ManagedChannelBuilder<?> builder = Grpc.newChannelBuilder(target, credentials)
                .userAgent(userAgent)
                .defaultServiceConfig(serviceConfig())
                // The gateway takes pings from 20 s on; more often would be answered with GOAWAY "too_many_pings".
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                .keepAliveWithoutCalls(true)
                .idleTimeout(idleSeconds, TimeUnit.SECONDS)
                .maxInboundMessageSize(LARGEST_MESSAGE)
                .maxInboundMetadataSize(LARGEST_METADATA);
        if (tls != null && tls.serverName() != null) {
            builder.overrideAuthority(tls.serverName());
        }
        return builder.build();
    }

    /** Balance over all addresses, retry reads, avoid addresses that are not healthy. */
    static Map<String, Object> serviceConfig() {
        Map<String, Object> config = new HashMap<>();
        config.put("loadBalancingConfig", List.of(Map.of(Balancing.POLICY, Map.of())));
        config.put("methodConfig", List.of(Map.of(
                "name", REPEATABLE.stream().map(Channels::name).toList(),
                "retryPolicy", Map.of(
                        "maxAttempts", 4.0,
                        "initialBackoff", "0.2s",
                        "maxBackoff", "2s",
                        "backoffMultiplier", 2.0,
                        "retryableStatusCodes", RETRYABLE.stream().map(Enum::name).toList()))));
        // At most one retry for ten successes in the long run, so that retries cannot keep a struggling gateway down.
        config.put("retryThrottling", Map.of("maxTokens", 100.0, "tokenRatio", 0.1));
        config.put("healthCheckConfig", Map.of("serviceName", PreviewJobServiceGrpc.SERVICE_NAME));
        return config;
    }

    /** Whether everything that is sent to {@code target} stays on this machine. */
    static boolean isLoopback(String target) {
        if (target.startsWith("unix:")) {
            return true;
        }
        for (String address : RESOLVER.matcher(target).replaceFirst("").split(",")) {
            boolean hasPort = address.startsWith("[") || address.indexOf(':') == address.lastIndexOf(':');
            String host = hasPort ? address.replaceFirst(":\\d+$", "") : address;
            if (!LOOPBACK.matcher(host).matches()) {
                return false;
            }
        }
        return true;
    }

    private static Map<String, String> name(MethodDescriptor<?, ?> method) {
        return Map.of("service", method.getServiceName(), "method", method.getBareMethodName());
    }
}
