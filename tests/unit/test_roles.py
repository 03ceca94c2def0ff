"""Who a request's headers say has signed in, and what that lets them do: whatever is not certain is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_core.domain.errors import ConfigError, PermanentError
from sync_core.web.roles import (
    LONGEST_NAME,
    PRINCIPAL,
    NotSignedIn,
    Role,
    admission,
    admit_key_holder,
    admit_principal,
)

OBJECT = "3d5f9c1e-0000-4000-8000-00000000abcd"
OBJECT_CLAIM = "http://schemas.microsoft.com/identity/claims/objectidentifier"
ROLE_CLAIM = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"


def header(document: Any) -> dict[str, str]:
    return {PRINCIPAL: base64.b64encode(json.dumps(document).encode()).decode()}


def principal(*roles: str, kind: str = "roles", **changes: Any) -> dict[str, Any]:
    claims = [
        {"typ": OBJECT_CLAIM, "val": OBJECT},
        {"typ": "preferred_username", "val": "ada@example.com"},
        *({"typ": kind, "val": role} for role in roles),
    ]
    return {"auth_typ": "aad", "claims": claims, "name_typ": "n", "role_typ": ROLE_CLAIM} | changes


@pytest.mark.parametrize("kind", ["roles", ROLE_CLAIM])
def test_a_principal_has_the_roles_of_its_claims(kind: str) -> None:
    caller = admit_principal(header(principal("Sync.Read", "Sync.Request", "Other.Role", kind=kind)))
    assert caller.roles == {Role.READ, Role.REQUEST}
    assert caller.name == f"ada@example.com ({OBJECT})"
    assert caller.proven


@pytest.mark.parametrize(
    ("held", "opened"),
    [
        ((), ()),
        (("Sync.Read",), (Role.READ,)),
        (("Sync.Request",), (Role.REQUEST,)),
        (("Sync.Read", "Sync.Request"), (Role.READ, Role.REQUEST)),
        (("Sync.Operate",), (Role.READ, Role.REQUEST, Role.OPERATE)),
        (("sync.operate", "Sync.Operate ", "*"), ()),
    ],
)
def test_a_role_opens_what_it_says_and_operate_opens_all(held: tuple[str, ...], opened: tuple[Role, ...]) -> None:
    caller = admit_principal(header(principal(*held)))
    assert tuple(role for role in Role if caller.may(role)) == opened


def test_a_claim_of_another_kind_is_no_role() -> None:
    """A user may choose a display name, and an administrator of groups a group's."""
    for kind in ("name", "groups", "role", "preferred_username", "scp"):
        assert admit_principal(header(principal("Sync.Operate", kind=kind))).roles == frozenset()


def test_the_header_does_not_say_which_claims_are_roles() -> None:
    assert admit_principal(header(principal("Sync.Operate", kind="name", role_typ="name"))).roles == frozenset()


def test_an_application_is_known_by_its_id() -> None:
    claims = [{"typ": "oid", "val": OBJECT}, {"typ": "azp", "val": "the-client-id"}]
    caller = admit_principal(header({"auth_typ": "aad", "claims": claims}))
    assert caller.name == f"the-client-id ({OBJECT})"


def test_a_name_fits_into_the_record_and_keeps_the_id() -> None:
    claims = [{"typ": "oid", "val": OBJECT}, {"typ": "upn", "val": "a" * 500}]
    name = admit_principal(header({"auth_typ": "aad", "claims": claims})).name
    assert len(name) == LONGEST_NAME
    assert name.endswith(f"({OBJECT})")


def test_a_name_that_would_forge_a_line_of_a_log_is_left_out() -> None:
    claims = [{"typ": "oid", "val": OBJECT}, {"typ": "upn", "val": "eve\n2026-01-01 POST /x by ada"}]
    assert admit_principal(header({"auth_typ": "aad", "claims": claims})).name == OBJECT


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {PRINCIPAL: ""},
        {PRINCIPAL: "not base64!"},
        {PRINCIPAL: base64.b64encode(b"{").decode()},
        {PRINCIPAL: base64.b64encode(b"\xff").decode()},
        {PRINCIPAL: base64.b64encode(b"[" * 100_000).decode()},
        header([]),
        header({}),
        header({"auth_typ": "aad"}),
        header({"auth_typ": "aad", "claims": None}),
        header({"auth_typ": "aad", "claims": ["roles"]}),
        header({"auth_typ": "aad", "claims": [{"typ": "roles"}]}),
        header({"auth_typ": "aad", "claims": [{"typ": "roles", "val": "Sync.Operate"}]}),
        header({"auth_typ": "aad", "claims": [{"typ": "oid", "val": ["x"]}]}),
        header(principal("Sync.Operate", auth_typ="github")),
        header({"claims": principal("Sync.Operate")["claims"]}),
        # What Static Web Apps send, and what anybody can make who once saw their documentation.
        header({"identityProvider": "aad", "userId": OBJECT, "userDetails": "ada", "userRoles": ["Sync.Operate"]}),
        {"x-ms-client-principal-name": "ada@example.com", "x-ms-client-principal-id": OBJECT},
    ],
)
def test_whatever_is_no_sign_in_of_entra_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(NotSignedIn) as raised:
        admit_principal(headers)
    assert all(value not in str(raised.value) for value in headers.values() if value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON | st.builds(lambda claims: {"auth_typ": "aad", "claims": claims}, JSON))
def test_any_document_is_refused_or_understood(document: Any) -> None:
    try:
        admit_principal(header(document))
    except NotSignedIn:
        return


def test_a_key_tells_nobody_apart_and_opens_everything() -> None:
    caller = admit_key_holder({"x-ms-client-principal-name": "ada@example.com", **header(principal("Sync.Read"))})
    assert "ada" not in caller.name
    assert not caller.proven
    assert all(caller.may(role) for role in Role)


@pytest.mark.parametrize("setting", ["Entra", "entra ", "none", "anonymous", "", "key"])
def test_a_setting_that_is_neither_opens_nothing(setting: str) -> None:
    with pytest.raises(ConfigError, match="UDS_HTTP_AUTH"):
        admission(setting, {})


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WEBSITE_AUTH_ENABLED": ""},
        {"WEBSITE_AUTH_ENABLED": "False"},
        {"WEBSITE_AUTH_ENABLED": "False", "UDS_HTTP_AUTH_CHECKED": "true"},
        {"UDS_HTTP_AUTH_CHECKED": "no"},
    ],
)
def test_entra_without_the_platforms_word_opens_nothing(environment: dict[str, str]) -> None:
    """Without its authentication the header comes from whoever calls."""
    admit = admission("entra", environment)
    with pytest.raises(PermanentError, match="not known to be on") as raised:
        admit(header(principal("Sync.Operate")))
    assert raised.value.code == "http.unprotected"


@pytest.mark.parametrize(
    "environment",
    [{"WEBSITE_AUTH_ENABLED": "True"}, {"WEBSITE_AUTH_ENABLED": "true"}, {"UDS_HTTP_AUTH_CHECKED": "true"}],
)
def test_entra_with_the_platforms_word_or_a_persons_admits_who_signed_in(environment: dict[str, str]) -> None:
    assert admission("entra", environment) is admit_principal


def test_keys_do_not_ask_for_the_platforms_authentication() -> None:
    assert admission("keys", {"WEBSITE_AUTH_ENABLED": "False"}) is admit_key_holder
