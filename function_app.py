"""The Functions app: decode the trigger, open one door of the control plane, let errors rise."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import azure.functions as func

from sync_core.app import azure_service as service
from sync_core.control_plane import ControlPlane
from sync_core.domain.errors import ConfigError, PermanentError
from sync_core.web.roles import admission
from sync_core.web.routes import Request, Routes

CONNECTION = "ServiceBusConnection"
HTTP_AUTH = os.environ.get("UDS_HTTP_AUTH") or "keys"

# The platform checks Entra's token and the routes its roles: with them the host must not ask for a key as well.
app = func.FunctionApp(func.AuthLevel.ANONYMOUS if HTTP_AUTH == "entra" else func.AuthLevel.FUNCTION)


async def on_plane(act: Callable[[ControlPlane], object]) -> None:
    """In a thread, and the first trigger makes the plane there too: the event loop answers the host meanwhile."""
    await asyncio.to_thread(lambda: act(service().plane))


def handle(plane: ControlPlane, queue: str, message: func.ServiceBusMessage) -> None:
    """What nobody ever can carry out is put aside with its reason; what fails otherwise rises and comes again."""
    body = message.get_body().decode("utf-8", "replace")
    try:
        plane.handle(queue, body)
    except (ConfigError, PermanentError) as error:
        plane.queue.reject(queue, body, message.message_id or "", str(error))


async def answer(request: func.HttpRequest, path: str) -> func.HttpResponse:
    """One request through the routes."""
    asked = Request(request.method, path, dict(request.params), dict(request.headers), request.get_body())
    admit = admission(HTTP_AUTH, os.environ)
    found = await asyncio.to_thread(lambda: Routes(service().plane, service().webhook_login, admit).answer(asked))
    return func.HttpResponse(found.text, headers=found.headers, status_code=found.status, mimetype=found.content_type)


@app.timer_trigger("timer", schedule="0 * * * * *", use_monitor=True)
async def tick(timer: func.TimerRequest) -> None:
    await on_plane(lambda plane: plane.tick())


@app.timer_trigger("timer", schedule="30 * * * * *", use_monitor=True)
async def reconcile(timer: func.TimerRequest) -> None:
    await on_plane(lambda plane: plane.reconcile())


@app.timer_trigger("timer", schedule="15 */5 * * * *", use_monitor=True)
async def watch(timer: func.TimerRequest) -> None:
    await on_plane(lambda plane: plane.watch())


@app.timer_trigger("timer", schedule="45 20 2 * * *", use_monitor=True)
async def forget(timer: func.TimerRequest) -> None:
    await on_plane(lambda plane: plane.forget())


@app.service_bus_queue_trigger("message", queue_name="sync-requests", connection=CONNECTION)
async def take_request(message: func.ServiceBusMessage) -> None:
    await on_plane(lambda plane: handle(plane, "sync-requests", message))


@app.service_bus_queue_trigger("message", queue_name="sync-runs", connection=CONNECTION)
async def launch(message: func.ServiceBusMessage) -> None:
    await on_plane(lambda plane: handle(plane, "sync-runs", message))


@app.service_bus_queue_trigger("message", queue_name="sync-completions", connection=CONNECTION)
async def complete(message: func.ServiceBusMessage) -> None:
    await on_plane(lambda plane: handle(plane, "sync-completions", message))


@app.service_bus_queue_trigger("message", queue_name="sync-alerts", connection=CONNECTION)
async def deliver(message: func.ServiceBusMessage) -> None:
    await on_plane(lambda plane: handle(plane, "sync-alerts", message))


@app.route("{*path}", trigger_arg_name="request", methods=["GET", "POST"])
async def http(request: func.HttpRequest) -> func.HttpResponse:
    return await answer(request, "/" + request.route_params.get("path", ""))


@app.route("health", trigger_arg_name="request", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
async def health(request: func.HttpRequest) -> func.HttpResponse:
    return await answer(request, "/health")


# Databricks signs in with a name and a password, which the route checks; a key would have to stand in its URL.
@app.route("webhooks/databricks", trigger_arg_name="request", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
async def webhook(request: func.HttpRequest) -> func.HttpResponse:
    return await answer(request, "/webhooks/databricks")
