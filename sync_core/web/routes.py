"""Requests to answers: which door of the control plane a path opens, and what its errors are over HTTP."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sync_core.control_plane import ControlPlane
from sync_core.domain.codec import to_json
from sync_core.domain.errors import ConfigError, RetryableError, SyncError
from sync_core.release import RELEASE
from sync_core.web.page import pipeline_page, pipelines_page
from sync_core.web.roles import Admission, Caller, NotSignedIn, Role

LOG = logging.getLogger("uds.control")

LARGEST_BODY = 262_144
"""Bytes. A request names pipelines; it does not carry data."""

UNTOLD = "The call could not be carried out; the log of the control plane says more."
"""Instead of an error's own words, where nobody has signed in."""

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


@dataclass(frozen=True)
class Request:
    """Names of headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """Status, and a document that becomes JSON, or the text of an HTML page."""

    status: int
    document: Mapping[str, Any] | str

    @property
    def text(self) -> str:
        return self.document if isinstance(self.document, str) else json.dumps(self.document, indent=1, default=str)

    @property
    def content_type(self) -> str:
        return "text/html" if isinstance(self.document, str) else "application/json"

    @property
    def headers(self) -> dict[str, str]:
        """A page may load nothing and stand in nobody's frame; no answer may be kept, for the next one differs."""
        kept = {"cache-control": "no-store", "x-content-type-options": "nosniff", "vary": "accept"}
        return kept | ({"content-security-policy": PAGE_POLICY} if isinstance(self.document, str) else {})


Login = Callable[[bool], tuple[str, str] | None]
"""The name and password of the Databricks webhook, None where there is none; True reads them anew."""

Door = Callable[["Routes", Request, tuple[str, ...], Caller], Answer]


class Routes:
    """Answers requests on one control plane. `webhook_login` is what a Databricks webhook must sign in with.

    `admit` tells who asks and what they may do. Only /health and the webhook, which has a sign-in of its own, do
    without it.
    """

    def __init__(self, plane: ControlPlane, webhook_login: Login, admit: Admission) -> None:
        self._plane = plane
        self._webhook_login = webhook_login
        self._admit = admit

    def answer(self, request: Request) -> Answer:
        """Never raises: what went wrong is an answer with a code, a sentence and a remedy."""
        try:
            if len(request.body) > LARGEST_BODY:
                raise _Refused(413, "request.too_large", f"The body is larger than {LARGEST_BODY // 1024} KiB.")
            return self._route(request)
        except _Refused as refused:
            return _error(refused.status, refused.code, refused.message, refused.remedy)
        except SyncError as error:
            return _failure(error, error.message)

    def _route(self, request: Request) -> Answer:
        allowed: list[str] = []
        path = request.path.rstrip("/") or "/pipelines"
        for method, pattern, door, role in _ROUTES:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if method == request.method:
                return self._open(door, role, request, match.groups())
            allowed.append(method)
        if allowed:
            raise _Refused(405, "http.method", f"This path takes {', '.join(allowed)}.")
        raise _Refused(
            404,
            "http.path",
            "There is nothing at this path.",
            "GET /pipelines shows every pipeline; docs/http.md has all paths.",
        )

    def _open(self, door: Door, role: Role | None, request: Request, names: tuple[str, ...]) -> Answer:
        """Let in who may, and log who did what and who was refused.

        A door that is open to everybody does not repeat what the store or a vault says: it names them.
        """
        try:
            if request.method == "POST" and role is not None:
                _require_json(request)
            caller = NOBODY if role is None else self._require(role, request)
            answer = door(self, request, names, caller)
        except _Refused as refused:
            if refused.status in (401, 403):
                LOG.warning("%s %s refused with %d: %s", request.method, request.path, refused.status, refused.message)
            raise
        except SyncError as error:
            if role is not None or isinstance(error, ConfigError):
                raise
            LOG.warning("%s %s failed with %s: %s", request.method, request.path, error.code, error)
            return _failure(error, UNTOLD)
        if role not in (None, Role.READ):
            LOG.info("%s %s by %s: %d", request.method, request.path, caller.name, answer.status)
        return answer

    def _require(self, role: Role, request: Request) -> Caller:
        try:
            caller = self._admit(request.headers)
        except NotSignedIn as error:
            raise _Refused(401, "http.sign_in", str(error), "Send a token of Microsoft Entra for this app.") from error
        if not caller.may(role):
            raise _Refused(
                403,
                "http.role",
                f"{caller.name} lacks the app role {role.value}.",
                f"Ask for the role {role.value} of this app in Microsoft Entra; a new role needs a new token.",
            )
        return caller

    def health(self, _request: Request, _names: tuple[str, ...], _caller: Caller) -> Answer:
        """Whether the store answers, and which release does; empty where it is not a package that runs."""
        next(iter(self._plane.store.load_many(["$health"])))
        return Answer(200, {"status": "ok", "release": RELEASE, "pipelines": len(self._plane.pipelines)})

    def submit(self, request: Request, _names: tuple[str, ...], caller: Caller) -> Answer:
        return Answer(202, self._plane.submit(_text(request), caller.name if caller.proven else None))

    def pipelines(self, request: Request, _names: tuple[str, ...], _caller: Caller) -> Answer:
        """A browser gets the status page, everybody else JSON."""
        if not _is_browser(request):
            return Answer(200, self._plane.all_status())
        return Answer(200, pipelines_page(self._plane, _count(request, "page", 1)))

    def pipeline(self, request: Request, names: tuple[str, ...], _caller: Caller) -> Answer:
        limit = _count(request, "runs", 10)
        if _is_browser(request):
            return Answer(200, pipeline_page(self._plane, names[0], limit))
        return Answer(200, self._plane.pipeline_status(names[0], limit))

    def run(self, _request: Request, names: tuple[str, ...], _caller: Caller) -> Answer:
        return Answer(200, self._plane.run_status(*names))

    def operate(self, request: Request, names: tuple[str, ...], caller: Caller) -> Answer:
        """pause, resume, cancel, retry and watermark; the body is {"reason": "…"}."""
        what, name, verb = names
        said = _object(_text(request))
        reason = said.get("reason")
        if not isinstance(reason, str) or not reason.strip() or len(reason) > 500:
            raise ConfigError("call.wrong", "The reason is missing.", 'Send {"reason": "why"}; others will read it.')
        who, connection = caller.name, what == "connections"
        match verb:
            case "pause":
                self._plane.pause(name, who, reason, connection=connection)
                return Answer(200, {"name": name, "done": verb})
            case "resume":
                self._plane.resume(name, who, reason, connection=connection)
                return Answer(200, {"name": name, "done": verb})
            case _ if connection:
                raise _Refused(404, "http.path", "A connection can be paused and resumed.")
            case "watermark":
                return self._set_watermark(name, said, who, reason)
            case "cancel":
                run = self._plane.cancel(name, who, reason)
                return Answer(200, {"pipeline_id": name, "run_key": run.run_key, "state": run.state.value})
            case _:
                return self._retry(name, said.get("run_key"), who, reason)

    def _retry(self, name: str, run_key: object, who: str, reason: str) -> Answer:
        asked = self._plane.retry(name, run_key if isinstance(run_key, str) else None, who, reason)
        return Answer(202, {"pipeline_id": name, "request_id": asked.request_id, "run_key": asked.run_key})

    def _set_watermark(self, name: str, said: Mapping[str, Any], who: str, reason: str) -> Answer:
        value, adopt = said.get("value", False), said.get("adopt", False)
        if not (value is None or isinstance(value, str)) or not isinstance(adopt, bool):
            raise ConfigError(
                "call.wrong", "The watermark is missing.", 'Send {"value": "2026-01-31T23:59:59"}; null resets it.'
            )
        before, after = self._plane.change_watermark(name, value, who, reason, adopt=adopt)
        marks = {"before": to_json(before.watermark), "after": to_json(after.watermark)}
        return Answer(200, {"pipeline_id": after.pipeline_id, **marks, "epoch": after.epoch})

    def dead_letters(self, _request: Request, _names: tuple[str, ...], _caller: Caller) -> Answer:
        found = self._plane.dead_letters()
        letters = [{"queue": one.queue, "key": one.key, "body": one.body, "reason": one.dead} for one in found]
        return Answer(200, {"dead_letters": letters})

    def send_again(self, request: Request, _names: tuple[str, ...], _caller: Caller) -> Answer:
        said = _object(_text(request))
        queue, key = said.get("queue"), said.get("key")
        if not isinstance(queue, str) or not isinstance(key, str):
            raise ConfigError(
                "call.wrong",
                "Queue or key is missing.",
                'Send {"queue": "…", "key": "…"} as GET /dead-letters has them.',
            )
        return Answer(202, {"sent": self._plane.send_again(queue, key)})

    def webhook(self, request: Request, _names: tuple[str, ...], _caller: Caller) -> Answer:
        """A Databricks notification: a hint to look at a run. It can sign in with a name and a password only."""
        header = request.headers.get("authorization", "")
        # Read anew before it is refused: the password may have been changed since it was last read.
        if not any(_signed_in(header, self._webhook_login(anew)) for anew in (False, True)):
            raise _Refused(401, "http.sign_in", "The webhook did not sign in.", "Set its user name and password.")
        run = _object(_text(request)).get("run")
        run_id = cast("dict[str, Any]", run).get("run_id") if isinstance(run, dict) else None
        if not isinstance(run_id, int) or isinstance(run_id, bool):
            raise ConfigError("request.wrong", "The notification names no run.", "Send Databricks' own notifications.")
        self._plane.hint(str(run_id))
        return Answer(202, {"launch_id": str(run_id)})


_ABSENT = ("run.none", "pipeline.unknown", "connection.unknown", "dead_letter.none")

_NAME = r"([A-Za-z0-9][A-Za-z0-9_.-]{0,99})"

NOBODY = Caller("nobody", frozenset())

_ROUTES: tuple[tuple[str, re.Pattern[str], Door, Role | None], ...] = (
    ("GET", re.compile("/health"), Routes.health, None),
    ("POST", re.compile("/requests"), Routes.submit, Role.REQUEST),
    ("GET", re.compile("/pipelines"), Routes.pipelines, Role.READ),
    ("GET", re.compile(f"/pipelines/{_NAME}"), Routes.pipeline, Role.READ),
    ("GET", re.compile(f"/pipelines/{_NAME}/runs/([0-9a-f]{{64}})"), Routes.run, Role.READ),
    (
        "POST",
        re.compile(f"/(pipelines|connections)/{_NAME}/(pause|resume|cancel|retry|watermark)"),
        Routes.operate,
        Role.OPERATE,
    ),
    ("GET", re.compile("/dead-letters"), Routes.dead_letters, Role.READ),
    ("POST", re.compile("/dead-letters/send-again"), Routes.send_again, Role.OPERATE),
    ("POST", re.compile("/webhooks/databricks"), Routes.webhook, None),
)


def _is_browser(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _require_json(request: Request) -> None:
    """A page of another site, in the browser of who is signed in here, cannot send this type without asking first."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _Refused(
            415, "http.content_type", "The body is not said to be JSON.", "Send content-type: application/json."
        )


def _count(request: Request, name: str, otherwise: int) -> int:
    given = request.query.get(name, str(otherwise))
    if not re.fullmatch(r"[1-9][0-9]{0,2}", given):
        raise ConfigError("call.wrong", f"{name} must be a number from 1 to 999.", f"Write ?{name}=20.")
    return int(given)


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.remedy = status, code, message, remedy


def _failure(error: SyncError, message: str) -> Answer:
    if isinstance(error, ConfigError):
        return _error(404 if error.code in _ABSENT else 400, error.code, message, error.remedy)
    if isinstance(error, RetryableError):
        return _error(503, error.code, message, error.remedy or "Ask again in a while.")
    return _error(500, error.code, message, error.remedy)


def _error(status: int, code: str, message: str, remedy: str) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message, "remedy": remedy}})


def _text(request: Request) -> str:
    try:
        return request.body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("request.wrong", "The body is not UTF-8.", "Send JSON in UTF-8.") from error


def _object(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError("request.wrong", "The body is not JSON.", "Send one JSON object.") from error
    if not isinstance(data, dict):
        raise ConfigError("request.wrong", "The body is not a JSON object.", "Send one JSON object.")
    return cast("dict[str, Any]", data)


def _signed_in(header: str, login: tuple[str, str] | None) -> bool:
    if login is None or not all(login):
        return False
    kind, _, encoded = header.partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True) if kind.lower() == "basic" else b""
    except binascii.Error:
        return False
    return hmac.compare_digest(given, f"{login[0]}:{login[1]}".encode())
