"""The Functions app: decode the trigger, open one door of the control plane, let errors rise."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import cache
from typing import cast

import azure.functions as func

from sync_core.app import Service, build_azure
from sync_core.domain.errors import ConfigError, PermanentError
from sync_core.settings import read_azure_settings
from sync_core.web.routes import Answer, Request, Routes

CONNECTION = "ServiceBusConnection"

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


@cache
def service() -> Service:
    """Made by the first trigger, so that a wrong setting is an error of a function and not of the host's start."""
    return build_azure(read_azure_settings(os.environ))


async def handle(queue: str, message: func.ServiceBusMessage) -> None:
    """What nobody ever can carry out is put aside with its reason; what fails otherwise rises and comes again."""
    plane, body = service().plane, message.get_body().decode("utf-8", "replace")
    try:
        await asyncio.to_thread(plane.handle, queue, body)
    except (ConfigError, PermanentError) as error:
        await asyncio.to_thread(plane.queue.reject, queue, body, message.message_id or "", str(error))


async def answer(request: func.HttpRequest, path: str) -> func.HttpResponse:
    """One request through the routes."""
    headers = {name.lower(): value for name, value in cast("Mapping[str, str]", request.headers).items()}
    who = headers.get("x-ms-client-principal-name", "")
    asked = Request(request.method, path, dict(request.params), headers, request.get_body(), who)
    found: Answer = await asyncio.to_thread(Routes(service().plane, service().webhook_login).answer, asked)
    return func.HttpResponse(found.text, headers=found.headers, status_code=found.status, mimetype=found.content_type)


@app.timer_trigger("timer", schedule="0 * * * * *", use_monitor=True)
async def tick(timer: func.TimerRequest) -> None:
    await asyncio.to_thread(service().plane.tick)


@app.timer_trigger("timer", schedule="30 * * * * *", use_monitor=True)
async def reconcile(timer: func.TimerRequest) -> None:
    await asyncio.to_thread(service().plane.reconcile)


@app.timer_trigger("timer", schedule="15 */5 * * * *", use_monitor=True)
async def watch(timer: func.TimerRequest) -> None:
    await asyncio.to_thread(service().plane.watch)


@app.timer_trigger("timer", schedule="45 20 2 * * *", use_monitor=True)
async def forget(timer: func.TimerRequest) -> None:
    await asyncio.to_thread(service().plane.forget)


@app.service_bus_queue_trigger("message", queue_name="sync-requests", connection=CONNECTION)
async def take_request(message: func.ServiceBusMessage) -> None:
    await handle("sync-requests", message)


@app.service_bus_queue_trigger("message", queue_name="sync-runs", connection=CONNECTION)
async def launch(message: func.ServiceBusMessage) -> None:
    await handle("sync-runs", message)


@app.service_bus_queue_trigger("message", queue_name="sync-completions", connection=CONNECTION)
async def complete(message: func.ServiceBusMessage) -> None:
    await handle("sync-completions", message)


@app.service_bus_queue_trigger("message", queue_name="sync-alerts", connection=CONNECTION)
async def deliver(message: func.ServiceBusMessage) -> None:
    await handle("sync-alerts", message)


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
