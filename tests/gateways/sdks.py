"""The services' own SDKs against the simulator: what they parse, raise and wait for."""

import concurrent.futures
import functools
import os
import time
from collections.abc import Callable
from typing import Any

from harness import KEY, Checks
from openai_style import check_groq, check_openai
from sdk import LITELLM_OFFLINE, PROMPT, Refusal, Sdk, is_installed, load, simulate, text_of

# What is played for the first call of a key, and the wait in seconds that the SDK must keep.
WAITS = {
    "seconds": ('fault = "rate_limited"\nretry_after = "1s"', 1.0),
    "milliseconds": ('fault = "rate_limited"\nretry_after = "1s"\nvariant = "retry_after_ms"', 1.0),
    "fraction": ('fault = "rate_limited"\nretry_after = "1500ms"\nvariant = "fractional"', 1.5),
    # A date has whole seconds: the wait may be up to one of them longer.
    "date": ('fault = "rate_limited"\nretry_after = "2s"\nvariant = "http_date"', 1.9),
    "unavailable": ('fault = "unavailable"\nretry_after = "1s"', 1.0),
    "overloaded": ('fault = "overloaded"\nretry_after = "1s"', 1.0),
}
# The name of an SDK's client, the path of its service, and a model. Google's reads no wait.
WAITING = {
    "openai": ("OpenAI", "openai/v1", "gpt-4o-mini"),
    "groq": ("Groq", "groq", "llama-3.1-8b-instant"),
    "anthropic": ("Anthropic", "anthropic", "claude-haiku-4-5-20251001"),
}
# It does not repeat a call that was refused with 498.
NOT_REPEATED = ("groq", "overloaded")

ANTHROPIC: list[Refusal] = [
    (fault, exception, {"status_code": status, "type": kind})
    for fault, exception, status, kind in [
        ("auth_failed", "AuthenticationError", 401, "authentication_error"),
        ("rate_limited", "RateLimitError", 429, "rate_limit_error"),
        ("billing", "BadRequestError", 400, "invalid_request_error"),
        ("billing; variant=billing_error", "PaymentRequiredError", 402, "billing_error"),
        ("billing; variant=spend_limit", "EnforcedSpendLimitReachedError", 429, "rate_limit_error"),
        ("unavailable", "ServiceUnavailableError", 503, "api_error"),
        ("gateway_timeout", "GatewayTimeoutError", 504, "timeout_error"),
        ("overloaded", "OverloadedError", 529, "overloaded_error"),
        ("server_error", "InternalServerError", 500, "api_error"),
    ]
]
GOOGLE: list[Refusal] = [
    (fault, exception, {"code": code, "status": status})
    for fault, exception, code, status in [
        ("auth_failed", "ClientError", 400, "INVALID_ARGUMENT"),
        ("rate_limited", "ClientError", 429, "RESOURCE_EXHAUSTED"),
        ("billing", "ClientError", 402, "RESOURCE_EXHAUSTED"),
        ("overloaded", "ServerError", 503, "UNAVAILABLE"),
        ("server_error", "ServerError", 500, "INTERNAL"),
        ("gateway_timeout", "ServerError", 504, "DEADLINE_EXCEEDED"),
    ]
]

OPENROUTER: list[Refusal] = [
    ("auth_failed", "UnauthorizedResponseError", {"status_code": 401}),
    ("billing", "PaymentRequiredResponseError", {"status_code": 402}),
    ("billing; variant=key_limit", "ForbiddenResponseError", {"status_code": 403}),
    ("rate_limited", "TooManyRequestsResponseError", {"status_code": 429}),
    ("server_error", "InternalServerResponseError", {"status_code": 500}),
    ("unavailable", "ServiceUnavailableResponseError", {"status_code": 503}),
    ("gateway_timeout", "EdgeNetworkTimeoutResponseError", {"status_code": 524}),
    ("overloaded", "ProviderOverloadedResponseError", {"status_code": 529}),
]


def scenario() -> str:
    """Returns the rules for the waits: the first call of each key fails."""
    return "\n".join(
        f'[[rule]]\nkey_contains = "{key(sdk, name)}"\ncalls = {{ from = 1, to = 1 }}\n{fault}\n'
        for sdk in WAITING
        for name, (fault, _) in WAITS.items()
    )


def key(sdk: str, name: str) -> str:
    """Returns the key of a wait."""
    return f"sk-{sdk}-waits-{name}"


def check_anthropic(checks: Checks, base: str) -> None:
    """Checks Anthropic's SDK, whose key is a bearer token, with its API version."""
    module, model = load("anthropic"), "claude-haiku-4-5-20251001"
    sdk, url = Sdk(checks, "anthropic"), f"{base}/anthropic"
    client = module.Anthropic(api_key=KEY, base_url=url, max_retries=0)

    def create(fault: str = "pace", by: Any = client, **more: Any) -> Any:
        options = {"model": model, "max_tokens": 32, "extra_headers": simulate(fault), **more}
        return by.messages.create(messages=PROMPT, **options)

    def streamed(fault: str, model: str) -> list[str]:
        options = {"model": model, "max_tokens": 32, "extra_headers": simulate(fault)}
        with client.messages.stream(messages=PROMPT, **options) as events:
            return [block.type for block in events.get_final_message().content]

    def request_ids(call: Callable[[], Any]) -> int:
        try:
            call()
        except module.APIStatusError as error:
            return len({error.request_id, error.body["request_id"]})
        return 0

    listed = client.models.list
    sdk.equal("lists_the_model", True, lambda: model in [row.id for row in listed()])
    sdk.equal("reads_the_lifecycle", "active", lambda: listed().data[0].lifecycle)
    sdk.equal("completes", "OK", lambda: create().content[0].text)
    sdk.equal("streams", ["text"], lambda: streamed("pace", model))
    thinking = ["thinking", "text"]
    reasoned = functools.partial(create, model="claude-haiku-5-5")
    sdk.equal("reads_thoughts", thinking, lambda: [part.type for part in reasoned().content])
    sdk.equal("ends_at_max_tokens", "max_tokens", lambda: create(max_tokens=1).stop_reason)
    sdk.equal("retrieves_the_model", model, lambda: client.models.retrieve(model).id)
    sdk.equal("streams_thoughts", thinking, lambda: streamed("pace", "claude-haiku-5-5"))
    old = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    older = module.Anthropic(api_key=KEY, base_url=url, max_retries=0, default_headers=old)
    sdk.equal("may_send_the_old_version", "OK", lambda: create(by=older).content[0].text)
    invalid = module.Anthropic(api_key="sk-invalid-1", base_url=url, max_retries=0)
    unauthorized = {"status_code": 401, "type": "authentication_error"}
    sdk.raises(
        "reports_an_invalid_key", "AuthenticationError", unauthorized, lambda: create(by=invalid)
    )
    unknown = {"status_code": 404, "type": "not_found_error"}
    sdk.raises(
        "reports_an_unknown_model", "NotFoundError", unknown, lambda: create(model="claude-none")
    )
    # Since 2026-10-21 the API takes none of them.
    for name in ("temperature", "top_p", "top_k"):
        sending = functools.partial(create, extra_body={name: 1})
        sdk.raises(f"may_not_send_{name}", "BadRequestError", {}, sending)
    sdk.refusals(ANTHROPIC, create)
    refused = functools.partial(create, "overloaded")
    sdk.equal("finds_one_request_id", 1, lambda: request_ids(refused))
    broken = functools.partial(streamed, "stream_error_mid", model)
    sdk.equal("finds_one_request_id_in_a_stream", 1, lambda: request_ids(broken))
    # Its class is that of the response's status.
    sdk.raises(
        "reports_an_error_in_a_stream",
        "APIStatusError",
        {"type": "overloaded_error"},
        broken,
    )


def check_genai(checks: Checks, base: str) -> None:
    """Checks Google's SDK."""
    module, model = load("google.genai"), "gemini-2.5-flash"
    sdk = Sdk(checks, "genai")
    # They are kept: a client that is collected closes its connections amid a call.
    clients: list[Any] = []

    def models(fault: str = "pace", api_key: str = KEY) -> Any:
        options = {
            "base_url": f"{base}/google",
            "headers": simulate(fault),
            "retry_options": {"attempts": 1},
        }
        clients.append(module.Client(api_key=api_key, http_options=options))
        return clients[-1].models

    def generate(fault: str = "pace", model: str = model, api_key: str = KEY) -> Any:
        return models(fault, api_key).generate_content(model=model, contents="Say OK.")

    def stream() -> str:
        chunks = models().generate_content_stream(model=model, contents="Say OK.")
        return "".join(chunk.text or "" for chunk in chunks)

    sdk.equal(
        "lists_the_model", True, lambda: f"models/{model}" in [row.name for row in models().list()]
    )
    sdk.equal("completes", "OK", lambda: generate().text)
    sdk.equal("names_the_model", model, lambda: generate().model_version)
    sdk.equal("streams", "OK", stream)
    wrong, unknown = {"status": "INVALID_ARGUMENT"}, {"status": "NOT_FOUND"}
    sdk.raises(
        "reports_an_invalid_key", "ClientError", wrong, lambda: generate(api_key="sk-invalid-1")
    )
    sdk.raises(
        "reports_an_unknown_model", "ClientError", unknown, lambda: generate(model="gemini-none")
    )
    sdk.refusals(GOOGLE, generate)


def check_openrouter(checks: Checks, base: str) -> None:
    """Checks OpenRouter's SDK, which refuses what lacks a member."""
    sdk, model = Sdk(checks, "openrouter"), "mistralai/mistral-nemo"
    # By default it repeats refusals for an hour.
    client = load("openrouter").OpenRouter(
        api_key=KEY,
        server_url=f"{base}/openrouter/api/v1",
        retry_config=None,
        timeout_ms=20_000,
    )

    def send(fault: str = "pace", **more: Any) -> Any:
        headers = simulate(fault)
        return client.chat.send(model=model, messages=PROMPT, http_headers=headers, **more)

    listed = client.models.list
    sdk.equal("lists_the_model", True, lambda: model in [row.id for row in listed().result.data])
    key = client.api_keys.get_current_key_metadata
    sdk.equal("reads_the_balance", 7.25, lambda: key().data.limit_remaining)
    sdk.equal("completes", "OK", lambda: send().choices[0].message.content)
    sdk.equal("streams", "OK", lambda: text_of(send(stream=True)))
    sdk.refusals(OPENROUTER, send)
    # As recorded; its documentation has another form, which it does not read.
    recorded = "stream_error_mid; variant=recorded"
    sdk.equal(
        "reads_an_error_in_a_stream",
        True,
        lambda: any(c.error for c in send(recorded, stream=True)),
    )


def check_litellm(checks: Checks, base: str) -> None:
    """Checks LiteLLM's client in each dialect."""
    os.environ |= LITELLM_OFFLINE
    module = load("litellm")
    module.suppress_debug_info = True
    for service, model, path in [
        ("openai", "openai/gpt-4o-mini", "openai/v1"),
        ("langmart", "openai/openai/gpt-4o-mini", "langmart/v1"),
        ("anthropic", "anthropic/claude-haiku-4-5-20251001", "anthropic"),
        ("groq", "groq/openai/gpt-oss-20b", "groq/openai/v1"),
        ("google", "gemini/gemini-2.5-flash", "google/v1beta"),
        ("openrouter", "openrouter/mistralai/mistral-nemo", "openrouter/api/v1"),
    ]:
        sdk = Sdk(checks, f"litellm_at_{service}")
        options = {
            "model": model,
            "messages": PROMPT,
            "api_key": KEY,
            "api_base": f"{base}/{path}",
            "max_retries": 0,
            "num_retries": 0,
        }
        check_litellm_service(sdk, module.completion, options)


def check_litellm_service(sdk: Sdk, completion: Any, options: dict[str, Any]) -> None:
    """Checks LiteLLM's client at one service."""

    def complete(fault: str = "pace", **more: Any) -> Any:
        return completion(extra_headers=simulate(fault), **options, **more)

    sdk.equal("completes", "OK", lambda: complete().choices[0].message.content)
    sdk.equal("streams", "OK", lambda: text_of(complete(stream=True)))
    # Its handler for Groq takes a bad key for a bad request.
    refused = "BadRequestError" if sdk.name.endswith("groq") else "AuthenticationError"
    rows: list[Refusal] = [
        ("auth_failed", refused, {}),
        ("rate_limited", "RateLimitError", {"status_code": 429}),
        ("unavailable", "ServiceUnavailableError", {"status_code": 503}),
        ("gateway_timeout", "Timeout", {}),
    ]
    sdk.refusals(rows, complete)


def check_waits(checks: Checks, base: str) -> None:
    """Checks that the SDKs read the waits of the simulator, all at the same time."""

    def measure(pair: tuple[str, str]) -> list[str]:
        sdk, name = pair
        client_name, path, model = WAITING[sdk]
        make = getattr(load(sdk), client_name)
        client = make(api_key=key(sdk, name), base_url=f"{base}/{path}", max_retries=1)
        api = client.messages if sdk == "anthropic" else client.chat.completions
        began = time.monotonic()
        try:
            api.create(model=model, messages=PROMPT, max_tokens=32)
        except Exception as error:
            return [f"raised {type(error).__name__}: {str(error)[:300]}"]
        waited, wanted = time.monotonic() - began, WAITS[name][1]
        return [] if waited >= wanted else [f"waited {waited:.2f} s, not {wanted} s"]

    present = [sdk for sdk in WAITING if is_installed(sdk)]
    pairs = [(sdk, name) for sdk in present for name in WAITS if (sdk, name) != NOT_REPEATED]
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(pairs) or 1) as pool:
        for (sdk, name), wrong in zip(pairs, pool.map(measure, pairs), strict=True):
            checks.report(f"{sdk}::waits_as_asked_by_{name}", wrong)


def check(checks: Checks, port: int) -> None:
    """Checks every SDK that is installed."""
    base = f"http://127.0.0.1:{port}"
    parts: dict[str, Callable[[Checks, str], None]] = {
        "openai": check_openai,
        "groq": check_groq,
        "anthropic": check_anthropic,
        "google.genai": check_genai,
        "openrouter": check_openrouter,
        "litellm": check_litellm,
    }
    for name, part in parts.items():
        if is_installed(name):
            part(checks, base)
        else:
            checks.skip(name, f"Python's {name}")
    check_waits(checks, base)
