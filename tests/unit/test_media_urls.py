"""Media URLs that the API cannot fetch are refused before a job is paid for."""

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from support.by_hand import AUDIO, IMAGE, JOB_ID, ByHand

from techforge import _checks
from techforge._flow import Send
from techforge._flows.create import create
from techforge.errors import InvalidArgumentError
from techforge_api.models import JobAccepted

PRIVATE = [
    # IPv4 in all spellings that curl and browsers accept
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0X7F.1",
    "0177.0.0.1",
    "0x7f.0.0.0x1",
    "017700000001",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "127．0．0．1",  # noqa: RUF001 - full-width dots, which browsers take for dots
    "0",
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "10.0.0.7",
    "10.7",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "192.168.257",
    "169.254.169.254",
    "100.64.0.1",
    "100.127.255.255",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    # IPv6
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[::127.0.0.1]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[fc00::1]",
    "[fd12:3456::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "[64:ff9b::7f00:1]",
    # names
    "localhost",
    "LOCALHOST",
    "localhost.",
    "app.localhost",
    "lOcAl%68ost",
    "nas.local",
    "nas.local.",
    "printer.lan",
    "router.home.arpa",
    "host.docker.internal",
    "metadata.google.internal",
    "minio.storage.svc.cluster.local",
    "shop.test",
    "files.corp",
    "wiki.intranet",
    "nas.home",
    "files.private",
    "minio",
    "minio.",
    "files",
]
PUBLIC = [
    "cdn.example.com",
    "cdn.example.com.",
    "a.example",
    "example.org",
    "8.8.8.8",
    "134744072",
    "172.15.0.1",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "192.169.0.1",
    "[2606:4700::1111]",
    "[::ffff:8.8.8.8]",
    "localhost.example.com",
    "local.example.com",
    "notlocal.io",
    "internal.example.com",
    "mylan.de",
    "10.example.com",
    "127.0.0.1.nip.example",
    "xn--bcher-kva.example.com",
    "bucket.s3.eu-central-1.amazonaws.com",
    "storage.googleapis.com",
    "account.blob.core.windows.net",
    "1.2.3.4.5.com",
]


def run(by_hand: ByHand, settings=None, **params):
    """Submit a job."""
    return by_hand.run(
        create(settings or by_hand.settings(), **{"image_url": IMAGE, "audio_url": AUDIO, **params})
    )


def accepting() -> ByHand:
    """Return a driver whose API accepts every job."""
    return ByHand(sends=[JobAccepted.from_dict({"jobId": JOB_ID, "status": "queued"})])


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("field", ["image_url", "audio_url"])
def test_a_private_host_is_refused(field: str, host: str) -> None:
    """In every spelling. Nothing is sent, and the error says why and what to do."""
    by_hand = accepting()
    for url in (f"http://{host}/a.png", f"https://user:s3cret@{host}:9000/a.png?sig=s3cret"):
        with pytest.raises(InvalidArgumentError, match="private network") as caught:
            run(by_hand, **{field: url})
        assert caught.value.field == field
        assert "does not report that the job fails" in str(caught.value)
        assert "allow_private_media=True" in str(caught.value)
        assert "s3cret" not in str(caught.value)
    assert by_hand.commands == []


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_host_is_accepted(host: str) -> None:
    """Names are not resolved, and no prefix of a name is refused."""
    by_hand = accepting()
    run(by_hand, image_url=f"https://{host}/a.png")
    assert len(by_hand.of(Send)) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "[::1]", "localhost", "minio", "nas.local"])
def test_a_private_host_can_be_allowed(host: str) -> None:
    """By an option, or because the API is in a private network, as a mock server is."""
    for options in (
        {"allow_private_media": True},
        {"base_url": "http://localhost:8642"},
        {"base_url": "https://10.0.0.7"},
        {"base_url": "https://api.corp"},
    ):
        by_hand = accepting()
        run(by_hand, by_hand.settings(**options), image_url=f"http://{host}/a.png")
        assert len(by_hand.of(Send)) == 1


def test_the_option_holds_for_copies_of_a_client() -> None:
    """`with_options` changes it or keeps it."""
    settings = ByHand().settings(allow_private_media=True)
    assert settings.with_options({"timeout": 1.0}).allows_private_media
    assert not settings.with_options({"allow_private_media": False}).allows_private_media


def test_a_million_rows_of_one_host_cost_one_decision() -> None:
    """A campaign checks every row, so the decision is cached."""
    _checks.is_private_host.cache_clear()
    for number in range(1000):
        _checks.media_url("image_url", f"https://cdn.example.com/{number}.png", allow_private=False)
    assert _checks.is_private_host.cache_info().misses == 1


PATHS = [
    "portrait.png",
    "media/portrait.png",
    "./portrait.png",
    "../portrait.png",
    "/srv/portrait.png",
    "~/portrait.png",
    "C:\\media\\portrait.png",
    "C:/media/portrait.png",
    "\\\\server\\share\\portrait.png",
    "file:///srv/portrait.png",
    "FILE:///srv/portrait.png",
    "file:/srv/portrait.png",
    "my portrait.png",
    "cdn.example.com/portrait.png",
    Path("portrait.png"),
    Path("/srv/portrait.png"),
    PurePosixPath("~/portrait.png"),
    PureWindowsPath("C:\\media\\portrait.png"),
]


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("field", ["image_url", "audio_url"])
@pytest.mark.parametrize("base_url", ["https://api.techforgeinnovate.com", "http://127.0.0.1:8642"])
def test_a_path_is_explained(field: str, path, base_url: str) -> None:
    """The error says that the API reads no local files, and what to do instead."""
    by_hand = accepting()
    with pytest.raises(InvalidArgumentError, match="is a path, not a URL") as caught:
        run(by_hand, by_hand.settings(base_url=base_url), **{field: path})
    assert caught.value.field == field
    assert "Upload the file" in str(caught.value)
    assert repr(os.fspath(path)) in str(caught.value)
    assert by_hand.commands == []


def test_a_path_that_was_meant_to_be_a_url_shows_no_signature() -> None:
    """The value may be a signed URL without its scheme."""
    with pytest.raises(InvalidArgumentError, match="https://") as caught:
        run(accepting(), image_url="cdn.example.com/a.png?sig=s3cret")
    assert "s3cret" not in str(caught.value)
