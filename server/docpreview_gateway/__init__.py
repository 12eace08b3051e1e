"""gRPC gateway to Tencent Cloud CI document-preview jobs."""
