package com.docpreview.client;

import io.grpc.EquivalentAddressGroup;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.StatusOr;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.Arrays;
import java.util.List;

/** Names that stand for several ports of this machine: {@code ports:///1234,1235}. */
final class TwoAddresses extends NameResolverProvider {
    static final String SCHEME = "ports";

    @Override
    protected boolean isAvailable() {
        return true;
    }

    @Override
    protected int priority() {
        return 5;
    }

    @Override
    public String getDefaultScheme() {
        return SCHEME;
    }

    @Override
    public NameResolver newNameResolver(URI target, NameResolver.Args arguments) {
        List<EquivalentAddressGroup> addresses = Arrays.stream(target.getPath().substring(1).split(","))
                .map(port -> new EquivalentAddressGroup(new InetSocketAddress("127.0.0.1", Integer.parseInt(port))))
                .toList();
        return new NameResolver() {
            @Override
            public String getServiceAuthority() {
                return "localhost";
            }

            @Override
            public void start(Listener2 listener) {
                listener.onResult(ResolutionResult.newBuilder()
                        .setAddressesOrError(StatusOr.fromValue(addresses))
                        .build());
            }

            @Override
            public void shutdown() {}
        };
    }
}
