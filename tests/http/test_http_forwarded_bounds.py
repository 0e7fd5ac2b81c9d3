"""A chain of trusted proxies has a bound: what stands beyond it is not looked at."""

from __future__ import annotations

import ipaddress

import pytest

from fastlisten.handlers.http.forwarded import TrustedProxies

PROXIES = TrustedProxies([ipaddress.ip_network("10.0.0.0/8")])


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000])
def test_only_the_nearest_64_count(size: int) -> None:
    chain = [f"10.0.{number // 256}.{number % 256}" for number in range(size)]
    headers = [(b"x-forwarded-for", b"192.0.2.1, " + ", ".join(chain).encode())]
    told = PROXIES.client(headers)
    assert told is not None
    farthest = "192.0.2.1" if size < 64 else chain[-64]
    assert told[0] == (farthest, 0)
