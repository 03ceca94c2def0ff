"""The real Azure Functions Python worker library on our function app: no host, but its own code decodes and calls.

The host's part, protocol messages in plain bags of keywords, is what is played here.
"""

from __future__ import annotations

import json
import sys
import uuid
from types import SimpleNamespace
from typing import Any


class Bag:
    """A protocol message: its fields are its keywords."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - protobuf's name
        return next((name for name, value in self.__dict__.items() if value is not None), None)


class Parameter(Bag):
    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802
        return "data"


def _kind(name: str, **constants: Any) -> type[Bag]:
    return type(name, (Bag,), constants)


_PLAIN = (
    "WorkerInitResponse", "WorkerMetadata", "FunctionMetadataResponse", "FunctionLoadResponse", "InvocationResponse",
    "FunctionEnvironmentReloadResponse", "ParameterBinding", "RpcException", "RpcFunctionMetadata", "RpcHttp",
    "RpcRetryOptions", "TypedData", "NullableBool", "NullableDouble", "NullableString", "NullableTimestamp",
)  # fmt: skip
PROTOCOL = SimpleNamespace(
    BindingInfo=_kind("BindingInfo", inout=2, out=1, undefined=0),
    StatusResult=_kind("StatusResult", Failure=0, Success=1, Cancelled=2),
    RpcHttpCookie=_kind("RpcHttpCookie", SameSite=SimpleNamespace(Lax=1, Strict=2, ExplicitNone=3, **{"None": 0})),
    **{name: _kind(name) for name in _PLAIN},
)


class Worker:
    """The worker with the app of a folder loaded."""

    def __init__(self, folder: str) -> None:
        if folder not in sys.path:
            sys.path.insert(0, folder)
        import azure_functions_runtime

        self.runtime: Any = azure_functions_runtime
        self.folder = folder
        self.functions: dict[str, Any] = {}

    async def start(self) -> None:
        self.runtime.start_threadpool_executor()
        begin = SimpleNamespace(capabilities={}, function_app_directory=self.folder)
        answer = await self.runtime.worker_init_request(self._ask(worker_init_request=begin))
        if answer.result.status != PROTOCOL.StatusResult.Success:
            raise RuntimeError(answer.result.exception.stack_trace)
        found = await self.runtime.functions_metadata_request(self._ask())
        if found.result.status != PROTOCOL.StatusResult.Success:
            raise RuntimeError(found.result.exception.stack_trace)
        self.functions = {one.name: one for one in found.function_metadata_results}
        for one in self.functions.values():
            load = SimpleNamespace(function_id=one.function_id)
            await self.runtime.function_load_request(self._ask(function_load_request=load))

    def stop(self) -> None:
        self.runtime.stop_threadpool_executor()

    async def invoke(self, name: str, inputs: dict[str, Any], metadata: dict[str, Any] | None = None) -> Any:
        """Call a function as the host does. Returns the worker's InvocationResponse."""
        request = SimpleNamespace(
            invocation_id=str(uuid.uuid4()),
            function_id=self.functions[name].function_id,
            input_data=[Parameter(name=key, data=value) for key, value in inputs.items()],
            trigger_metadata={key: _typed(value) for key, value in (metadata or {}).items()},
            trace_context=SimpleNamespace(trace_parent="", trace_state="", attributes={}),
            retry_context=SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
        )
        return await self.runtime.invocation_request(self._ask(invocation_request=request))

    async def timer(self, name: str) -> None:
        past = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": None, "IsPastDue": False}
        self.require(await self.invoke(name, {"timer": PROTOCOL.TypedData(json=json.dumps(past))}))

    async def message(self, name: str, body: bytes, message_id: str) -> Any:
        """Hand a Service Bus message to its trigger. Returns the response; the caller settles the message."""
        metadata = {
            "MessageId": message_id, "SessionId": "", "DeliveryCount": 1, "CorrelationId": "",
            "ContentType": "application/json", "LockToken": str(uuid.uuid4()), "SequenceNumber": 1,
            "EnqueuedTimeUtc": "2026-01-01T00:00:00Z", "LockedUntil": "2026-01-01T00:05:00Z",
            "ApplicationProperties": {}, "UserProperties": {},
        }  # fmt: skip
        return await self.invoke(name, {"message": PROTOCOL.TypedData(bytes=body)}, metadata)

    async def http(
        self, name: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Status and document. A POST says that it is JSON unless `headers` say otherwise."""
        given = PROTOCOL.RpcHttp(
            method=method,
            url=f"https://example.net/api/{path}",
            headers=({"content-type": "application/json"} if method == "POST" else {}) | (headers or {}),
            body=PROTOCOL.TypedData(bytes=body),
            params={"path": path},
            query={},
        )
        answer = self.require(await self.invoke(name, {"request": PROTOCOL.TypedData(http=given)}))
        http = answer.return_value.http
        content = http.body.bytes if getattr(http.body, "bytes", None) else http.body.string
        return int(http.status_code), json.loads(content)

    def require(self, answer: Any) -> Any:
        if answer.result.status != PROTOCOL.StatusResult.Success:
            raise RuntimeError(f"{answer.result.exception.message}\n{answer.result.exception.stack_trace}")
        return answer

    def _ask(self, **content: Any) -> SimpleNamespace:
        return SimpleNamespace(request=SimpleNamespace(**content), properties={"host": "127.0.0.1", "protos": PROTOCOL})


def _typed(value: Any) -> Bag:
    """How the host sends trigger metadata: text stays text, everything else is JSON."""
    if isinstance(value, str):
        return PROTOCOL.TypedData(string=value)
    return PROTOCOL.TypedData(json=json.dumps(value, default=str))
