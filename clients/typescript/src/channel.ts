/** The channel to the gateway: its settings, its service config, and who may see a token. */

import { isIP } from "node:net";

import { type ChannelCredentials, Client, type ClientOptions as Settings, credentials } from "@grpc/grpc-js";

import type { ClientOptions, Tls } from "./options.js";
import { VERSION } from "./version.js";

const JOBS = "docpreview.v1.PreviewJobService";

// Calls that may be made twice: reads, and those of uploads (CreateUpload begins another one; nothing comes of the first).
// CreatePreviewJob is not among them and never may be: every create is billed. Creates are repeated above gRPC, which does
// not know the gateway's reasons (repeating.ts).
const REPEATABLE = [
  ...[
    "GetPreviewJob",
    "BatchGetPreviewJobs",
    "ListPreviewJobs",
    "WaitPreviewJob",
    "WatchPreviewJob",
    "WatchPreviewJobs",
  ].map((method) => ({ service: JOBS, method })),
  { service: "docpreview.v1.PreviewQueueService", method: "ListPreviewQueues" },
  { service: "docpreview.v1.UsageService", method: "GetUsage" },
  ...["CreateUpload", "CompleteUpload", "AbortUpload"].map((method) => ({
    service: "docpreview.v1.UploadService",
    method,
  })),
];

const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: REPEATABLE,
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

/** Makes channels to the gateway, each with connections of its own. Throws a TypeError for settings that do not fit. */
export function channels(target: string, options: ClientOptions): () => Client {
  if (options.token !== undefined && options.tls === undefined && !isLoopback(target)) {
    throw new TypeError(`A token may not be sent to ${target} in the clear: give tls, or a target on this machine.`);
  }
  const credentials = channelCredentials(options.tls);
  const settings = channelSettings(target, options);
  return () => new Client(target, credentials, settings);
}

function channelSettings(target: string, { tls, userAgent, interceptors }: ClientOptions): Settings {
  return {
    "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
    "grpc.primary_user_agent": `${userAgent ?? ""} docpreview-client-typescript/${VERSION}`.trim(),
    // Without it all channels of the process to one address share one connection, and its 100 streams.
    "grpc.use_local_subchannel_pool": 1,
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
    ...(interceptors === undefined ? {} : { interceptors: [...interceptors] }),
  };
}

function channelCredentials(tls: Tls | undefined): ChannelCredentials {
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
