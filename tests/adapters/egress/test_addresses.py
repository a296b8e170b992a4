from __future__ import annotations

import pytest

from adapters.egress.addresses import LOCAL_MODELS, Rules, allowances, is_public, plain

NOT_PUBLIC = {
    "10.0.0.7",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",  # shared by a carrier's customers
    "198.18.0.1",
    "192.88.99.1",
    "192.0.0.8",
    "fd00::1",
    "fec0::1",
    "5f00::1",
    "2001:db8::1",
    "2001:20::1",
    "3fff::1",
    "64:ff9b::a00:7",  # 10.0.0.7 behind NAT64
}
NEVER = {
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "169.254.1.1",
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",  # 169.254.169.254 behind NAT64
    "fe80::1",
    "fe80::1%eth0",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "224.0.0.1",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
    "2002:7f00:1::",  # 127.0.0.1 within 6to4
    "2001:0:7f00:1::",  # Teredo
    "64:ff9b:1::7f00:1",
    "::7f00:1",  # 127.0.0.1 within an IPv4-compatible address
    "::ffff:0:7f00:1",
}
LOOPBACK = {"127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"}
PUBLIC = {"1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"}

EVERYTHING = "0.0.0.0/0, ::/0, 0.0.0.0/0:1-65535, ::/0:1-65535"


def refusal(allowed: str, address: str, port: int = 443, *, host: str = "", local_models: bool = False) -> str | None:
    ip = plain(address)
    return Rules(allowances(allowed)).refusal(host or address, ip, port, local_models=local_models)


@pytest.mark.parametrize("address", sorted(PUBLIC))
def test_public_addresses_need_no_setting(address: str) -> None:
    assert is_public(plain(address))
    assert refusal("", address) is None


@pytest.mark.parametrize("address", sorted(NOT_PUBLIC | NEVER | LOOPBACK))
def test_no_other_address_is_called_without_a_setting(address: str) -> None:
    assert not is_public(plain(address))
    assert refusal("", address)


@pytest.mark.parametrize("address", sorted(NEVER))
def test_some_are_never_called(address: str) -> None:
    assert "never called" in str(refusal(EVERYTHING, address, local_models=True))


@pytest.mark.parametrize("address", sorted(NOT_PUBLIC))
def test_a_network_or_an_address_can_be_allowed(address: str) -> None:
    assert refusal("0.0.0.0/0, ::/0", address) is None
    plainly = plain(address)
    named = "10.0.0.7" if address.startswith("64:") else f"[{address}]" if plainly.version == 6 else address
    assert refusal(f"{named}:443", address) is None
    assert refusal(f"{named}:80", address)


def test_a_host_can_be_allowed_by_name() -> None:
    for allowed in ("models.internal", "models.internal:8000", "models.internal:7999-8001"):
        assert refusal(allowed, "10.0.0.7", 8000, host="models.internal") is None
        assert refusal(allowed, "10.0.0.7", 8000, host="other.internal")
        assert refusal(allowed, "169.254.169.254", 8000, host="models.internal")
    assert refusal("models.internal", "127.0.0.1", 8000, host="models.internal")


@pytest.mark.parametrize("address", sorted(LOOPBACK))
def test_on_this_machine_only_named_ports_are_allowed(address: str) -> None:
    for allowed in ("127.0.0.1:9000", "localhost:9000", "[::1]:9000", "127.0.0.0/8:8999-9001"):
        assert refusal(allowed, address, 9000) is None
        assert "on this machine" in str(refusal(allowed, address, 9002))
    assert refusal("0.0.0.0/0, ::/0, models.internal", address, 9000, host="models.internal")


def test_an_address_of_this_machine_is_as_loopback() -> None:
    ip = plain("203.0.114.9")
    here = Rules(allowances("203.0.114.0/24"), here=[ip])
    assert is_public(ip)
    assert here.refusal("example.com", ip, 9000, local_models=True)
    named = Rules(allowances("203.0.114.9:9000"), here=[ip])
    assert named.refusal("example.com", ip, 9000, local_models=False) is None


@pytest.mark.parametrize("port", LOCAL_MODELS)
def test_model_servers_of_a_machine_with_one_tenant_need_no_setting(port: int) -> None:
    assert refusal("", "127.0.0.1", port, local_models=True) is None
    assert refusal("", "127.0.0.1", port)
    assert refusal("", "127.0.0.1", port + 1, local_models=True)
    assert refusal("", "10.0.0.7", port, local_models=True)


@pytest.mark.parametrize("listens", ["127.0.0.1", "0.0.0.0", "10.0.0.7"])
def test_our_own_servers_are_never_called(listens: str) -> None:
    rules = Rules(allowances(EVERYTHING), [(plain(listens), 8000)], [plain("10.0.0.7")])
    for address in ("127.0.0.1", "127.0.0.2", "::1", "10.0.0.7"):
        assert "own servers" in str(rules.refusal("x", plain(address), 8000, local_models=True))
        assert rules.refusal("x", plain(address), 8001, local_models=False) is None
    unnamed = Rules(own=[(plain(listens), 8000)], here=[plain("10.0.0.7")])
    hidden = str(unnamed.refusal("x", plain("127.0.0.1"), 8000, local_models=False))
    assert hidden.replace("8000", "8001") == unnamed.refusal("x", plain("127.0.0.1"), 8001, local_models=False)
    far = Rules(allowances(EVERYTHING), [(plain("1.1.1.1"), 4222)])
    assert "own servers" in str(far.refusal("one.one.one.one", plain("1.1.1.1"), 4222, local_models=False))


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("127.0.0.1", "must name the port"),
        ("localhost", "must name the port"),
        ("::1", "must be like"),
        ("[::1]", "must name the port"),
        ("169.254.169.254:80", "never called"),
        ("169.254.0.0/16", "never called"),
        ("224.0.0.0/8", "never called"),
        ("10.0.0.1/8", "is not a network"),
        ("10.0.0.300", "is not a network"),
        ("10.0.0.1:0", "ports from 1 to 65535"),
        ("10.0.0.1:9-8", "ports from 1 to 65535"),
        ("10.0.0.1:70000", "ports from 1 to 65535"),
        ("http://10.0.0.1", "must be like"),
        ("a host", "must be like"),
    ],
)
def test_an_entry_that_allows_nothing_is_refused(entry: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        allowances(f"10.0.0.0/8, {entry}")
