package com.docpreview.client;

import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewJobServiceGrpc;
import com.docpreview.v1.WatchPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobResponse;
import com.docpreview.v1.WatchPreviewJobsRequest;
import com.docpreview.v1.WatchPreviewJobsResponse;
import io.grpc.MethodDescriptor;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** What is asked of a stream, and what its messages mean: the state of a watch over all its streams. */
interface Feed<Q, M, E> {
    MethodDescriptor<Q, M> method();

    /** The request of the next stream. */
    Q request();

    /** What the message tells, if it tells anything new. */
    Optional<E> take(M message);

    /** Whether nothing more can come. */
    boolean isOver();

    /** One job. */
    final class OneJob implements Feed<WatchPreviewJobRequest, WatchPreviewJobResponse, PreviewJob> {
        private final WatchPreviewJobRequest request;
        private PreviewJob last;

        /** Tells only what differs from {@code known}. */
        OneJob(WatchPreviewJobRequest request, PreviewJob known) {
            this.request = request;
            this.last = known;
        }

        @Override
        public MethodDescriptor<WatchPreviewJobRequest, WatchPreviewJobResponse> method() {
            return PreviewJobServiceGrpc.getWatchPreviewJobMethod();
        }

        @Override
        public WatchPreviewJobRequest request() {
            return request;
        }

        @Override
        public Optional<PreviewJob> take(WatchPreviewJobResponse message) {
            if (!message.hasJob() || message.getJob().equals(last)) {
                return Optional.empty();
            }
            last = message.getJob();
            return Optional.of(last);
        }

        @Override
        public boolean isOver() {
            return Watch.TERMINAL_STATES.contains(last.getState());
        }
    }

    /** Up to 1,000 jobs of a bucket. */
    final class ManyJobs implements Feed<WatchPreviewJobsRequest, WatchPreviewJobsResponse, WatchEvent> {
        private static final int MOST = 1000;

        private final WatchPreviewJobsRequest request;
        private final Map<String, PreviewJob> last = new HashMap<>();
        private final Set<String> open;

        private ManyJobs(WatchPreviewJobsRequest request, Collection<String> ids) {
            this.request = request;
            this.open = new LinkedHashSet<>(ids);
        }

        /** As many feeds as it takes; one also without ids, for the gateway's error. */
        static List<ManyJobs> of(WatchPreviewJobsRequest request) {
            List<String> ids = List.copyOf(new LinkedHashSet<>(request.getJobIdsList()));
            List<ManyJobs> feeds = new ArrayList<>();
            for (int begin = 0; begin < Math.max(1, ids.size()); begin += MOST) {
                feeds.add(new ManyJobs(request, ids.subList(begin, Math.min(ids.size(), begin + MOST))));
            }
            return feeds;
        }

        @Override
        public MethodDescriptor<WatchPreviewJobsRequest, WatchPreviewJobsResponse> method() {
            return PreviewJobServiceGrpc.getWatchPreviewJobsMethod();
        }

        @Override
        public WatchPreviewJobsRequest request() {
            return request.toBuilder().clearJobIds().addAllJobIds(open).build();
        }

        @Override
        public Optional<WatchEvent> take(WatchPreviewJobsResponse message) {
            return switch (message.getEventCase()) {
                case JOB -> changed(message.getJob());
                case ERROR -> failed(message.getError());
                default -> Optional.empty();
            };
        }

        @Override
        public boolean isOver() {
            return open.isEmpty();
        }

        private Optional<WatchEvent> changed(PreviewJob job) {
            if (!open.contains(job.getJobId()) || job.equals(last.put(job.getJobId(), job))) {
                return Optional.empty();
            }
            if (Watch.TERMINAL_STATES.contains(job.getState())) {
                open.remove(job.getJobId());
                last.remove(job.getJobId());
            }
            return Optional.of(new WatchEvent.Changed(job));
        }

        private Optional<WatchEvent> failed(WatchPreviewJobsResponse.JobError error) {
            if (!open.remove(error.getJobId())) {
                return Optional.empty();
            }
            last.remove(error.getJobId());
            return Optional.of(new WatchEvent.Failed(error.getJobId(), error.getReason(), error.getMessage()));
        }
    }
}
