import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.qcloud.cos.COSClient;
import com.qcloud.cos.ClientConfig;
import com.qcloud.cos.auth.BasicCOSCredentials;
import com.qcloud.cos.auth.BasicSessionCredentials;
import com.qcloud.cos.auth.COSCredentials;
import com.qcloud.cos.exception.CosServiceException;
import com.qcloud.cos.http.HttpMethodName;
import com.qcloud.cos.http.HttpProtocol;
import com.qcloud.cos.model.AbortMultipartUploadRequest;
import com.qcloud.cos.model.COSObjectSummary;
import com.qcloud.cos.model.CompleteMultipartUploadRequest;
import com.qcloud.cos.model.GetObjectRequest;
import com.qcloud.cos.model.HeadBucketRequest;
import com.qcloud.cos.model.InitiateMultipartUploadRequest;
import com.qcloud.cos.model.ListObjectsRequest;
import com.qcloud.cos.model.ListPartsRequest;
import com.qcloud.cos.model.ObjectListing;
import com.qcloud.cos.model.PartETag;
import com.qcloud.cos.model.PartSummary;
import com.qcloud.cos.model.UploadPartRequest;
import com.qcloud.cos.model.ciModel.bucket.DocBucketRequest;
import com.qcloud.cos.model.ciModel.job.DocJobDetail;
import com.qcloud.cos.model.ciModel.job.DocJobListRequest;
import com.qcloud.cos.model.ciModel.job.DocJobListResponse;
import com.qcloud.cos.model.ciModel.job.DocJobRequest;
import com.qcloud.cos.model.ciModel.queue.DocQueueRequest;
import com.qcloud.cos.model.ciModel.queue.MediaQueueObject;
import com.qcloud.cos.region.Region;
import com.qcloud.cos.transfer.TransferManager;
import com.qcloud.cos.transfer.TransferManagerConfiguration;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.CertificateFactory;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Date;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.function.Consumer;

/** Each operation of the suite with the vendor's SDK for Java; one JSON line for each. The argument is a file of settings. */
public class Driver {
  static class Settings {
    String scheme, proxy, ca, region, bucket, missingBucket, missingJob, later;
    String secretId, secretKey, temporaryId, temporaryKey, token, document, large;
    List<String> keys;
    Map<String, String> notify;
  }

  static final int PART = 1 << 20;
  static final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
  static final List<String> jobs = new ArrayList<>();
  static Settings set;
  static COSClient cos;

  /** As `keytool -importcert` does: the JVM trusts what is in the store that the property names. */
  static void trust(String certificate) throws Exception {
    KeyStore store = KeyStore.getInstance("PKCS12");
    store.load(null, null);
    try (var pem = Files.newInputStream(Path.of(certificate))) {
      store.setCertificateEntry("emulator", CertificateFactory.getInstance("X.509").generateCertificate(pem));
    }
    Path file = Files.createTempFile("emulator", ".p12");
    file.toFile().deleteOnExit();
    try (var written = Files.newOutputStream(file)) {
      store.store(written, "changeit".toCharArray());
    }
    System.setProperty("javax.net.ssl.trustStore", file.toString());
    System.setProperty("javax.net.ssl.trustStorePassword", "changeit");
  }

  static COSClient connect(COSCredentials credentials) {
    ClientConfig config = new ClientConfig(new Region(set.region));
    config.setHttpProtocol(HttpProtocol.valueOf(set.scheme));
    config.setHttpProxyIp(URI.create(set.proxy).getHost());
    config.setHttpProxyPort(URI.create(set.proxy).getPort());
    config.setMaxErrorRetry(0);
    return new COSClient(credentials, config);
  }

  static void step(String operation, Callable<Object> run) throws Exception {
    Map<String, Object> result = new LinkedHashMap<>(Map.of("operation", operation));
    try {
      result.put("value", run.call());
    } catch (CosServiceException refused) {
      result.put("error", Map.of("status", refused.getStatusCode(), "code", refused.getErrorCode()));
    }
    System.out.println(JSON.toJson(result));
  }

  static byte[] file(String path) throws Exception {
    return Files.readAllBytes(Path.of(path));
  }

  static byte[] body(GetObjectRequest request) throws Exception {
    try (var object = cos.getObject(request)) {
      return object.getObjectContent().readAllBytes();
    }
  }

  static byte[] body(String key) throws Exception {
    return body(new GetObjectRequest(set.bucket, key));
  }

  static List<List<String>> listObjects() {
    List<List<String>> pages = new ArrayList<>();
    ObjectListing listing = cos.listObjects(new ListObjectsRequest(set.bucket, "list/", null, null, 2));
    while (true) {
      pages.add(listing.getObjectSummaries().stream().map(COSObjectSummary::getKey).toList());
      if (!listing.isTruncated()) {
        return pages;
      }
      listing = cos.listNextBatchOfObjects(listing);
    }
  }

  static Object putAndList() {
    for (String key : set.keys) {
      cos.putObject(set.bucket, key, key);
    }
    return listObjects();
  }

  static Object delete() {
    cos.deleteObject(set.bucket, set.keys.get(0));
    return listObjects();
  }

  static Object uploadInParts() throws Exception {
    String key = "parts.bin";
    byte[] large = file(set.large);
    String id = cos.initiateMultipartUpload(new InitiateMultipartUploadRequest(set.bucket, key)).getUploadId();
    List<PartETag> made = new ArrayList<>();
    for (int at = 0; at < large.length; at += PART) {
      int size = Math.min(PART, large.length - at);
      made.add(cos.uploadPart(part(key, id, at / PART + 1, new ByteArrayInputStream(large, at, size), size)).getPartETag());
    }
    List<PartSummary> listed = cos.listParts(new ListPartsRequest(set.bucket, key, id)).getParts();
    cos.completeMultipartUpload(new CompleteMultipartUploadRequest(set.bucket, key, id, made));
    return listed.stream().map(PartSummary::getPartNumber).toList();
  }

  static UploadPartRequest part(String key, String id, int number, ByteArrayInputStream content, int size) {
    return new UploadPartRequest().withBucketName(set.bucket).withKey(key).withUploadId(id)
        .withPartNumber(number).withInputStream(content).withPartSize(size);
  }

  static Object abort() {
    String key = "aborted.bin";
    String id = cos.initiateMultipartUpload(new InitiateMultipartUploadRequest(set.bucket, key)).getUploadId();
    cos.uploadPart(part(key, id, 1, new ByteArrayInputStream(new byte[4]), 4));
    cos.abortMultipartUpload(new AbortMultipartUploadRequest(set.bucket, key, id));
    return cos.listParts(new ListPartsRequest(set.bucket, key, id)).getParts().size();
  }

  static Object transfer() throws Exception {
    TransferManager manager = new TransferManager(cos, Executors.newFixedThreadPool(2), true);
    TransferManagerConfiguration configuration = new TransferManagerConfiguration();
    configuration.setMultipartUploadThreshold(PART);
    configuration.setMinimumUploadPartSize(PART);
    manager.setConfiguration(configuration);
    manager.upload(set.bucket, "transfer.bin", new File(set.large)).waitForUploadResult();
    manager.shutdownNow(false);
    return null;
  }

  static String presigned(HttpMethodName method, String key) {
    Date expires = Date.from(Instant.now().plusSeconds(3600));
    return cos.generatePresignedUrl(set.bucket, key, expires, method).toString();
  }

  static DocJobDetail create(COSClient with, String key) {
    DocJobRequest request = new DocJobRequest();
    request.setBucketName(set.bucket);
    var job = request.getDocJobObject();
    job.setTag("DocProcess");
    job.getInput().setObject(key);
    var output = job.getOperation().getOutput();
    output.setRegion(set.region);
    output.setBucket(set.bucket);
    output.setObject("pages/${Number}.jpg");
    return with.createDocProcessJobs(request).getJobsDetail();
  }

  static Object createJobs() {
    List<String> states = new ArrayList<>();
    for (int number = 0; number < 3; number += 1) {
      DocJobDetail job = create(cos, "report.pdf");
      jobs.add(job.getJobId());
      states.add(job.getState());
    }
    return states;
  }

  static DocJobRequest named(String id) {
    DocJobRequest request = new DocJobRequest();
    request.setBucketName(set.bucket);
    request.setJobId(id);
    return request;
  }

  static Object finishedJobs() throws Exception {
    List<List<String>> found = new ArrayList<>();
    for (String id : jobs) {
      DocJobDetail job;
      do {
        Thread.sleep(50);
        job = cos.describeDocProcessJob(named(id)).getJobsDetail();
      } while (!List.of("Success", "Failed").contains(job.getState()));
      List<String> shown = new ArrayList<>(List.of(job.getState()));
      job.getOperation().getDocProcessResult().getDocProcessPageInfoList().forEach(page -> shown.add(page.getTgtUri()));
      found.add(shown);
    }
    return found;
  }

  static List<List<Integer>> listJobs(Consumer<DocJobListRequest> filter) {
    DocJobListRequest request = new DocJobListRequest();
    request.setBucketName(set.bucket);
    request.setTag("DocProcess");
    filter.accept(request);
    List<List<Integer>> pages = new ArrayList<>();
    do {
      DocJobListResponse answer = cos.describeDocProcessJobs(request);
      pages.add(answer.getDocJobDetailList().stream().map(job -> jobs.indexOf(job.getJobId())).toList());
      request.setNextToken(answer.getNextToken());
    } while (request.getNextToken() != null && !request.getNextToken().isEmpty());
    return pages;
  }

  static MediaQueueObject queue() {
    DocQueueRequest request = new DocQueueRequest();
    request.setBucketName(set.bucket);
    return cos.describeDocProcessQueues(request).getQueueList().get(0);
  }

  static Object updateQueue() {
    DocQueueRequest request = new DocQueueRequest();
    request.setBucketName(set.bucket);
    request.setQueueId(queue().getQueueId());
    request.setName("reports");
    request.setState("Active");
    request.getNotifyConfig().setUrl(set.notify.get("Url"));
    request.getNotifyConfig().setState(set.notify.get("State"));
    request.getNotifyConfig().setType(set.notify.get("Type"));
    request.getNotifyConfig().setEvent(set.notify.get("Event"));
    cos.updateDocProcessQueue(request);
    return List.of(queue().getName(), queue().getNotifyConfig().getUrl());
  }

  static Object buckets() {
    DocBucketRequest request = new DocBucketRequest();
    request.setRegions(set.region);
    request.setBucketName(set.bucket); // for the host only
    request.setBucketNames(set.bucket);
    return cos.describeDocProcessBuckets(request).getDocBucketObjectList().stream().map(each -> each.getName()).toList();
  }

  static COSClient temporary(String token) {
    return connect(new BasicSessionCredentials(set.temporaryId, set.temporaryKey, token));
  }

  static void objectSteps() throws Exception {
    File document = new File(set.document);
    step("create bucket", () -> cos.createBucket(set.bucket) == null ? "nothing" : null);
    step("head bucket", () -> cos.headBucket(new HeadBucketRequest(set.bucket)) == null ? "nothing" : null);
    step("put object", () -> cos.putObject(set.bucket, "report.pdf", document).getETag());
    step("head object", () -> cos.getObjectMetadata(set.bucket, "report.pdf").getContentLength());
    step("get object", () -> HexFormat.of().formatHex(MessageDigest.getInstance("MD5").digest(body("report.pdf"))));
    step("get a range", () -> {
      GetObjectRequest request = new GetObjectRequest(set.bucket, "report.pdf");
      request.setRange(0, 4);
      return new String(body(request), StandardCharsets.US_ASCII);
    });
    step("copy object", () -> cos.copyObject(set.bucket, "report.pdf", set.bucket, "copy.pdf").getETag());
    step("list objects", Driver::putAndList);
    step("delete object", Driver::delete);
    step("upload in parts", Driver::uploadInParts);
    step("abort an upload", Driver::abort);
    step("transfer manager", Driver::transfer);
    step("presigned GET", () -> presigned(HttpMethodName.GET, "report.pdf"));
    step("presigned PUT", () -> presigned(HttpMethodName.PUT, "put by address.txt"));
  }

  static void jobSteps() throws Exception {
    step("create jobs", Driver::createJobs);
    step("get jobs", Driver::finishedJobs);
    step("list jobs", () -> listJobs(request -> request.setSize(2)));
    step("list jobs, oldest first", () -> listJobs(request -> {
      request.setOrderByTime("Asc");
      request.setQueueId(queue().getQueueId());
    }));
    step("list jobs of a state", () -> List.of(
        listJobs(request -> request.setStates("Failed")), listJobs(request -> request.setStates("Success,Running"))));
    step("list jobs of a time", () -> List.of(
        listJobs(request -> request.setStartCreationTime(set.later)), listJobs(request -> request.setEndCreationTime(set.later))));
    step("list queues", () -> queue().getState());
    step("update queue", Driver::updateQueue);
    step("list buckets of the service", Driver::buckets);
  }

  static void refusedSteps() throws Exception {
    COSClient wrong = connect(new BasicCOSCredentials(set.secretId, "wrong"));
    File document = new File(set.document);
    step("temporary key", () -> temporary(set.token).putObject(set.bucket, "t.pdf", document).getETag());
    step("temporary key, job", () -> create(temporary(set.token), "t.pdf").getState());
    step("wrong token", () -> temporary("wrong").putObject(set.bucket, "t.pdf", document).getETag());
    step("wrong key", () -> wrong.putObject(set.bucket, "k", "x").getETag());
    step("wrong key, job", () -> create(wrong, "report.pdf").getState());
    step("no such key", () -> body("never put").length);
    step("no such bucket", () -> body(new GetObjectRequest(set.missingBucket, "report.pdf")).length);
    step("no such job", () -> cos.describeDocProcessJob(named(set.missingJob)).getNonExistJobIds());
    step("job without its document", () -> create(cos, "never put.pdf").getState());
  }

  public static void main(String[] arguments) throws Exception {
    set = new Gson().fromJson(Files.readString(Path.of(arguments[0])), Settings.class);
    trust(set.ca);
    cos = connect(new BasicCOSCredentials(set.secretId, set.secretKey));
    objectSteps();
    jobSteps();
    refusedSteps();
    System.exit(0); // the SDK leaves threads behind
  }
}
