package docpreview

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// tokens puts a token into the metadata of each call. They are interceptors and not gRPC's per-call credentials of a
// connection, because the latter are asked by health checks too: a source that fails would then look like a gateway that
// cannot be reached.
type tokens struct {
	source    TokenSource
	encrypted bool
}

func (t tokens) unary(
	ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	credentials, err := t.next(ctx)
	if err != nil {
		return err
	}
	return invoke(ctx, method, request, reply, conn, append(options, credentials)...)
}

func (t tokens) stream(
	ctx context.Context, description *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	credentials, err := t.next(ctx)
	if err != nil {
		return nil, err
	}
	return open(ctx, description, conn, method, append(options, credentials)...)
}

func (t tokens) next(ctx context.Context) (grpc.CallOption, error) {
	token, err := t.source(ctx)
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if err != nil {
		return nil, newError(codes.Unauthenticated, err, fmt.Sprintf("the token source failed: %s", err))
	}
	for _, each := range []byte(token) {
		if each <= ' ' || each > '~' {
			return nil, newError(codes.Unauthenticated, nil, "the token source gave a text with a line break, space or other character that no token has: trim it")
		}
	}
	return grpc.PerRPCCredentials(bearer{token, t.encrypted}), nil
}

type bearer struct {
	token     string
	encrypted bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.encrypted }
