"""The proxy for a URL: the one that `httpx.Client()` would choose, and none for loopback."""

from __future__ import annotations

import ipaddress
from importlib.util import find_spec
from urllib.request import getproxies

import httpcore
import httpx

from techforge._checks import is_loopback


def proxy_for(url: httpx.URL) -> httpcore.Proxy | None:
    """Return the proxy that the environment names for a URL.

    Raises:
        ValueError, ImportError, httpx.InvalidURL: the proxy of the environment cannot be used.
    """
    if is_loopback(url.host):
        # Plain http is allowed to loopback only because no proxy is involved.
        return None
    environment = getproxies()
    proxies = {f"{name}://": environment.get(name) for name in ("http", "https", "all")}
    for entry in filter(None, map(str.strip, environment.get("no", "").split(","))):
        if entry in proxies:
            proxies[entry] = ""
        elif entry == "*" or _matches(httpx.URL(_pattern(entry)), url):
            return None
    for name in (f"{url.scheme}://", "all://"):
        named = proxies.get(name)
        if named is not None:
            return _proxy(named) if named else None
    return None


def _pattern(entry: str) -> str:
    """Return an entry of NO_PROXY as a URL pattern. A name also matches names that end with it."""
    if "://" in entry:
        return entry
    try:
        version = ipaddress.ip_address(entry.partition("/")[0]).version
    except ValueError:
        return f"all://{entry}" if entry.lower() == "localhost" else f"all://*{entry}"
    return f"all://{entry}" if version == 4 else f"all://[{entry}]"


def _matches(pattern: httpx.URL, url: httpx.URL) -> bool:
    host = pattern.host
    if (not host or host == "*") and pattern.port is None:
        return False
    if pattern.scheme not in {"all", url.scheme} or pattern.port not in {None, url.port}:
        return False
    if host.startswith("*."):
        return url.host.endswith(host[1:]) and url.host != host[1:]
    if host.startswith("*"):
        return url.host == host[1:] or url.host.endswith(f".{host[1:]}")
    return host in {"", url.host}


def _proxy(named: str) -> httpcore.Proxy:
    proxy = httpx.Proxy(named if "://" in named else f"http://{named}")
    url = proxy.url
    if url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ImportError(f"a {url.scheme} proxy needs the package socksio: pip install 'httpx[socks]'")
    return httpcore.Proxy(
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        auth=proxy.raw_auth,
        headers=proxy.headers.raw,
        ssl_context=proxy.ssl_context,
    )
