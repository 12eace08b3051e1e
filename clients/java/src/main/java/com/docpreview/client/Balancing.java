package com.docpreview.client;

import io.grpc.ConnectivityState;
import io.grpc.LoadBalancer;
import io.grpc.LoadBalancerProvider;
import io.grpc.LoadBalancerRegistry;
import io.grpc.NameResolver.ConfigOrError;
import io.grpc.util.ForwardingLoadBalancerHelper;
import io.grpc.util.ForwardingSubchannel;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Round robin that avoids addresses whose gateway reports NOT_SERVING, as long as another is healthy. When none is, the
 * calls go to those that are connected: a gateway that drains still serves, and behind a single address (a Kubernetes
 * ClusterIP, a proxy) there is no other to go to until it ends the connection.
 */
final class Balancing extends LoadBalancerProvider {
    static final String POLICY = "docpreview_round_robin";

    private static final String HEALTHY_ONLY = "round_robin";

    /** Makes the policy known to gRPC. */
    static void register() {
        LoadBalancerRegistry.getDefaultRegistry().register(new Balancing());
    }

    @Override
    public boolean isAvailable() {
        return true;
    }

    @Override
    public int getPriority() {
        return 5;
    }

    @Override
    public String getPolicyName() {
        return POLICY;
    }

    @Override
    public LoadBalancer newLoadBalancer(LoadBalancer.Helper helper) {
        return healthyOnly().newLoadBalancer(new Fallback(helper));
    }

    @Override
    public ConfigOrError parseLoadBalancingPolicyConfig(Map<String, ?> config) {
        return healthyOnly().parseLoadBalancingPolicyConfig(config);
    }

    private static LoadBalancerProvider healthyOnly() {
        return LoadBalancerRegistry.getDefaultRegistry().getProvider(HEALTHY_ONLY);
    }

    /** Sits between the balancing by health and the channel. All of it runs in the channel's synchronization context. */
    private static final class Fallback extends ForwardingLoadBalancerHelper {
        private final LoadBalancer.Helper channel;
        private final Set<LoadBalancer.Subchannel> connected = new LinkedHashSet<>();
        private ConnectivityState state = ConnectivityState.IDLE;
        private LoadBalancer.SubchannelPicker picker;

        Fallback(LoadBalancer.Helper channel) {
            this.channel = channel;
        }

        @Override
        protected LoadBalancer.Helper delegate() {
            return channel;
        }

        @Override
        public LoadBalancer.Subchannel createSubchannel(LoadBalancer.CreateSubchannelArgs arguments) {
            return new Tracked(channel.createSubchannel(arguments));
        }

        @Override
        public void updateBalancingState(ConnectivityState next, LoadBalancer.SubchannelPicker chosen) {
            state = next;
            picker = chosen;
            publish();
        }

        private void publish() {
            if (state == ConnectivityState.TRANSIENT_FAILURE && !connected.isEmpty()) {
                channel.updateBalancingState(ConnectivityState.READY, new InTurn(List.copyOf(connected)));
            } else if (picker != null) {
                channel.updateBalancingState(state, picker);
            }
        }

        private final class Tracked extends ForwardingSubchannel {
            private final LoadBalancer.Subchannel subchannel;

            Tracked(LoadBalancer.Subchannel subchannel) {
                this.subchannel = subchannel;
            }

            @Override
            protected LoadBalancer.Subchannel delegate() {
                return subchannel;
            }

            @Override
            public void start(LoadBalancer.SubchannelStateListener listener) {
                super.start(change -> {
                    boolean changed = change.getState() == ConnectivityState.READY
                            ? connected.add(subchannel)
                            : connected.remove(subchannel);
                    listener.onSubchannelState(change);
                    if (changed) {
                        publish();
                    }
                });
            }

            @Override
            public void shutdown() {
                connected.remove(subchannel);
                super.shutdown();
            }
        }
    }

    private static final class InTurn extends LoadBalancer.SubchannelPicker {
        private final List<LoadBalancer.Subchannel> subchannels;
        private final AtomicInteger next = new AtomicInteger();

        InTurn(List<LoadBalancer.Subchannel> subchannels) {
            this.subchannels = subchannels;
        }

        @Override
        public LoadBalancer.PickResult pickSubchannel(LoadBalancer.PickSubchannelArgs call) {
            int index = Math.floorMod(next.getAndIncrement(), subchannels.size());
            return LoadBalancer.PickResult.withSubchannel(subchannels.get(index));
        }
    }
}
