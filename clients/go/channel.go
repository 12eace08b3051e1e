package docpreview

import (
	"fmt"
	"net"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const modulePath = "github.com/docpreview/docpreview-gateway/clients/go"

// Reads and uploads are retried by gRPC. CreatePreviewJob is not among them and never may be: every create is billed. Creates with a
// request_id are repeated above gRPC, which cannot tell the two kinds apart (create.go). CANCELLED: a stopping server
// cancels calls that it has not yet begun. Retries are at most one for ten successes in the long run, so that they cannot
// keep a struggling gateway down.
const serviceConfig = `{
  "loadBalancingConfig": [{"` + balancerName + `": {}}],
  "healthCheckConfig": {"serviceName": "docpreview.v1.PreviewJobService"},
  "methodConfig": [{
    "name": [
      {"service": "docpreview.v1.PreviewJobService", "method": "GetPreviewJob"},
      {"service": "docpreview.v1.PreviewJobService", "method": "BatchGetPreviewJobs"},
      {"service": "docpreview.v1.PreviewJobService", "method": "ListPreviewJobs"},
      {"service": "docpreview.v1.PreviewJobService", "method": "WaitPreviewJob"},
      {"service": "docpreview.v1.PreviewJobService", "method": "WatchPreviewJob"},
      {"service": "docpreview.v1.PreviewJobService", "method": "WatchPreviewJobs"},
      {"service": "docpreview.v1.PreviewQueueService", "method": "ListPreviewQueues"},
      {"service": "docpreview.v1.UploadService"},
      {"service": "docpreview.v1.UsageService", "method": "GetUsage"}
    ],
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.2s",
      "maxBackoff": "2s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
    }
  }],
  "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1}
}`

// maxHeaderBytes: errors that name many fields are longer than 8 KiB.
const maxHeaderBytes = 32 * 1024

func dialOptions(target string, o options) ([]grpc.DialOption, error) {
	local := isLoopback(target)
	if o.token != nil && o.tls == nil && !local {
		return nil, fmt.Errorf("docpreview: a token may not be sent to %s in the clear: use WithTLS, or a target on this machine", target)
	}
	transport := insecure.NewCredentials()
	if o.tls != nil {
		transport = credentials.NewTLS(o.tls)
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithUserAgent(strings.TrimSpace(o.userAgent + " docpreview-client-go/" + version())),
		// The gateway takes pings from 20 s on; more often would be answered with GOAWAY "too_many_pings".
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true,
		}),
		// gRPC would let two minutes pass before it looks again for a gateway that was away.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		grpc.WithStatsHandler(sentNotice{}),
	}
	if local { // a proxy from the environment must not get to see what is meant for this machine
		dial = append(dial, grpc.WithNoProxy())
	}
	dial = append(dial, o.dial...)
	if o.token != nil { // last: an interceptor of the caller that repeats a call gets another token
		each := tokens{source: o.token, encrypted: o.tls != nil}
		dial = append(dial, grpc.WithChainUnaryInterceptor(each.unary), grpc.WithChainStreamInterceptor(each.stream))
	}
	return dial, nil
}

var resolverScheme = regexp.MustCompile(`^(dns:(///)?|passthrough:(///)?)`)

// isLoopback reports whether everything that is sent to target stays on this machine.
func isLoopback(target string) bool {
	if strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:") {
		return true
	}
	address := resolverScheme.ReplaceAllString(target, "")
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range append(info.Deps, &info.Main) {
			if module.Path == modulePath && module.Version != "" {
				return module.Version
			}
		}
	}
	return "unknown"
}
