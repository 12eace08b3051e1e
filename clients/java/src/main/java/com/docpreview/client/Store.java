package com.docpreview.client;

import com.docpreview.client.DocPreviewException.InternalError;
import com.docpreview.client.DocPreviewException.Unavailable;
import io.grpc.Status;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandler;
import java.net.http.HttpTimeoutException;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The cloud's object store, over HTTP, by addresses that the gateway signed. An address is a secret: none gets into an
 * error.
 */
final class Store {
    private static final int REPEATS = 3;
    private static final Duration CONNECT_WITHIN = Duration.ofSeconds(10);
    /** A transfer on which no byte moves for this long is dead. */
    private static final Duration IDLE = Duration.ofSeconds(60);
    /** Bytes of a body whose length nobody tells, at most. */
    private static final long LONGEST = 1L << 30;
    /** These are the HTTP client's own: it sends the host of the address and the length of the body. */
    private static final Set<String> SENT_ANYWAY = caseless("host", "content-length");
    private static final Pattern CODE = Pattern.compile("<Code>([A-Za-z0-9.]{1,100})</Code>");

    private final Duration idle;
    private final long longest;
    private HttpClient http;

    /** With this client, or null: with one that is made when the first transfer begins. */
    Store(HttpClient http) {
        this(http, IDLE, LONGEST);
    }

    Store(HttpClient http, Duration idle, long longest) {
        this.http = http;
        this.idle = idle;
        this.longest = longest;
    }

    /** A reply; {@code code} is the store's own of an error, or empty. */
    record Reply(int status, String code, String etag) {
        @Override
        public String toString() {
            return "HTTP " + status + (code.isEmpty() ? "" : " " + code);
        }
    }

    /** A request that can be made again. */
    @FunctionalInterface
    interface Exchange {
        Reply make() throws IOException, InterruptedException;
    }

    /**
     * Makes the exchange, and again after a connection that broke, 429, 5xx and the reply of something else than the
     * store, up to three times.
     *
     * @param what is done, for the error
     * @return the reply, any but 429 and 5xx
     * @throws Unavailable the store cannot be reached, or cannot serve, or something else has answered
     * @throws UncheckedIOException a local file cannot be read or written
     */
    static Reply repeated(String what, Deadline deadline, Exchange exchange) {
        Pauses pauses = new Pauses();
        for (int repeat = 0; ; repeat++) {
            deadline.check();
            Unavailable failure;
            try {
                Reply reply = exchange.make();
                if (reply.status() != 429 && reply.status() < 500) {
                    return reply;
                }
                failure = unavailable("The cloud answered " + reply + " to " + what + ".", null);
            } catch (LocalFailure local) {
                throw local.unchecked();
            } catch (ForeignReply foreign) {
                String sentence = "Not the cloud but something on the way to it, such as a proxy, answered to " + what
                        + ": " + foreign.getMessage() + ".";
                failure = unavailable(sentence, foreign);
            } catch (IOException broken) {
                deadline.check();
                failure = unavailable("The connection to the cloud failed, to " + what + ": " + broken, broken);
            } catch (InterruptedException interrupt) {
                throw Errors.interrupted(interrupt);
            }
            if (repeat == REPEATS) {
                throw failure;
            }
            pause(deadline.atMost(pauses.next(failure)));
        }
    }

    /** Puts a part of a file. A reply with 200 has an ETag. */
    Reply put(String url, Map<String, String> headers, Path file, long offset, long length, Deadline deadline)
            throws IOException, InterruptedException {
        AtomicLong moved = new AtomicLong();
        HttpRequest.Builder request = HttpRequest.newBuilder(uri(url))
                .PUT(BodyPublishers.fromPublisher(
                        BodyPublishers.ofInputStream(() -> part(file, offset, length, moved)), length));
        headers.forEach((name, value) -> {
            if (!SENT_ANYWAY.contains(name)) {
                request.header(name, value);
            }
        });
        return exchange(request, ToFile.ofPart(), moved, deadline);
    }

    /** Gets an object of this type, or the rest of it, to the end of a file; see {@link ToFile}. */
    Reply get(String url, String type, Path file, long from, Deadline deadline)
            throws IOException, InterruptedException {
        AtomicLong moved = new AtomicLong();
        HttpRequest.Builder request = HttpRequest.newBuilder(uri(url)).GET();
        if (from > 0) {
            request.header("range", "bytes=" + from + "-");
        }
        return exchange(request, ToFile.appending(file, type, from, longest, moved), moved, deadline);
    }

    private Reply exchange(HttpRequest.Builder request, BodyHandler<String> body, AtomicLong moved, Deadline deadline)
            throws IOException, InterruptedException {
        // HTTP/1.1 as the store speaks it: the headers of an upgrade to HTTP/2 are not among the signed ones.
        HttpRequest made = request.version(HttpClient.Version.HTTP_1_1).build();
        HttpResponse<String> response = await(http().sendAsync(made, body), moved, deadline);
        Matcher code = CODE.matcher(response.body());
        return new Reply(
                response.statusCode(),
                code.find() ? code.group(1) : "",
                response.headers().firstValue("etag").orElse(""));
    }

    private synchronized HttpClient http() {
        if (http == null) {
            http = HttpClient.newBuilder()
                    .connectTimeout(CONNECT_WITHIN)
                    .followRedirects(HttpClient.Redirect.NEVER)
                    .build();
        }
        return http;
    }

    /** The response, as long as bytes move. */
    private HttpResponse<String> await(
            CompletableFuture<HttpResponse<String>> exchange, AtomicLong moved, Deadline deadline)
            throws IOException, InterruptedException {
        Duration look = idle.dividedBy(10);
        long before = moved.get();
        Deadline silence = Deadline.after(idle);
        while (true) {
            try {
                return exchange.get(deadline.atMost(look).toNanos(), TimeUnit.NANOSECONDS);
            } catch (TimeoutException slow) {
                long now = moved.get();
                if (now != before) {
                    before = now;
                    silence = Deadline.after(idle);
                }
                if (silence.hasPassed() || deadline.hasPassed()) {
                    abandon(exchange, moved);
                    throw new HttpTimeoutException("no byte moved for " + idle.toSeconds() + " seconds");
                }
            } catch (InterruptedException interrupt) {
                abandon(exchange, moved);
                throw interrupt;
            } catch (ExecutionException failed) {
                throw LocalFailure.asIoException(failed.getCause());
            }
        }
    }

    /** A negative count tells the body that nobody wants it any more, so that it does not write into the next one's file. */
    private static void abandon(CompletableFuture<?> exchange, AtomicLong moved) {
        moved.set(Long.MIN_VALUE);
        exchange.cancel(true);
    }

    private static InputStream part(Path file, long offset, long length, AtomicLong moved) {
        try {
            FileChannel channel = FileChannel.open(file, StandardOpenOption.READ);
            channel.position(offset);
            return new Part(Channels.newInputStream(channel), length, moved);
        } catch (IOException failure) {
            throw new UncheckedIOException(new LocalFailure(file, failure));
        }
    }

    /** Without the address, which {@link URI} would put into its error. */
    private static URI uri(String url) {
        try {
            URI uri = URI.create(url);
            if ("http".equals(uri.getScheme()) || "https".equals(uri.getScheme())) {
                return uri;
            }
        } catch (IllegalArgumentException malformed) {
            // Told below.
        }
        throw new InternalError(
                "The gateway gave an address that is not one of HTTP.", Status.Code.INTERNAL, ErrorFacts.NONE, null);
    }

    private static Unavailable unavailable(String sentence, Throwable cause) {
        return new Unavailable(sentence, Status.Code.UNAVAILABLE, ErrorFacts.NONE, cause);
    }

    private static void pause(Duration length) {
        try {
            TimeUnit.NANOSECONDS.sleep(length.toNanos());
        } catch (InterruptedException interrupt) {
            throw Errors.interrupted(interrupt);
        }
    }

    private static Set<String> caseless(String... names) {
        Set<String> set = new TreeSet<>(String.CASE_INSENSITIVE_ORDER);
        set.addAll(Set.of(names));
        return set;
    }

    /** So many bytes of a stream. */
    private static final class Part extends FilterInputStream {
        private final AtomicLong moved;
        private long left;

        Part(InputStream whole, long length, AtomicLong moved) {
            super(whole);
            this.left = length;
            this.moved = moved;
        }

        @Override
        public int read() throws IOException {
            byte[] one = new byte[1];
            return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
        }

        @Override
        public int read(byte[] buffer, int offset, int length) throws IOException {
            int read = left == 0 ? -1 : super.read(buffer, offset, (int) Math.min(length, left));
            if (read > 0) {
                left -= read;
                moved.addAndGet(read);
            }
            return read;
        }
    }
}
