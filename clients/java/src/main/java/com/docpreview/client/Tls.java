package com.docpreview.client;

import io.grpc.ChannelCredentials;
import io.grpc.TlsChannelCredentials;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.util.Objects;

/**
 * An encrypted connection. {@code Tls.system()} checks the gateway's certificate against the authorities that Java
 * trusts. Certificates and keys are PEM; a key is PKCS#8 and not encrypted.
 */
public final class Tls {
    private final byte[] rootCertificates;
    private final byte[] certificateChain;
    private final byte[] privateKey;
    private final String serverName;

    private Tls(byte[] rootCertificates, byte[] certificateChain, byte[] privateKey, String serverName) {
        this.rootCertificates = rootCertificates;
        this.certificateChain = certificateChain;
        this.privateKey = privateKey;
        this.serverName = serverName;
    }

    /** Trusts the authorities that Java trusts. */
    public static Tls system() {
        return new Tls(null, null, null, null);
    }

    /** Trusts these authorities only. */
    public static Tls trusting(byte[] rootCertificates) {
        return new Tls(rootCertificates.clone(), null, null, null);
    }

    /** Shows the gateway this certificate of the client (mTLS). */
    public Tls withCertificate(byte[] certificateChain, byte[] privateKey) {
        Objects.requireNonNull(privateKey, "a client certificate needs its private key");
        return new Tls(rootCertificates, certificateChain.clone(), privateKey.clone(), serverName);
    }

    /**
     * The name that the gateway's certificate must have. Default: the host of the target. Needed when the target is a
     * forwarded port or an address.
     */
    public Tls withServerName(String name) {
        return new Tls(rootCertificates, certificateChain, privateKey, name);
    }

    String serverName() {
        return serverName;
    }

    ChannelCredentials credentials() {
        try {
            TlsChannelCredentials.Builder builder = TlsChannelCredentials.newBuilder();
            if (rootCertificates != null) {
                builder.trustManager(new ByteArrayInputStream(rootCertificates));
            }
            if (certificateChain != null) {
                builder.keyManager(new ByteArrayInputStream(certificateChain), new ByteArrayInputStream(privateKey));
            }
            return builder.build();
        } catch (IOException unreadable) {
            throw new IllegalArgumentException("certificates and keys must be PEM", unreadable);
        }
    }

    @Override
    public String toString() {
        return "Tls[serverName=" + serverName + ", withCertificate=" + (certificateChain != null) + "]";
    }
}
