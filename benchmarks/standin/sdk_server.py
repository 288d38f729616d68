"""A gRPC server that answers the Get and Set of Momento's own Python SDK.

It is there so that the SDK's client CPU can be measured; its own speed says nothing of the
service.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from momento_wire_types import cacheclient_pb2 as messages
from momento_wire_types import cacheclient_pb2_grpc as services

_values: dict[bytes, bytes] = {}


class _Cache(services.ScsServicer):
    def Get(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the protocol's names
        value = _values.get(request.cache_key)
        if value is None:
            return messages._GetResponse(result=messages.Miss)
        return messages._GetResponse(result=messages.Hit, cache_body=value)

    def Set(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the protocol's names
        _values[request.cache_key] = request.cache_body
        return messages._SetResponse(result=messages.Ok)


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(2))
    services.add_ScsServicer_to_server(_Cache(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)
