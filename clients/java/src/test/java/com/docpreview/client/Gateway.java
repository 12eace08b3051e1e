package com.docpreview.client;

import com.docpreview.v1.AbortUploadRequest;
import com.docpreview.v1.AbortUploadResponse;
import com.docpreview.v1.CompleteUploadRequest;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.CreateUploadRequest;
import com.docpreview.v1.GetPreviewJobRequest;
import com.docpreview.v1.ListPreviewJobsRequest;
import com.docpreview.v1.ListPreviewJobsResponse;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewJobServiceGrpc;
import com.docpreview.v1.Upload;
import com.docpreview.v1.UploadServiceGrpc;
import com.docpreview.v1.UploadedObject;
import com.docpreview.v1.WaitPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobResponse;
import com.docpreview.v1.WatchPreviewJobsRequest;
import com.docpreview.v1.WatchPreviewJobsResponse;
import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import io.grpc.ForwardingServerCall;
import io.grpc.Grpc;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.BiConsumer;
import java.util.function.Function;

/** A gateway on a free loopback port that answers as a test says, call after call. */
final class Gateway extends PreviewJobServiceGrpc.PreviewJobServiceImplBase implements AutoCloseable, ServerInterceptor {
    /** The metadata of each reply. */
    static final Map<String, String> REPLY = Map.of("x-request-id", "0123", "x-cache", "hit");

    private static final int MOST_STREAMS = 100;

    final List<Message> requests = new CopyOnWriteArrayList<>();
    final List<Metadata> headers = new CopyOnWriteArrayList<>();
    /** Remote addresses of the connections that brought calls. */
    final Set<SocketAddress> connections = ConcurrentHashMap.newKeySet();
    /** Counted down when the caller of a call that hangs has gone. */
    final CountDownLatch cancelled = new CountDownLatch(1);

    private final Deque<BiConsumer<Message, StreamObserver<Message>>> answers = new ArrayDeque<>();
    private final HealthStatusManager health = new HealthStatusManager();
    private final Server server;

    Gateway() throws IOException {
        health.setStatus(PreviewJobServiceGrpc.SERVICE_NAME, ServingStatus.SERVING);
        server = NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0))
                .maxConcurrentCallsPerConnection(MOST_STREAMS)
                .addService(this)
                .addService(new Uploads())
                .addService(health.getHealthService())
                .intercept(this)
                .build()
                .start();
    }

    int port() {
        return server.getPort();
    }

    String target() {
        return "127.0.0.1:" + port();
    }

    List<String> authorizations() {
        Metadata.Key<String> name = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
        return headers.stream().map(one -> one.get(name)).filter(Objects::nonNull).toList();
    }

    /** The health service says that this gateway drains; calls are answered as before. */
    void drains() {
        health.enterTerminalState();
    }

    /** The next call is answered with these messages, and ends. */
    synchronized Gateway answers(Message... messages) {
        answers.add((request, observer) -> {
            List.of(messages).forEach(observer::onNext);
            observer.onCompleted();
        });
        return this;
    }

    /** The next call is answered with what {@code answer} makes of its request, and ends. */
    synchronized Gateway answersBy(Function<Message, List<? extends Message>> answer) {
        answers.add((request, observer) -> {
            answer.apply(request).forEach(observer::onNext);
            observer.onCompleted();
        });
        return this;
    }

    /** The next call gets these messages and then this failure. */
    synchronized Gateway breaks(Throwable failure, Message... messages) {
        answers.add((request, observer) -> {
            List.of(messages).forEach(observer::onNext);
            observer.onError(failure);
        });
        return this;
    }

    /** The next call gets these messages, and then nothing. */
    synchronized Gateway hangs(Message... messages) {
        answers.add((request, observer) -> List.of(messages).forEach(observer::onNext));
        return this;
    }

    /** The next calls, so many, get these messages, and then nothing. */
    synchronized Gateway hang(int calls, Message... messages) {
        for (int count = 0; count < calls; count++) {
            hangs(messages);
        }
        return this;
    }

    /** An error as the gateway makes them. */
    static StatusRuntimeException error(Status.Code code, String reason, Message... details) {
        return errorSaying("as the test says", code, reason, details);
    }

    /** An error with this sentence. */
    static StatusRuntimeException errorSaying(
            String sentence, Status.Code code, String reason, Message... details) {
        com.google.rpc.Status.Builder status = com.google.rpc.Status.newBuilder()
                .setCode(code.value())
                .setMessage(sentence)
                .addDetails(Any.pack(ErrorInfo.newBuilder()
                        .setDomain("docpreview")
                        .setReason(reason)
                        .putMetadata("request_id", "0123")
                        .build()));
        List.of(details).forEach(detail -> status.addDetails(Any.pack(detail)));
        return StatusProto.toStatusRuntimeException(status.build());
    }

    /** Takes no more calls, and asks the callers to go. */
    void stop() {
        server.shutdown();
    }

    @Override
    public <Q, R> ServerCall.Listener<Q> interceptCall(
            ServerCall<Q, R> call, Metadata received, ServerCallHandler<Q, R> next) {
        if (call.getMethodDescriptor().getServiceName().startsWith("grpc.health")) {
            return next.startCall(call, received);
        }
        headers.add(received);
        connections.add(call.getAttributes().get(Grpc.TRANSPORT_ATTR_REMOTE_ADDR));
        return next.startCall(
                new ForwardingServerCall.SimpleForwardingServerCall<Q, R>(call) {
                    @Override
                    public void sendHeaders(Metadata sent) {
                        REPLY.forEach((name, value) ->
                                sent.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value));
                        super.sendHeaders(sent);
                    }
                },
                received);
    }

    @Override
    public void createPreviewJob(CreatePreviewJobRequest request, StreamObserver<PreviewJob> observer) {
        serve(request, observer);
    }

    @Override
    public void getPreviewJob(GetPreviewJobRequest request, StreamObserver<PreviewJob> observer) {
        serve(request, observer);
    }

    @Override
    public void listPreviewJobs(ListPreviewJobsRequest request, StreamObserver<ListPreviewJobsResponse> observer) {
        serve(request, observer);
    }

    @Override
    public void waitPreviewJob(WaitPreviewJobRequest request, StreamObserver<PreviewJob> observer) {
        serve(request, observer);
    }

    @Override
    public void watchPreviewJob(WatchPreviewJobRequest request, StreamObserver<WatchPreviewJobResponse> observer) {
        serve(request, observer);
    }

    @Override
    public void watchPreviewJobs(WatchPreviewJobsRequest request, StreamObserver<WatchPreviewJobsResponse> observer) {
        serve(request, observer);
    }

    private final class Uploads extends UploadServiceGrpc.UploadServiceImplBase {
        @Override
        public void createUpload(CreateUploadRequest request, StreamObserver<Upload> observer) {
            serve(request, observer);
        }

        @Override
        public void completeUpload(CompleteUploadRequest request, StreamObserver<UploadedObject> observer) {
            serve(request, observer);
        }

        @Override
        public void abortUpload(AbortUploadRequest request, StreamObserver<AbortUploadResponse> observer) {
            requests.add(request);
            observer.onNext(AbortUploadResponse.getDefaultInstance());
            observer.onCompleted();
        }
    }

    @SuppressWarnings("unchecked") // tests answer with messages of the right type
    private synchronized void serve(Message request, StreamObserver<?> observer) {
        requests.add(request);
        ((ServerCallStreamObserver<?>) observer).setOnCancelHandler(cancelled::countDown);
        BiConsumer<Message, StreamObserver<Message>> answer = answers.poll();
        if (answer == null) {
            observer.onError(Status.INTERNAL.withDescription("a call that the test does not expect").asException());
        } else {
            answer.accept(request, (StreamObserver<Message>) observer);
        }
    }

    @Override
    public void close() throws InterruptedException {
        server.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
}
