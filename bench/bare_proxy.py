"""Baseline: a minimal gRPC service with an HTTP upstream, `grpc.aio` answering the body of one GET by aiohttp.

Nothing is checked, signed, read or translated. The upstream's port is the argument. Prints its port and serves until
its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import grpc

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest


async def main(upstream_port: str) -> None:
    # The gateway's connection settings, without DNS, cookies and redirects.
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{upstream_port}",
        connector=aiohttp.TCPConnector(limit=100),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:

        async def get(request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            job_id = GetPreviewJobRequest.FromString(request).job_id
            async with session.get(f"/doc_jobs/{job_id}", allow_redirects=False) as reply:
                return await reply.read()

        server = grpc.aio.server()
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Get": grpc.unary_unary_rpc_method_handler(get)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", methods),))
        print(server.add_insecure_port("127.0.0.1:0"), flush=True)
        await server.start()
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
