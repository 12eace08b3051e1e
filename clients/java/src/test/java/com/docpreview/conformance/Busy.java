package com.docpreview.conformance;

import com.docpreview.client.CallSettings;
import com.docpreview.client.DocPreviewClient;
import com.docpreview.client.DocPreviewException;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.GetPreviewJobRequest;
import com.docpreview.v1.WaitPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobRequest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/** Short calls beside many watches and waits, of one client. */
final class Busy {
    private static final int GETS = 20;
    private static final int CREATES = 5;
    private static final long FIRST_MESSAGES_WITHIN_SECONDS = 60;
    private static final CallSettings WITHIN = CallSettings.defaults().withTimeout(Duration.ofSeconds(10));

    private final DocPreviewClient client;
    private final WatchPreviewJobRequest watch;
    private final GetPreviewJobRequest get;
    private final WaitPreviewJobRequest wait;
    private final CreatePreviewJobRequest create;
    private final List<Long> gets = new ArrayList<>();

    Busy(DocPreviewClient client, WatchPreviewJobRequest watch, CreatePreviewJobRequest create) {
        this.client = client;
        this.watch = watch;
        this.create = create;
        this.get = GetPreviewJobRequest.newBuilder()
                .setBucket(watch.getBucket())
                .setJobId(watch.getJobId())
                .build();
        this.wait = WaitPreviewJobRequest.newBuilder()
                .setBucket(watch.getBucket())
                .setJobId(watch.getJobId())
                .build();
    }

    Map<String, Object> run(int watches, int waits) {
        gets();
        double idle = median();
        gets.clear();
        List<CompletableFuture<?>> streams = new ArrayList<>();
        CountDownLatch first = new CountDownLatch(watches);
        for (int count = 0; count < watches; count++) {
            AtomicBoolean told = new AtomicBoolean();
            streams.add(client.async().watch(watch, job -> {
                if (told.compareAndSet(false, true)) {
                    first.countDown();
                }
            }));
        }
        for (int count = 0; count < waits; count++) {
            streams.add(client.async().waitFor(wait));
        }
        try {
            first.await(FIRST_MESSAGES_WITHIN_SECONDS, TimeUnit.SECONDS);
        } catch (InterruptedException interrupt) {
            Thread.currentThread().interrupt();
        }
        gets();
        int creates = 0;
        for (int count = 0; count < CREATES; count++) {
            creates += succeeds(() -> client.create(create, WITHIN)) ? 1 : 0;
        }
        Map<String, Object> found = Map.of(
                "watches", watches - first.getCount(),
                "gets", gets.size(),
                "creates", creates,
                "get_ms", median(),
                "idle_get_ms", idle);
        streams.forEach(stream -> stream.cancel(true));
        return found;
    }

    private void gets() {
        for (int count = 0; count < GETS; count++) {
            long begin = System.nanoTime();
            if (succeeds(() -> client.get(get, WITHIN))) {
                gets.add(System.nanoTime() - begin);
            }
        }
    }

    private double median() {
        return gets.isEmpty() ? 0 : gets.stream().sorted().skip(gets.size() / 2).findFirst().orElse(0L) / 1e6;
    }

    private static boolean succeeds(Runnable call) {
        try {
            call.run();
            return true;
        } catch (DocPreviewException error) {
            error.printStackTrace();
            return false;
        }
    }
}
