import com.docpreview.client.DocPreviewClient;
import com.docpreview.client.DocPreviewException;
import com.docpreview.client.Watch;
import com.docpreview.client.WatchOptions;
import com.docpreview.v1.CreatePreviewJobRequest;
import com.docpreview.v1.ObjectLocation;
import com.docpreview.v1.Page;
import com.docpreview.v1.PreviewJob;
import java.time.Duration;

/**
 * Creates a job, prints each of its states and the addresses of its pages.
 *
 * <p>{@code CreateAndWatch BUCKET INPUT_OBJECT OUTPUT_TEMPLATE [TARGET]}
 */
public final class CreateAndWatch {
    private CreateAndWatch() {}

    public static void main(String[] arguments) {
        if (arguments.length < 3) {
            System.err.println("usage: CreateAndWatch BUCKET INPUT_OBJECT OUTPUT_TEMPLATE [TARGET]");
            System.exit(2);
        }
        String target = arguments.length > 3 ? arguments[3] : "127.0.0.1:50051";
        CreatePreviewJobRequest request = CreatePreviewJobRequest.newBuilder()
                .setBucket(arguments[0])
                .setInputObject(arguments[1])
                .setOutput(ObjectLocation.newBuilder().setObject(arguments[2]))
                .build();
        try (DocPreviewClient client = DocPreviewClient.builder(target).build()) {
            System.exit(follow(client, request));
        } catch (DocPreviewException error) {
            System.err.println(error.getMessage());
            System.exit(1);
        }
    }

    private static int follow(DocPreviewClient client, CreatePreviewJobRequest request) {
        WatchOptions options = WatchOptions.defaults().withPageUrlTtl(Duration.ofMinutes(10));
        PreviewJob last = PreviewJob.getDefaultInstance();
        try (Watch<PreviewJob> watch = client.createAndWatch(request, options)) {
            for (PreviewJob job : watch) {
                System.out.println(job.getJobId() + " " + job.getState());
                last = job;
            }
        }
        for (Page page : last.getResult().getPagesList()) {
            System.out.println(page.getUrl());
        }
        return last.getState() == PreviewJob.State.STATE_SUCCESS ? 0 : 1;
    }
}
