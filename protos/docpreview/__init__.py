"""The docpreview contract: generated from the .proto files beside the stubs, by `make generate`."""
