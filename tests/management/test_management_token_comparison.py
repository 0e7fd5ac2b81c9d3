"""The token is compared in constant time: the duration of a refusal reveals nothing about it."""

from __future__ import annotations

import hmac

import pytest
from starlette.datastructures import Headers

from fastlisten.management.access import Access
from fastlisten.management.responses import RefusedError

TOKEN = "0123456789abcdef0123456789abcdef"
SCOPE = {"type": "http", "method": "GET", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 9)}


@pytest.mark.parametrize(
    "given",
    [TOKEN, TOKEN[:-1] + "0", TOKEN[:-1], "0" + TOKEN[1:], TOKEN + "0", "x", "", "\xff"],
)
def test_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    compared: list[set[object]] = []
    real = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append({one, other})
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    access = Access()
    access.token = TOKEN
    headers = Headers({"host": "localhost", "authorization": f"Bearer {given}"})
    if given == TOKEN:
        assert access.check(SCOPE, headers)
    else:
        with pytest.raises(RefusedError) as refused:
            access.check(SCOPE, headers)
        assert refused.value.status == 401
    assert compared == [{given.encode("latin-1"), TOKEN.encode()}]
