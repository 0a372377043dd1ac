"""OpenAI's and Groq's SDKs, which are alike, against the simulator."""

from collections.abc import Callable
from typing import Any

from harness import KEY, Checks
from sdk import MULTIBYTE, PROMPT, Refusal, Sdk, load, simulate, text_of

Complete = Callable[..., Any]


def refusal(fault: str, exception: str, status: int, code: str | None = None) -> Refusal:
    """Returns a row: the exception for a fault, its status, and its code or type."""
    more = {"code": code} if code else {}
    return (fault, exception, {"status_code": status, **more})


OPENAI = [
    refusal("auth_failed", "AuthenticationError", 401, "invalid_api_key"),
    refusal("rate_limited", "RateLimitError", 429, "rate_limit_exceeded"),
    refusal("billing", "RateLimitError", 429, "insufficient_quota"),
    refusal("billing; variant=billing_hard_limit_reached", "RateLimitError", 429,
            "billing_hard_limit_reached"),
    refusal("unavailable", "InternalServerError", 503, "server_error"),
    refusal("overloaded", "InternalServerError", 503, "server_is_overloaded"),
    refusal("server_error", "InternalServerError", 500, "server_error"),
    refusal("gateway_timeout", "InternalServerError", 504),
]  # fmt: skip
LANGMART = [
    refusal("auth_failed", "AuthenticationError", 401),
    refusal("billing", "APIStatusError", 402),
    refusal("rate_limited", "RateLimitError", 429),
    refusal("unavailable", "InternalServerError", 503),
    refusal("gateway_timeout", "InternalServerError", 504),
]
OPENROUTER = [
    refusal("auth_failed", "AuthenticationError", 401),
    refusal("billing", "APIStatusError", 402),
    refusal("billing; variant=key_limit", "PermissionDeniedError", 403),
    refusal("rate_limited", "RateLimitError", 429),
    refusal("gateway_timeout", "InternalServerError", 524),
    refusal("overloaded", "InternalServerError", 529),
]
GROQ = [
    refusal("auth_failed", "AuthenticationError", 401, "invalid_api_key"),
    refusal("rate_limited", "RateLimitError", 429, "rate_limit_exceeded"),
    refusal("unavailable", "InternalServerError", 503),
    refusal("overloaded", "APIStatusError", 498, "capacity_exceeded"),
    refusal("server_error", "InternalServerError", 500, "internal_server_error"),
]


def check_service(sdk: Sdk, make: Any, url: str, model: str, rows: list[Refusal]) -> Complete:
    """Checks what every service of this style has. Returns a function that completes."""
    client = make(api_key=KEY, base_url=url, max_retries=0)

    def complete(fault: str = "pace", by: Any = client, **more: Any) -> Any:
        return by.chat.completions.create(
            messages=PROMPT, extra_headers=simulate(fault), **{"model": model, **more}
        )

    sdk.equal("lists_the_model", True, lambda: model in [m.id for m in client.models.list().data])
    sdk.equal("completes", "OK", lambda: complete().choices[0].message.content)
    sdk.equal("names_the_model", model, lambda: complete().model)
    sdk.equal("ends_the_answer", "stop", lambda: complete().choices[0].finish_reason)
    sdk.equal(
        "ends_at_max_tokens", "length", lambda: complete(max_tokens=1).choices[0].finish_reason
    )
    sdk.equal("retrieves_the_model", model, lambda: client.models.retrieve(model).id)
    sdk.equal("streams", "OK", lambda: text_of(complete(stream=True)))
    sdk.equal(
        "streams_characters_of_several_bytes",
        MULTIBYTE,
        lambda: text_of(complete("stream_multibyte", stream=True)),
    )
    sdk.raises(
        "reports_an_unknown_model",
        "NotFoundError",
        {"status_code": 404},
        lambda: complete(model="no-such-model"),
    )
    invalid = make(api_key="sk-invalid-0123456789", base_url=url, max_retries=0)
    sdk.raises(
        "reports_an_invalid_key",
        "AuthenticationError",
        {"status_code": 401},
        lambda: complete(by=invalid),
    )
    sdk.refusals(rows, complete)
    sdk.raises(
        "reports_an_error_in_a_stream",
        "APIError",
        {},
        lambda: text_of(complete("stream_error_mid", stream=True)),
    )
    sdk.raises(
        "reports_a_cut_response", "APIConnectionError", {}, lambda: complete("cut_before_headers")
    )
    hurried = client.with_options(timeout=1.0)
    sdk.raises("times_out", "APITimeoutError", {}, lambda: complete("stall", by=hurried))
    return complete


def check_openai(checks: Checks, base: str) -> None:
    """Checks OpenAI's SDK, also as a client of LangMart and OpenRouter."""
    make = load("openai").OpenAI
    sdk, url = Sdk(checks, "openai"), f"{base}/openai/v1"
    complete = check_service(sdk, make, url, "gpt-4o-mini", OPENAI)

    def counted() -> list[int]:
        chunks = complete(stream=True, stream_options={"include_usage": True})
        return [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]

    sdk.equal("counts_the_tokens_of_a_stream", [2], counted)
    sdk.equal("counts_the_same_tokens_at_once", 2, lambda: complete().usage.completion_tokens)
    sdk.equal("has_several_answers", 2, lambda: len(complete(n=2).choices))
    sdk.equal("finds_the_request_id", True, lambda: bool(complete()._request_id))
    models = make(api_key=KEY, base_url=url).models
    sdk.equal(
        "reads_the_shutdown_date",
        True,
        lambda: "shutdown_date" in models.list().data[0].model_fields_set,
    )
    for name, path, model, rows in [
        ("langmart", "langmart/v1", "openai/gpt-4o-mini", LANGMART),
        ("openrouter", "openrouter/api/v1", "mistralai/mistral-nemo", OPENROUTER),
    ]:
        check_service(Sdk(checks, f"openai_at_{name}"), make, f"{base}/{path}", model, rows)


def check_groq(checks: Checks, base: str) -> None:
    """Checks Groq's SDK."""
    sdk = Sdk(checks, "groq")
    complete = check_service(sdk, load("groq").Groq, f"{base}/groq", "llama-3.1-8b-instant", GROQ)

    def counted() -> list[int]:
        usages = [chunk.x_groq.usage for chunk in complete(stream=True) if chunk.x_groq]
        return [usage.completion_tokens for usage in usages if usage]

    sdk.equal("counts_the_tokens_of_a_stream", [2], counted)
    sdk.equal("names_the_service_tier", "on_demand", lambda: complete().service_tier)
