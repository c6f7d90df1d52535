"""Access to the ops page: this machine, or a token; never a foreign site's page in the operator's browser."""

from email.message import Message

import pytest

from greenroom.ops.access import Access
from greenroom.settings import Settings, SettingsError

TOKEN = "0123456789abcdef0123456789abcdef"
LOCAL = "127.0.0.1"
HOST = {"Host": "127.0.0.1:8001"}


def headers(**values: str) -> Message:
    message = Message()
    for name, value in {**HOST, **{name.replace("_", "-"): value for name, value in values.items()}}.items():
        del message[name]
        message[name] = value
    return message


def status(access: Access, peer: str, version: str = "HTTP/1.1", is_page: bool = False, **values: str) -> int:
    refusal = access.refusal(peer, headers(**values), version, is_page=is_page)
    return refusal.status if refusal else 200


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_without_a_token_this_machine_may_ask(peer: str) -> None:
    assert status(Access(""), peer) == 200


@pytest.mark.parametrize(
    "attack",
    [
        {"peer": "192.0.2.7"},
        {"peer": LOCAL, "X_Forwarded_For": "192.0.2.7"},
        {"peer": LOCAL, "X_Forwarded_For": ""},
        {"peer": LOCAL, "x_real_ip": "127.0.0.1"},
        {"peer": LOCAL, "Forwarded": "for=127.0.0.1"},
        {"peer": LOCAL, "version": "HTTP/1.0"},
    ],
)
def test_without_a_token_nobody_else_may_nor_through_a_proxy(attack: dict[str, str]) -> None:
    assert status(Access(""), **attack) == 403


@pytest.mark.parametrize("token", ["", TOKEN])
@pytest.mark.parametrize("host", ["evil.example:8001", "127.0.0.1.evil.example", "", "localhost.evil.example", "[::1"])
def test_a_name_that_was_pointed_here_is_refused(token: str, host: str) -> None:
    asked = status(Access(token), LOCAL, Host=host, Authorization=f"Bearer {TOKEN}")

    assert asked == (421 if host != "[::1" else asked)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8001", "localhost:8001", "LOCALHOST", "[::1]:8001", "10.1.2.3", "ops.example"]
)
def test_addresses_localhost_and_names_that_were_set_are_known(host: str) -> None:
    assert status(Access("", ("ops.example",)), LOCAL, Host=host) == 200


def test_another_sites_page_gets_nothing_but_may_link_here() -> None:
    access = Access("")

    assert status(access, LOCAL, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == 403
    assert status(access, LOCAL, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="cors") == 403
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert status(access, LOCAL, is_page=True, **link, Sec_Fetch_Dest="document") == 200
    assert status(access, LOCAL, is_page=True, **link, Sec_Fetch_Dest="iframe") == 403
    assert status(access, LOCAL, Sec_Fetch_Site="same-origin") == 200


@pytest.mark.parametrize("peer", [LOCAL, "192.0.2.7"])
def test_with_a_token_everybody_has_to_say_it(peer: str) -> None:
    access = Access(TOKEN)
    cookie = access.cookie(is_secure=False).partition(";")[0]

    assert status(access, peer) == 401
    assert status(access, peer, Authorization=f"Bearer {TOKEN[:-1]}") == 401
    assert status(access, peer, Authorization=f"Basic {TOKEN}") == 401
    assert status(access, peer, Authorization="Bearer ümläut") == 401
    assert status(access, peer, Cookie="greenroom_ops=wrong") == 401
    assert status(access, peer, Cookie="greenroom_ops=\x00;;;[]=") == 401
    assert status(access, peer, Authorization=f"bearer {TOKEN}") == 200
    assert status(access, peer, Cookie=f"other=1; {cookie}") == 200
    assert status(access, peer, Authorization=f"Bearer {TOKEN}", X_Forwarded_For="192.0.2.7") == 200


def test_the_cookie_does_not_say_the_token() -> None:
    cookie = Access(TOKEN).cookie(is_secure=True)

    assert TOKEN not in cookie
    assert "HttpOnly; SameSite=Strict" in cookie
    assert cookie.endswith("; Secure")
    assert Access("other-token-other-token-1").cookie(is_secure=True) != cookie


def test_an_empty_token_is_never_right() -> None:
    assert not Access("").is_right("")


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"GREENROOM_OPS_BIND": "0.0.0.0:8001"}, "GREENROOM_OPS_TOKEN must be set"),
        ({"GREENROOM_OPS_BIND": "[::]:8001"}, "GREENROOM_OPS_TOKEN must be set"),
        ({"GREENROOM_OPS_BIND": "ops.example:8001"}, "GREENROOM_OPS_BIND must be an address"),
        ({"GREENROOM_OPS_BIND": "127.0.0.1"}, "GREENROOM_OPS_BIND must be an address"),
        ({"GREENROOM_OPS_BIND": "127.0.0.1:99999"}, "GREENROOM_OPS_BIND must be an address"),
        ({"GREENROOM_OPS_TOKEN": "short"}, "GREENROOM_OPS_TOKEN must be a secret"),
        ({"GREENROOM_OPS_TOKEN": "change-me-change-me-change-me"}, "GREENROOM_OPS_TOKEN must be a secret"),
        ({"GREENROOM_OPS_TOKEN": "a" * 40}, "GREENROOM_OPS_TOKEN must be a secret"),
    ],
)
def test_what_would_be_open_to_others_does_not_start(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.read(environ)

    assert problem in str(caught.value)
    assert environ.get("GREENROOM_OPS_TOKEN", "no token") not in str(caught.value)


def test_the_page_can_be_off_elsewhere_or_on_any_port() -> None:
    assert Settings.read({"GREENROOM_OPS_BIND": "off"}).ops_address is None
    assert Settings.read({"GREENROOM_OPS_BIND": "localhost:0"}).ops_address == ("127.0.0.1", 0)
    assert Settings.read({"GREENROOM_OPS_BIND": "[::1]:9"}).ops_address == ("::1", 9)
    elsewhere = Settings.read({"GREENROOM_OPS_BIND": "0.0.0.0:9", "GREENROOM_OPS_TOKEN": TOKEN})
    assert elsewhere.ops_address == ("0.0.0.0", 9)
    assert TOKEN not in repr(elsewhere)
