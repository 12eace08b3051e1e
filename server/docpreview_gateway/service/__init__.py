"""The use-cases of the contract, free of gRPC: a request message and a `Call` in, a message or a GatewayError out."""
