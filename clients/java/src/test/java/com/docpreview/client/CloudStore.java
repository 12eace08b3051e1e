package com.docpreview.client;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** An object store on a free loopback port. A path of it is an object; faults come first. */
final class CloudStore implements AutoCloseable {
    /** What the store is asked, in the order of arrival. */
    record Asked(String method, String path, Map<String, String> headers, byte[] body) {}

    /** In the place of an answer: a status, or a body that breaks off after so many bytes. */
    record Fault(int status, int bytes, Way way) {}

    /** What something on the way answers, in the place of the store. */
    record Foreign(int status, Map<String, String> headers) {}

    /** What a body does after the bytes of its fault; a LONG one is in chunks, twice the object. */
    enum Way {
        BREAKS,
        STOPS,
        LONG
    }

    private static final int NO_ANSWER = 0;

    final List<Asked> asked = Collections.synchronizedList(new ArrayList<>());
    final Map<String, byte[]> objects = new ConcurrentHashMap<>();
    /** Content types of objects that have one. */
    final Map<String, String> types = new ConcurrentHashMap<>();
    private final Map<String, Deque<Foreign>> foreign = new ConcurrentHashMap<>();
    private final Map<String, Runnable> during = new ConcurrentHashMap<>();
    private final Map<String, Deque<Fault>> faults = new ConcurrentHashMap<>();
    private final ExecutorService threads = Executors.newCachedThreadPool();
    private final CountDownLatch closed = new CountDownLatch(1);
    private final HttpServer server;

    CloudStore() throws IOException {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", this::answer);
        server.setExecutor(threads);
        server.start();
    }

    /** An address with something in it that nobody may see. */
    String url(String path) {
        return "http://127.0.0.1:" + server.getAddress().getPort() + path + "?q-signature=secret";
    }

    /** The next request of this path is answered with this status. */
    CloudStore refuses(String path, int... statuses) {
        for (int status : statuses) {
            faults.computeIfAbsent(path, key -> new ArrayDeque<>()).add(new Fault(status, 0, Way.BREAKS));
        }
        return this;
    }

    /** The next request of this path gets so many bytes of the object, and then the connection ends. */
    CloudStore breaksAfter(String path, int bytes) {
        faults.computeIfAbsent(path, key -> new ArrayDeque<>()).add(new Fault(200, bytes, Way.BREAKS));
        return this;
    }

    /** The next request of this path gets so many bytes of the object, and then nothing. */
    CloudStore stopsAfter(String path, int bytes) {
        faults.computeIfAbsent(path, key -> new ArrayDeque<>()).add(new Fault(200, bytes, Way.STOPS));
        return this;
    }

    /** The next request of this path gets twice the object, without Content-Length. */
    CloudStore isTooLong(String path) {
        faults.computeIfAbsent(path, key -> new ArrayDeque<>()).add(new Fault(200, 0, Way.LONG));
        return this;
    }

    /** The next request of this path is taken, and then the connection ends without an answer. */
    CloudStore losesReply(String path) {
        return refuses(path, NO_ANSWER);
    }

    /** The next requests of this path are answered by something else. */
    CloudStore isReplaced(String path, Foreign... replies) {
        foreign.computeIfAbsent(path, key -> new ArrayDeque<>()).addAll(List.of(replies));
        return this;
    }

    /** This happens before the next request of this path is answered. */
    CloudStore during(String path, Runnable what) {
        during.put(path, what);
        return this;
    }

    List<String> paths(String method) {
        synchronized (asked) {
            return asked.stream().filter(one -> one.method().equals(method)).map(Asked::path).sorted().toList();
        }
    }

    private void answer(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        Map<String, String> headers = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
        exchange.getRequestHeaders().forEach((name, values) -> headers.put(name, values.get(0)));
        byte[] body = exchange.getRequestBody().readAllBytes();
        asked.add(new Asked(exchange.getRequestMethod(), path, headers, body));
        Optional.ofNullable(during.remove(path)).ifPresent(Runnable::run);
        Fault fault = faults.getOrDefault(path, new ArrayDeque<>()).poll();
        Foreign other = foreign.getOrDefault(path, new ArrayDeque<>()).poll();
        try (exchange) {
            if (other != null) {
                other.headers().forEach(exchange.getResponseHeaders()::set);
                exchange.sendResponseHeaders(other.status(), -1);
                return;
            }
            if (fault != null && fault.status() == NO_ANSWER) {
                return; // the exchange is closed
            }
            if (fault != null && fault.status() != 200) {
                byte[] text = "<Error><Code>AsTheTestSays</Code></Error>".getBytes(StandardCharsets.UTF_8);
                exchange.sendResponseHeaders(fault.status(), text.length);
                exchange.getResponseBody().write(text);
            } else if (exchange.getRequestMethod().equals("PUT")) {
                exchange.getResponseHeaders().set("ETag", "\"etag-of-" + path.substring(1) + "\"");
                exchange.sendResponseHeaders(200, -1);
            } else {
                if (types.containsKey(path)) {
                    exchange.getResponseHeaders().set("Content-Type", types.get(path));
                }
                send(exchange, objects.get(path), headers.get("range"), fault);
            }
        }
    }

    private void send(HttpExchange exchange, byte[] whole, String range, Fault fault) throws IOException {
        if (whole == null) {
            exchange.sendResponseHeaders(404, -1);
            return;
        }
        int from = range == null ? 0 : Integer.parseInt(range.replaceAll("[^0-9]", ""));
        if (from > 0 && from >= whole.length) {
            exchange.sendResponseHeaders(416, -1);
            return;
        }
        byte[] rest = Arrays.copyOfRange(whole, from, whole.length);
        if (from > 0) {
            exchange.getResponseHeaders()
                    .set("Content-Range", "bytes " + from + "-" + (whole.length - 1) + "/" + whole.length);
        }
        if (fault != null && fault.way() == Way.LONG) {
            exchange.sendResponseHeaders(from > 0 ? 206 : 200, 0);
            exchange.getResponseBody().write(whole);
            exchange.getResponseBody().write(whole);
            return;
        }
        exchange.sendResponseHeaders(from > 0 ? 206 : 200, rest.length == 0 ? -1 : rest.length);
        exchange.getResponseBody().write(rest, 0, fault == null ? rest.length : fault.bytes());
        exchange.getResponseBody().flush();
        if (fault != null && fault.way() == Way.STOPS) {
            try {
                closed.await();
            } catch (InterruptedException stop) {
                Thread.currentThread().interrupt();
            }
        }
    }

    @Override
    public void close() {
        closed.countDown();
        server.stop(0);
        threads.shutdownNow();
    }
}
