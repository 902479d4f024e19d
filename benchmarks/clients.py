"""The clients that are compared: how each is built, and the call that stands for our `storage.sign`.

Each asks for one small thing by GET, through its own public method, without retries. It is source text, since
each is measured in a process of its own that loads nothing else.
"""

from attrs import frozen


@frozen
class Client:
    """A client in source text, which knows `url`; its build leaves a `client` that its call uses."""

    name: str
    imports: str
    build: str
    call: str = ""
    """An expression; it is not compared where there is none."""
    abuild: str = ""
    acall: str = ""
    """A coroutine."""
    group: str = "SDK"


KEY = "bench-key-of-twenty-characters"
SIGN = "/storage/generate-signed-path"
JOB = "{'image_url': 'https://a.example/i.png', 'audio_url': 'https://a.example/a.mp3'}"

CLIENTS = [
    Client(
        "httpx",
        "import httpx",
        f"client = httpx.Client(base_url=url, headers={{'x-api-key': '{KEY}'}})",
        f"client.get('{SIGN}', params={{'path': 'a/b.mp4'}}).json()",
        # With 1,000 calls at once its pool is busy for longer than the 5 seconds that it allows.
        f"client = httpx.AsyncClient(base_url=url, headers={{'x-api-key': '{KEY}'}}, timeout=60)",
        f"(await client.get('{SIGN}', params={{'path': 'a/b.mp4'}})).json()",
        group="HTTP",
    ),
    Client(
        "techforge",
        "import techforge",
        f"client = techforge.TechForge('{KEY}', base_url=url)",
        "client.storage.sign('a/b.mp4')",
        f"client = techforge.AsyncTechForge('{KEY}', base_url=url)",
        "await client.storage.sign('a/b.mp4')",
        group="ours",
    ),
    Client(
        "techforge, jobs.create",
        "import techforge",
        f"client = techforge.TechForge('{KEY}', base_url=url)",
        f"client.jobs.create(**{JOB})",
        f"client = techforge.AsyncTechForge('{KEY}', base_url=url)",
        f"await client.jobs.create(**{JOB})",
        group="ours",
    ),
    Client(
        "openai",
        "import openai",
        "client = openai.OpenAI(api_key='k', base_url=url, max_retries=0)",
        "client.videos.retrieve('v')",
        "client = openai.AsyncOpenAI(api_key='k', base_url=url, max_retries=0)",
        "await client.videos.retrieve('v')",
    ),
    Client(
        "anthropic",
        "import anthropic",
        "client = anthropic.Anthropic(api_key='k', base_url=url, max_retries=0)",
        "client.models.retrieve('m')",
        "client = anthropic.AsyncAnthropic(api_key='k', base_url=url, max_retries=0)",
        "await client.models.retrieve('m')",
    ),
    Client(
        "runwayml",
        "import runwayml",
        "client = runwayml.RunwayML(api_key='k', base_url=url, max_retries=0)",
        "client.tasks.retrieve('17f20503-6c24-4c16-946b-35dbbce2af2f')",
        "client = runwayml.AsyncRunwayML(api_key='k', base_url=url, max_retries=0)",
        "await client.tasks.retrieve('17f20503-6c24-4c16-946b-35dbbce2af2f')",
    ),
    Client(
        "hedra-sdk",
        "import hedra\nfrom hedra import AsyncHedra, Hedra",
        "client = Hedra(api_key='k', base_url=url, max_retries=0)",
        "client.jobs.get_status('job_1')",
        "client = AsyncHedra(api_key='k', base_url=url, max_retries=0)",
        "await client.jobs.get_status('job_1')",
    ),
    Client(
        "elevenlabs",
        "from elevenlabs.client import AsyncElevenLabs, ElevenLabs",
        "client = ElevenLabs(api_key='k', base_url=url)",
        "client.voices.settings.get_default()",
        "client = AsyncElevenLabs(api_key='k', base_url=url)",
        "await client.voices.settings.get_default()",
    ),
    Client(
        "stripe",
        "import stripe",
        "client = stripe.StripeClient('sk_test_1', base_addresses={'api': url}, max_network_retries=0)",
        "client.v1.customers.retrieve('c')",
        "client = stripe.StripeClient('sk_test_1', base_addresses={'api': url}, max_network_retries=0)",
        "await client.v1.customers.retrieve_async('c')",
    ),
    Client(
        "replicate",
        "import replicate",
        "client = replicate.Client(api_token='k', base_url=url)",
        "client.predictions.get('p')",
        "client = replicate.Client(api_token='k', base_url=url)",
        "await client.predictions.async_get('p')",
    ),
    Client(
        "fal-client",
        # Its hosts are constants.
        "import fal_client, fal_client.client",
        "fal_client.client.QUEUE_URL_FORMAT = url + '/'; client = fal_client.SyncClient(key='k')",
        "client.status('fal-ai/x', 'r')",
        "fal_client.client.QUEUE_URL_FORMAT = url + '/'; client = fal_client.AsyncClient(key='k')",
        "await client.status('fal-ai/x', 'r')",
    ),
    Client(
        "aiohttp",
        "import aiohttp",
        "",
        "",
        f"client = aiohttp.ClientSession(url, headers={{'x-api-key': '{KEY}'}})",
        f"await (await client.get('{SIGN}', params={{'path': 'a/b.mp4'}})).json()",
        group="HTTP",
    ),
    Client(
        "urllib3",
        "import urllib3, json",
        f"client = urllib3.HTTPConnectionPool(url.split('/')[2], headers={{'x-api-key': '{KEY}'}})",
        f"json.loads(client.request('GET', '{SIGN}', fields={{'path': 'a/b.mp4'}}).data)",
        group="HTTP",
    ),
    Client(
        "pyreqwest",
        "from pyreqwest.client import ClientBuilder, SyncClientBuilder",
        f"client = SyncClientBuilder().base_url(url).default_headers({{'x-api-key': '{KEY}'}}).build()",
        f"client.get('{SIGN}').query({{'path': 'a/b.mp4'}}).build().send().json()",
        f"client = ClientBuilder().base_url(url).default_headers({{'x-api-key': '{KEY}'}}).build()",
        f"await (await client.get('{SIGN}').query({{'path': 'a/b.mp4'}}).build().send()).json()",
        group="HTTP",
    ),
    Client("attrs", "import attrs", "", group="HTTP"),
]
