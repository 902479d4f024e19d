"""Building a client: environment variables, options, and the values that are refused."""

import pytest
from support.by_hand import ByHand

from techforge import AsyncTechForge, TechForge, __version__
from techforge._config import LIVE_URL, Settings
from techforge.errors import ConfigurationError, InvalidArgumentError

KEY = "tf-0123456789"


def build(api_key=KEY, environ=None, **options) -> Settings:
    """Return settings from these options, without the real environment."""
    return Settings.build(api_key, options, environ or {})


def test_the_key_comes_from_the_argument_or_the_environment() -> None:
    """The argument wins over `TFI_API_KEY`."""
    assert build(None, {"TFI_API_KEY": "from-env"}).api_key == "from-env"
    assert build("given", {"TFI_API_KEY": "from-env"}).api_key == "given"


@pytest.mark.parametrize("environ", [{}, {"TFI_API_KEY": ""}])
def test_no_key_says_where_to_make_one(environ) -> None:
    """Without a key, the error says where to create one."""
    with pytest.raises(ConfigurationError, match=r"TFI_API_KEY.*/api-access"):
        build(None, environ)


@pytest.mark.parametrize("key", ["", " ", "a b", "k3y\n", "k3y\x00", "ключ", 7, b"key"])
@pytest.mark.parametrize("cls", [TechForge, AsyncTechForge])
def test_a_key_that_cannot_be_a_header_is_refused(cls, key) -> None:
    """An invalid key fails when the client is built. The error does not repeat the key."""
    with pytest.raises(ConfigurationError) as caught:
        cls(key)
    assert not (isinstance(key, str) and key.strip() and key.strip() in str(caught.value))


def test_the_base_url_comes_from_the_argument_or_the_environment() -> None:
    """The default is the live API. A path prefix stays, and a trailing slash is removed."""
    assert build().base_url == LIVE_URL
    assert build(environ={"TFI_BASE_URL": "https://env.example"}).base_url == "https://env.example"
    given = build(environ={"TFI_BASE_URL": "https://env.example"}, base_url="https://given.example/api/")
    assert given.base_url == "https://given.example/api"


@pytest.mark.parametrize(
    "url",
    [
        "https://API.Example",
        "HTTPS://api.example",
        "https://api.example:443",
        "https://api.example/",
        "https://api.example:443//",
    ],
)
def test_a_base_url_has_one_spelling(url: str) -> None:
    """A campaign belongs to an address: another spelling of it must not submit all rows again."""
    assert build(base_url=url).base_url == "https://api.example"
    assert build(base_url="http://127.0.0.1:80").base_url == "http://127.0.0.1"
    assert build(base_url="http://[::1]:8642/Path/").base_url == "http://[::1]:8642/Path"


@pytest.mark.parametrize(
    "url",
    [
        "api.example.com",
        "ftp://api.example.com",
        "https://",
        "https://a b",
        "https://api.example.com/?x=1",
        "https://api.example.com/#x",
        "https://api.example.com/?",
        "https://api.example.com/x#",
        "https://user:pass@api.example.com",
        "http://api.example.com",
        "http://127.0.0.1.example.com",
        "http://127.1.2.3",
        "",
    ],
)
def test_a_base_url_must_be_safe(url: str) -> None:
    """Plain http would expose the key, and a path cannot follow a query."""
    with pytest.raises((InvalidArgumentError, ConfigurationError), match="base_url"):
        build(base_url=url)


@pytest.mark.parametrize("url", ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"])
def test_plain_http_is_allowed_for_loopback(url: str) -> None:
    """Mock servers run there."""
    assert build(base_url=url).base_url == url


def test_plain_http_can_be_allowed() -> None:
    """`allow_http=True` allows it, for example for a mock server in another container."""
    assert build(base_url="http://mock:8642", allow_http=True).base_url == "http://mock:8642"


def test_the_mock_key_never_goes_to_the_live_api() -> None:
    """A program that was tested with the mock fails with a clear error at the live API."""
    with pytest.raises(ConfigurationError, match="mock server only"):
        TechForge("techforge-mock-key")
    assert build("techforge-mock-key", base_url="http://127.0.0.1:1")


@pytest.mark.parametrize(
    "option",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": "1"},
        {"timeout": True},
        {"timeout": float("nan")},
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": True},
        {"retry_timeout": 0},
        {"max_rate": 0},
        {"max_rate": "5"},
        {"max_in_flight": 0},
        {"max_in_flight": 2.5},
        {"default_headers": {"X-Api-Key": "k"}},
        {"default_headers": {"host": "h"}},
        {"default_headers": {"a b": "c"}},
        {"default_headers": {"": "c"}},
        {"default_headers": {"a": "b\r\nc: d"}},
        {"default_headers": {"a": "ü"}},
        {"default_headers": {"a": 1}},
        {"retries": 3},
    ],
)
def test_a_wrong_option_is_named(option) -> None:
    """The client and `with_options` name the option, before anything is sent."""
    name = next(iter(option))
    with pytest.raises(InvalidArgumentError, match=name):
        build(**option)
    with pytest.raises(InvalidArgumentError, match=name):
        build().with_options(option)


def test_with_options_keeps_other_options() -> None:
    """Only the named options change, and headers are merged."""
    base = build(timeout=5, max_retries=7, default_headers={"A": "1"})
    other = base.with_options(
        {"timeout": 9, "default_headers": {"b": "2"}, "resubmit_on_server_error": False}
    )
    assert (other.timeout, other.retry.max_retries, other.retry.resubmit_on_server_error) == (9, 7, False)
    assert (other.headers["a"], other.headers["b"]) == ("1", "2")
    assert (base.timeout, base.retry.resubmit_on_server_error, base.headers.get("b")) == (5, True, None)


def test_the_user_agent() -> None:
    """It names the SDK, and an option replaces it."""
    assert build().headers["user-agent"].startswith(f"techforge-python/{__version__} python/3.")
    assert build(default_headers={"User-Agent": "mine"}).headers["user-agent"] == "mine"


@pytest.mark.parametrize("cls", [TechForge, AsyncTechForge])
def test_a_client_prints_no_secret(cls) -> None:
    """Neither a client nor its settings show the key."""
    client = cls(KEY)
    assert KEY not in repr(client) + repr(client._session.settings) + str(vars(client))


@pytest.mark.parametrize("cls", [TechForge, AsyncTechForge])
def test_an_http_client_must_match_the_client(cls) -> None:
    """A sync `http_client` for an async client fails when the client is built."""
    with pytest.raises(ConfigurationError, match="http_client"):
        cls(KEY, http_client=object())


def test_settings_without_retries_keep_the_rest() -> None:
    """Loops that retry by themselves turn off the retries of single requests, and nothing else."""
    settings = ByHand().settings(timeout=3.0).once()
    assert (settings.retry.max_retries, settings.timeout) == (0, 3.0)


def test_copies_share_a_limiter() -> None:
    """Copies of a client share its rate limiter, unless they have rate options of their own."""
    base = build(max_rate=5)
    assert base.limiter.rate == 5
    assert base.with_options({"timeout": 1}).limiter is base.once().limiter is base.limiter
    other = base.with_options({"max_in_flight": 1}).limiter
    assert other is not base.limiter
    assert (other.max_rate, other.max_in_flight) == (5, 1)
    assert build().limiter is not build().limiter
