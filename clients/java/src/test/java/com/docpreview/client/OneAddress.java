package com.docpreview.client;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** One address before several gateways, as a ClusterIP is: each new connection goes to the present one. */
final class OneAddress implements AutoCloseable {
    private final ServerSocket listening = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
    private final ExecutorService threads = Executors.newCachedThreadPool();
    private volatile int port;

    OneAddress(Gateway first) throws IOException {
        leadsTo(first);
        threads.submit(() -> {
            while (true) {
                Socket caller = listening.accept();
                Socket gateway = new Socket(InetAddress.getLoopbackAddress(), port);
                threads.submit(() -> copy(caller, gateway));
                threads.submit(() -> copy(gateway, caller));
            }
        });
    }

    void leadsTo(Gateway gateway) {
        port = gateway.port();
    }

    String target() {
        return "127.0.0.1:" + listening.getLocalPort();
    }

    private static void copy(Socket from, Socket to) {
        try (from; to) {
            InputStream input = from.getInputStream();
            OutputStream output = to.getOutputStream();
            input.transferTo(output);
        } catch (IOException ended) {
            // One of the sides has gone.
        }
    }

    @Override
    public void close() throws IOException {
        listening.close();
        threads.shutdownNow();
    }
}
