package com.docpreview.conformance;

import com.docpreview.client.CallSettings;
import com.docpreview.client.DocPreviewClient;
import com.docpreview.client.DocPreviewClientBuilder;
import com.docpreview.client.DocPreviewException;
import com.docpreview.client.FieldViolation;
import com.docpreview.client.Preview;
import com.docpreview.client.QuotaViolation;
import com.docpreview.client.Tls;
import com.docpreview.client.TransferSettings;
import com.docpreview.client.Watch;
import com.docpreview.client.WatchEvent;
import com.docpreview.client.WatchOptions;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.GetPreviewJobRequest;
import com.docpreview.v1.ListPreviewJobsRequest;
import com.docpreview.v1.ObjectLocation;
import com.docpreview.v1.Page;
import com.docpreview.v1.PreviewJob;
import com.docpreview.v1.PreviewOptions;
import com.docpreview.v1.UploadedObject;
import com.docpreview.v1.WaitPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobRequest;
import com.docpreview.v1.WatchPreviewJobsRequest;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/** The Java client in the conformance suite: a step in, its result out (tests/conformance/README.md). */
public final class Runner {
    private static final Gson JSON = new GsonBuilder().serializeNulls().create();

    private final JsonObject step;
    private final JsonObject given;
    private final Duration timeout;
    private final List<PreviewJob> jobs = new ArrayList<>();
    private final Map<String, Object> further = new LinkedHashMap<>();

    private Runner(JsonObject step) {
        this.step = step;
        this.given = step.getAsJsonObject("with");
        this.timeout = Duration.ofMillis(step.get("timeout_ms").getAsLong());
    }

    /** Answers line by line until the input ends. */
    public static void main(String[] arguments) throws IOException {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            Runner runner = new Runner(JsonParser.parseString(line).getAsJsonObject());
            System.out.println(JSON.toJson(runner.answer()));
            System.out.flush();
        }
    }

    private Map<String, Object> answer() throws IOException {
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("error", null);
        try (DocPreviewClient client = client()) {
            call(client);
        } catch (DocPreviewException error) {
            error.printStackTrace();
            answer.put("error", error(error));
        }
        answer.put("jobs", jobs.stream().map(Runner::job).toList());
        answer.putAll(further);
        return answer;
    }

    private DocPreviewClient client() throws IOException {
        DocPreviewClientBuilder builder = DocPreviewClient.builder(step.get("target").getAsString());
        if (!step.get("token").isJsonNull()) {
            builder.token(step.get("token").getAsString());
        }
        if (!step.get("tls").isJsonNull()) {
            builder.tls(tls(step.getAsJsonObject("tls")));
        }
        return builder.build();
    }

    private static Tls tls(JsonObject paths) throws IOException {
        Tls tls = Tls.trusting(file(paths, "root_certificates"));
        return paths.has("private_key")
                ? tls.withCertificate(file(paths, "certificate_chain"), file(paths, "private_key"))
                : tls;
    }

    private static byte[] file(JsonObject paths, String name) throws IOException {
        return Files.readAllBytes(Path.of(paths.get(name).getAsString()));
    }

    /** Makes the call; {@code jobs} gets each job as it arrives, so that jobs before an error are included. */
    private void call(DocPreviewClient client) throws IOException {
        String call = step.get("call").getAsString();
        switch (call) {
            case "create" -> jobs.add(client.create(create(), within()));
            case "get" -> jobs.add(client.get(get(), within()));
            case "wait" -> jobs.add(client.waitFor(waiting()));
            case "watch" -> follow(client.watch(watch(), within()));
            case "create_and_watch" -> follow(client.createAndWatch(create(), watchOptions()));
            case "list" -> client.list(list(), within()).forEach(jobs::add);
            case "preview" -> preview(client);
            case "upload" -> upload(client);
            case "download" -> files(client.download(client.get(get(), within()), directory(), transfer()));
            case "watch_many" -> watchMany(client);
            case "busy" -> further.put("busy", new Busy(client, watch(), create()).run(
                    number("watches").orElse(0), number("waits").orElse(0)));
            default -> throw new IllegalArgumentException(call + " is not a call of the table");
        }
    }

    private CallSettings within() {
        return CallSettings.defaults().withTimeout(timeout);
    }

    private TransferSettings transfer() {
        TransferSettings settings =
                TransferSettings.defaults().withTimeout(timeout).withContentType(text("content_type"));
        return number("page_url_ttl_ms").map(ttl -> settings.withPageUrlTtl(Duration.ofMillis(ttl))).orElse(settings);
    }

    private Path directory() {
        return Path.of(text("directory"));
    }

    private void preview(DocPreviewClient client) throws IOException {
        CreatePreviewJobRequest.Builder request = CreatePreviewJobRequest.newBuilder()
                .setBucket(text("bucket"))
                .setInputObject(text("object"))
                .setRequestId(text("request_id"));
        if (!text("output_object").isEmpty()) {
            request.setOutput(ObjectLocation.newBuilder().setObject(text("output_object")));
        }
        Preview preview = client.preview(Path.of(text("path")), request.build(), directory(), transfer());
        jobs.add(preview.job());
        files(preview.files());
    }

    private void upload(DocPreviewClient client) {
        UploadedObject object = client.upload(Path.of(text("path")), text("bucket"), text("object"), transfer());
        further.put(
                "uploaded", Map.of("object", object.getObject(), "content_length", object.getContentLength()));
    }

    private void files(List<Path> paths) throws IOException {
        List<List<Object>> files = new ArrayList<>();
        for (Path path : paths) {
            files.add(List.of(path.getFileName().toString(), Files.size(path)));
        }
        further.put("files", files);
    }

    private void watchMany(DocPreviewClient client) {
        WatchPreviewJobsRequest.Builder request = WatchPreviewJobsRequest.newBuilder().setBucket(text("bucket"));
        given.getAsJsonArray("job_ids").forEach(id -> request.addJobIds(id.getAsString()));
        number("page_url_ttl_ms").map(Runner::milliseconds).ifPresent(request::setPageUrlTtl);
        List<List<String>> errors = new ArrayList<>();
        further.put("job_errors", errors);
        try (Watch<WatchEvent> watch = client.watchMany(request.build(), within())) {
            for (WatchEvent event : watch) {
                if (event instanceof WatchEvent.Changed changed) {
                    jobs.add(changed.job());
                } else if (event instanceof WatchEvent.Failed failed) {
                    errors.add(List.of(failed.jobId(), failed.reason().name().replaceFirst("^ERROR_REASON_", "")));
                }
            }
        }
    }

    private void follow(Watch<PreviewJob> watch) {
        try (watch) {
            watch.forEach(jobs::add);
        }
    }

    private CreatePreviewJobRequest create() {
        PreviewOptions.Builder options = PreviewOptions.newBuilder();
        number("start_page").ifPresent(options::setStartPage);
        number("end_page").ifPresent(options::setEndPage);
        return CreatePreviewJobRequest.newBuilder()
                .setBucket(text("bucket"))
                .setInputObject(text("input_object"))
                .setOutput(ObjectLocation.newBuilder().setObject(text("output_object")))
                .setOptions(options)
                .setRequestId(text("request_id"))
                .setUserData(text("user_data"))
                .build();
    }

    private GetPreviewJobRequest get() {
        GetPreviewJobRequest.Builder request =
                GetPreviewJobRequest.newBuilder().setBucket(text("bucket")).setJobId(text("job_id"));
        number("page_url_ttl_ms").map(Runner::milliseconds).ifPresent(request::setPageUrlTtl);
        return request.build();
    }

    private WaitPreviewJobRequest waiting() {
        WaitPreviewJobRequest.Builder request = WaitPreviewJobRequest.newBuilder()
                .setBucket(text("bucket"))
                .setJobId(text("job_id"))
                .setTimeout(milliseconds((int) timeout.toMillis()));
        number("page_url_ttl_ms").map(Runner::milliseconds).ifPresent(request::setPageUrlTtl);
        return request.build();
    }

    private WatchPreviewJobRequest watch() {
        WatchPreviewJobRequest.Builder request =
                WatchPreviewJobRequest.newBuilder().setBucket(text("bucket")).setJobId(text("job_id"));
        number("page_url_ttl_ms").map(Runner::milliseconds).ifPresent(request::setPageUrlTtl);
        return request.build();
    }

    private WatchOptions watchOptions() {
        WatchOptions options = WatchOptions.defaults().withTimeout(timeout);
        return number("page_url_ttl_ms").map(ttl -> options.withPageUrlTtl(Duration.ofMillis(ttl))).orElse(options);
    }

    private ListPreviewJobsRequest list() {
        return ListPreviewJobsRequest.newBuilder()
                .setBucket(text("bucket"))
                .setPageSize(number("page_size").orElse(0))
                .build();
    }

    private String text(String name) {
        JsonElement value = given.get(name);
        return value == null ? "" : value.getAsString();
    }

    private Optional<Integer> number(String name) {
        return Optional.ofNullable(given.get(name)).map(JsonElement::getAsInt);
    }

    private static com.google.protobuf.Duration milliseconds(int count) {
        return com.google.protobuf.Duration.newBuilder()
                .setSeconds(count / 1000)
                .setNanos(count % 1000 * 1_000_000)
                .build();
    }

    private static Map<String, Object> job(PreviewJob job) {
        return Map.of(
                "job_id", job.getJobId(),
                "state", job.getState().name().replaceFirst("^STATE_", ""),
                "failure_reason", job.getFailure().getReason().name().replaceFirst("^REASON_(UNSPECIFIED)?", ""),
                "page_count", job.getResult().getTotalPageCount(),
                "page_urls", job.getResult().getPagesList().stream().map(Page::getUrl).filter(url -> !url.isEmpty()).count());
    }

    private static Map<String, Object> error(DocPreviewException error) {
        Map<String, Object> written = new LinkedHashMap<>();
        boolean budget = error instanceof DocPreviewException.BudgetExhausted; // a class of its own: it is not temporary
        written.put("kind", budget ? "Throttled" : error.getClass().getSimpleName());
        written.put("code", error.code().name());
        written.put("reason", error.reason());
        written.put("message", error.sentence());
        written.put("violations", error.fieldViolations().stream().map(Runner::pair).toList());
        written.put("retry", error.retry().name().toLowerCase(Locale.ROOT));
        written.put("quota", error.quotaViolations().stream().map(Runner::pair).toList());
        written.put("retry_delay_ms", error.retryDelay().map(Duration::toMillis).orElse(null));
        written.put("metadata", error.metadata());
        written.put("request_id", error.requestId());
        return written;
    }

    private static List<String> pair(FieldViolation violation) {
        return List.of(violation.field(), violation.description());
    }

    private static List<String> pair(QuotaViolation violation) {
        return List.of(violation.subject(), violation.description());
    }
}
