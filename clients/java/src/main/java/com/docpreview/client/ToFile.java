package com.docpreview.client;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.http.HttpResponse.BodyHandler;
import java.net.http.HttpResponse.BodySubscriber;
import java.net.http.HttpResponse.ResponseInfo;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Flow;
import java.util.concurrent.atomic.AtomicLong;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The body of a reply: a good one goes to a file, of another one the beginning becomes the text.
 *
 * <p>200 replaces what the file had, and 206 goes on where it ended. The file's length must be what the reply says in
 * the end, and not 0. A body that goes on beyond that, or beyond the longest where the reply says nothing, is broken off and
 * its file deleted.
 */
final class ToFile implements BodySubscriber<String> {
    private static final int PROXY_AUTHENTICATION_REQUIRED = 407;
    private static final int LONGEST_TEXT = 16 * 1024;
    private static final Pattern RANGE = Pattern.compile("bytes (\\d+)-\\d+/(\\d+)");

    private final CompletableFuture<String> result = new CompletableFuture<>();
    private final ByteArrayOutputStream text = new ByteArrayOutputStream();
    private final Path file;
    private final FileChannel channel;
    private final long expected;
    private final long most;
    private final AtomicLong moved;
    private Flow.Subscription source;

    private ToFile(Path file, FileChannel channel, long expected, long longest, AtomicLong moved) {
        this.file = file;
        this.channel = channel;
        this.expected = expected;
        this.most = expected >= 0 ? expected : longest;
        this.moved = moved;
    }

    /**
     * Of the reply to a part no body is kept but the text of an error. The store takes a part with 200 and an ETag, and
     * refuses it with XML; anything else is not the store's.
     */
    static BodyHandler<String> ofPart() {
        return reply -> {
            ToFile body = textOnly(new AtomicLong());
            int status = reply.statusCode();
            if (status < 400 && status != 200 || status == PROXY_AUTHENTICATION_REQUIRED) {
                body.result.completeExceptionally(foreign(status));
            } else if (bare(header(reply, "content-type")).equalsIgnoreCase("text/html")) {
                body.result.completeExceptionally(new ForeignReply("it is a page of HTML, with HTTP " + status));
            } else if (status == 200 && header(reply, "etag").isEmpty()) {
                body.result.completeExceptionally(new ForeignReply("it has no ETag, with HTTP 200"));
            }
            return body;
        };
    }

    private static ForeignReply foreign(int status) {
        return new ForeignReply("its status is HTTP " + status);
    }

    private static String header(ResponseInfo reply, String name) {
        return reply.headers().firstValue(name).orElse("");
    }

    /** A file that has {@code from} bytes already, of a content of this type; empty when that is not known. */
    static BodyHandler<String> appending(Path file, String type, long from, long longest, AtomicLong moved) {
        return reply -> {
            try {
                if (reply.statusCode() == 200 || reply.statusCode() == 206) {
                    check(reply, type); // before the file is touched
                }
                return switch (reply.statusCode()) {
                    case 200 -> begun(file, 0, length(reply), longest, moved);
                    case 206 -> continued(file, from, reply, moved);
                    default -> {
                        if (reply.statusCode() < 400) { // a redirect to a sign-in page, most likely
                            throw foreign(reply.statusCode());
                        }
                        yield textOnly(moved);
                    }
                };
            } catch (IOException failure) {
                ToFile failed = textOnly(moved);
                failed.result.completeExceptionally(failure);
                return failed;
            }
        };
    }

    /** That the reply is of this type, when both are known. */
    private static void check(ResponseInfo reply, String type) throws ForeignReply {
        String got = bare(header(reply, "content-type"));
        if (!got.isEmpty() && !type.isEmpty() && !got.equalsIgnoreCase(bare(type))) {
            throw new ForeignReply("its content type is " + got + ", not " + bare(type));
        }
    }

    /** A content type without parameters. */
    private static String bare(String type) {
        return type.split(";", 2)[0].strip();
    }

    private static long length(ResponseInfo reply) {
        return reply.headers().firstValueAsLong("content-length").orElse(-1);
    }

    private static ToFile continued(Path file, long from, ResponseInfo reply, AtomicLong moved) throws IOException {
        Matcher range = RANGE.matcher(header(reply, "content-range"));
        if (!range.matches() || Long.parseLong(range.group(1)) != from) {
            throw new IOException("the cloud answered with another range than was asked for");
        }
        return begun(file, from, Long.parseLong(range.group(2)), -1, moved);
    }

    private static ToFile textOnly(AtomicLong moved) {
        return new ToFile(null, null, -1, -1, moved);
    }

    private static ToFile begun(Path file, long from, long expected, long longest, AtomicLong moved)
            throws LocalFailure {
        try {
            FileChannel channel = FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
            channel.truncate(from);
            channel.position(from);
            return new ToFile(file, channel, expected, longest, moved);
        } catch (IOException failure) {
            throw new LocalFailure(file, failure);
        }
    }

    @Override
    public CompletionStage<String> getBody() {
        return result;
    }

    @Override
    public void onSubscribe(Flow.Subscription subscription) {
        source = subscription;
        if (result.isDone()) {
            subscription.cancel();
        } else {
            subscription.request(Long.MAX_VALUE);
        }
    }

    @Override
    public void onNext(List<ByteBuffer> buffers) {
        try {
            for (ByteBuffer buffer : buffers) {
                if (moved.addAndGet(buffer.remaining()) < 0) {
                    throw new IOException("abandoned");
                }
                if (channel == null) {
                    keep(buffer);
                } else {
                    write(buffer);
                }
            }
            if (channel != null && channel.position() > most) {
                source.cancel();
                close();
                Files.delete(file);
                result.completeExceptionally(new ForeignReply("its body has more than " + most + " bytes"));
            }
        } catch (IOException failure) {
            source.cancel();
            close();
            result.completeExceptionally(channel == null ? failure : new LocalFailure(file, failure));
        }
    }

    @Override
    public void onError(Throwable failure) {
        close();
        result.completeExceptionally(failure);
    }

    @Override
    public void onComplete() {
        try {
            if (channel != null && expected >= 0 && channel.size() != expected) {
                throw new IOException("got " + channel.size() + " bytes in the place of " + expected);
            }
            if (channel != null && channel.size() == 0) {
                throw new ForeignReply("its body is empty");
            }
            close();
            result.complete(text.toString(StandardCharsets.UTF_8));
        } catch (IOException failure) {
            close();
            result.completeExceptionally(failure);
        }
    }

    private void keep(ByteBuffer buffer) {
        byte[] bytes = new byte[Math.min(buffer.remaining(), LONGEST_TEXT - text.size())];
        buffer.get(bytes);
        text.writeBytes(bytes);
    }

    private void write(ByteBuffer buffer) throws IOException {
        while (buffer.hasRemaining()) {
            channel.write(buffer);
        }
    }

    private void close() {
        try {
            if (channel != null) {
                channel.close();
            }
        } catch (IOException failure) {
            result.completeExceptionally(new LocalFailure(file, failure));
        }
    }
}
