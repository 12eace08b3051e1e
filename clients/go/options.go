package docpreview

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
)

// TokenSource returns the bearer token of the next call. It is asked before every call, so that tokens may change.
type TokenSource func(ctx context.Context) (string, error)

// Option changes how a Client connects and how patient it is.
type Option func(*options)

type options struct {
	tls         *tls.Config
	token       TokenSource
	userAgent   string
	createOnce  bool
	http        *http.Client
	unary       time.Duration
	wait        time.Duration
	watch       time.Duration
	idle        time.Duration
	longestPage int64 // bytes, of a page whose length the storage does not tell
	unreachable time.Duration
	streamIdle  time.Duration // when connections of watches and waits are closed; tests set it
	dial        []grpc.DialOption
}

func defaults() options {
	return options{
		http:        storageClient(),
		unary:       30 * time.Second,
		wait:        5 * time.Minute,
		watch:       time.Hour,
		idle:        time.Minute,
		longestPage: 1 << 30,
		unreachable: time.Minute,
		streamIdle:  time.Minute,
	}
}

// WithTLS encrypts the connection. An empty config checks the gateway's certificate against the system's authorities;
// [TLSFromFiles] makes one for mutual TLS. Default: not encrypted.
func WithTLS(config *tls.Config) Option {
	return func(o *options) { o.tls = config }
}

// WithToken sends `authorization: Bearer <token>` with every call. A token goes over an encrypted connection, or to this
// machine; [New] refuses anything else.
func WithToken(source TokenSource) Option {
	return func(o *options) { o.token = source }
}

// StaticToken is the source of a token that never changes.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return token, nil }
}

// WithUserAgent names the calling service, in front of the client's own user agent.
func WithUserAgent(name string) Option {
	return func(o *options) { o.userAgent = name }
}

// WithoutRepeatedCreates makes creates once: without a request_id of the client's own, and without a second attempt
// after a failure. The cloud bills each create, so each must then be repeated by the caller, with a RequestId of its own.
func WithoutRepeatedCreates() Option {
	return func(o *options) { o.createOnce = true }
}

// WithHTTPClient sends uploads and downloads, which go straight to the cloud's storage, through client: for a proxy or
// authorities of its own. Default: one with the proxy of the environment.
func WithHTTPClient(client *http.Client) Option {
	return func(o *options) { o.http = client }
}

// WithDeadlines sets how long a call may take, retries included, when its context has no deadline: creates and reads
// (default 30 seconds), [Client.Wait] (5 minutes), and [Client.Watch] and [Client.WatchMany] over all their streams (1
// hour). Uploads and downloads take the time that they need, as long as bytes move.
func WithDeadlines(unary, wait, watch time.Duration) Option {
	return func(o *options) { o.unary, o.wait, o.watch = unary, wait, watch }
}

// WithPatience sets when a watch fails. A stream without any message for idle, not even a heartbeat, is replaced:
// keep it well above the gateway's heartbeat interval (15 seconds by default). Watches and waits end when no message
// comes for unreachable. Both are one minute by default. A request of an upload or download of which no byte moves
// for idle is repeated.
func WithPatience(idle, unreachable time.Duration) Option {
	return func(o *options) { o.idle, o.unreachable = idle, unreachable }
}

// WithDialOptions adds options of gRPC itself, such as interceptors or a stats handler for tracing.
func WithDialOptions(dial ...grpc.DialOption) Option {
	return func(o *options) { o.dial = append(o.dial, dial...) }
}

// TLSFromFiles reads PEM files for [WithTLS]. Without rootCertificates the system's authorities are trusted;
// certificateChain and privateKey are the client's own, both or none.
func TLSFromFiles(rootCertificates, certificateChain, privateKey string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if rootCertificates != "" {
		pem, err := os.ReadFile(rootCertificates)
		if err != nil {
			return nil, fmt.Errorf("root certificates: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("root certificates: %s has no certificate in PEM", rootCertificates)
		}
	}
	if (certificateChain == "") != (privateKey == "") {
		return nil, errors.New("a client certificate needs its private key, and the key its certificate: give both")
	}
	if certificateChain != "" {
		pair, err := tls.LoadX509KeyPair(certificateChain, privateKey)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
