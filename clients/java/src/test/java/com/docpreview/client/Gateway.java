package com.docpreview.client;

import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.GetPreviewJobRequest;
import com.docpreview.v1.ListPreviewJobsRequest;
import com.docpreview.v1.ListPreviewJobsResponse;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewJobServiceGrpc;
import com.docpreview.v1.WaitPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobResponse;
import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** A gateway on a free loopback port that answers as a test says, call after call. */
final class Gateway extends PreviewJobServiceGrpc.PreviewJobServiceImplBase implements AutoCloseable, ServerInterceptor {
    final List<Message> requests = new ArrayList<>();
    final List<String> authorizations = new ArrayList<>();
    private final Deque<Consumer<StreamObserver<Message>>> answers = new ArrayDeque<>();
    private final Server server;

    Gateway() throws IOException {
        server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(this)
                .intercept(this)
                .build()
                .start();
    }

    String target() {
        return "127.0.0.1:" + server.getPort();
    }

    /** The next call is answered with these messages, and ends. */
    synchronized Gateway answers(Message... messages) {
        answers.add(observer -> {
            List.of(messages).forEach(observer::onNext);
            observer.onCompleted();
        });
        return this;
    }

    /** The next call gets these messages and then this failure. */
    synchronized Gateway breaks(Throwable failure, Message... messages) {
        answers.add(observer -> {
            List.of(messages).forEach(observer::onNext);
            observer.onError(failure);
        });
        return this;
    }

    /** The next call gets these messages, and then nothing. */
    synchronized Gateway hangs(Message... messages) {
        answers.add(observer -> List.of(messages).forEach(observer::onNext));
        return this;
    }

    /** An error as the gateway makes them. */
    static StatusRuntimeException error(Status.Code code, String reason, Message... details) {
        com.google.rpc.Status.Builder status = com.google.rpc.Status.newBuilder()
                .setCode(code.value())
                .setMessage("as the test says")
                .addDetails(Any.pack(ErrorInfo.newBuilder()
                        .setDomain("docpreview")
                        .setReason(reason)
                        .putMetadata("request_id", "0123")
                        .build()));
        List.of(details).forEach(detail -> status.addDetails(Any.pack(detail)));
        return StatusProto.toStatusRuntimeException(status.build());
    }

    @Override
    public <Q, R> ServerCall.Listener<Q> interceptCall(
            ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
        synchronized (this) {
            authorizations.add(headers.get(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER)));
        }
        return next.startCall(call, headers);
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

    @SuppressWarnings("unchecked") // tests answer with messages of the right type
    private synchronized void serve(Message request, StreamObserver<?> observer) {
        requests.add(request);
        answers.remove().accept((StreamObserver<Message>) observer);
    }

    @Override
    public void close() throws InterruptedException {
        server.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
}
