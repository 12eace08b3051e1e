/** The channel to the gateway: its settings, its service config, and who may see a token. */

import { isIP } from "node:net";

import { type ChannelCredentials, type ChannelOptions, credentials } from "@grpc/grpc-js";

import type { Tls } from "./options.js";
import { VERSION } from "./version.js";

const JOBS = "docpreview.v1.PreviewJobService";

// Calls that change nothing. CreatePreviewJob is not among them and never may be: every create is billed. Those with a
// requestId are repeated above gRPC, which cannot tell the two kinds apart (repeating.ts).
const READS = [
  ...["GetPreviewJob", "BatchGetPreviewJobs", "ListPreviewJobs", "WaitPreviewJob", "WatchPreviewJob"].map((method) => ({
    service: JOBS,
    method,
  })),
  { service: "docpreview.v1.PreviewQueueService", method: "ListPreviewQueues" },
  { service: "docpreview.v1.UsageService", method: "GetUsage" },
];

const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: READS,
      // CANCELLED: a stopping server cancels calls that it has not yet begun.
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.2s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "CANCELLED"],
      },
    },
  ],
  // At most one retry for ten successes in the long run, so that retries cannot keep a struggling gateway down.
  retryThrottling: { maxTokens: 100, tokenRatio: 0.1 },
};

export function channelOptions(target: string, tls: Tls | undefined, userAgent: string | undefined): ChannelOptions {
  return {
    "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
    "grpc.primary_user_agent": `${userAgent ?? ""} docpreview-client-typescript/${VERSION}`.trim(),
    // The gateway takes pings from 20 s on; more often would be answered with GOAWAY "too_many_pings".
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
    // gRPC would let two minutes pass before it looks again for a gateway that was away.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 10_000,
    "grpc.dns_min_time_between_resolutions_ms": 10_000,
    // A proxy from the environment must not get to see what is meant for this machine.
    "grpc.enable_http_proxy": isLoopback(target) ? 0 : 1,
    ...(tls?.serverName === undefined ? {} : { "grpc.ssl_target_name_override": tls.serverName }),
  };
}

export function channelCredentials(tls: Tls | undefined): ChannelCredentials {
  if (tls === undefined) {
    return credentials.createInsecure();
  }
  if ((tls.certificateChain === undefined) !== (tls.privateKey === undefined)) {
    throw new TypeError("A client certificate needs its private key, and the key its certificate: give both.");
  }
  return credentials.createSsl(pem(tls.rootCertificates), pem(tls.privateKey), pem(tls.certificateChain));
}

function pem(bytes: Uint8Array | undefined): Buffer | null {
  return bytes === undefined ? null : Buffer.from(bytes);
}

/** Whether everything that is sent to `target` stays on this machine. */
export function isLoopback(target: string): boolean {
  if (target.startsWith("unix:")) {
    return true;
  }
  return target
    .replace(/^(dns:(\/\/\/)?|ipv4:|ipv6:)/, "")
    .split(",")
    .every((address) => {
      const bracketed = /^\[([^\]]*)\](:\d+)?$/.exec(address);
      const host = bracketed?.[1] ?? (isIP(address) === 6 ? address : address.replace(/:\d+$/, ""));
      return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
    });
}
