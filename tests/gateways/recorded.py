"""Answers that the documentation and SDKs of the services have, played by the simulator.

Each is read by the prober, and by the SDK that knows it.
"""

import dataclasses
import functools
import json
from typing import Any

from harness import Case, Checks, Place, has, judge
from sdk import PROMPT, Sdk, is_installed, load

OK = {"reason": "ok", "fault": "none"}
PATHS = {
    "openai": "openai/v1",
    "anthropic": "anthropic",
    "groq": "groq/openai/v1",
    "openrouter": "openrouter/api/v1",
}


@dataclasses.dataclass(frozen=True)
class Recorded:
    """An answer, and what the prober must find in it."""

    name: str
    api: str
    check: str
    model: str
    body: Any
    expected: dict[str, Any]
    status: int = 200

    @property
    def key(self) -> str:
        """Returns the key for which it is played."""
        return f"sk-recorded-{self.name}-end"

    def rule(self) -> str:
        """Returns the rule of the scenario."""
        respond = (
            f"{{ status = {self.status}, headers = {{ Content-Type = 'application/json' }}, "
            f"body = {json.dumps(json.dumps(self.body))} }}"
        )
        return f'[[rule]]\nkey_contains = "{self.key}"\nrespond = {respond}\n'


def row(model: str, **members: Any) -> dict[str, Any]:
    """Returns a list with one model."""
    named = {"id": model, "type": "model", "display_name": model, "object": "model"}
    return {"object": "list", "data": [{**named, "created_at": "2025-10-15T00:00:00Z", **members}]}


def refusal(kind: str, code: str) -> dict[str, Any]:
    """Returns a refusal of Anthropic with an error code."""
    error = {"type": kind, "message": "This request is refused.", "details": {"error_code": code}}
    return {"type": "error", "error": error, "request_id": "req_1"}


def message(stop_reason: str) -> dict[str, Any]:
    """Returns an answer of Anthropic without content."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-1",
        "content": [],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }


def completion(model: str, **usage: Any) -> dict[str, Any]:
    """Returns a completion in OpenAI's format, with these counts."""
    said = {"role": "assistant", "content": "OK"}
    counts = {"prompt_tokens": 90, "completion_tokens": 1, "total_tokens": 91, **usage}
    choice = {"index": 0, "message": said, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": model,
            "choices": [choice], "usage": counts}  # fmt: skip


SOON = {**OK, "model_shutdown": "2026-12-11"}
GONE = {"reason": "model_not_found", "fault": "caller"}
BILLING = {"reason": "billing", "fault": "caller"}
RECORDED = [
    Recorded("retired", "anthropic", "models", "claude-1",
             row("claude-1", lifecycle="retired", retires_at="2026-01-05T00:00:00Z"), GONE),
    Recorded("retiring", "anthropic", "models", "claude-1",
             row("claude-1", lifecycle="deprecated", deprecated_at="2026-06-01T00:00:00Z",
                 retires_at="2026-12-11T00:00:00Z"), SOON),
    # A retirement that is overdue, and has not occurred.
    Recorded("overdue", "anthropic", "models", "claude-1",
             row("claude-1", lifecycle="deprecated", retires_at="2026-01-05T00:00:00Z"), OK),
    Recorded("shutdown", "openai", "models", "gpt-1", row("gpt-1", shutdown_date="2026-12-11"),
             SOON),
    Recorded("expiration", "openrouter", "models", "a/b", row("a/b", expiration_date="2026-12-11"),
             SOON),
    Recorded("deprecation", "openai", "models", "mistral-1",
             row("mistral-1", deprecation="2026-12-11T00:00:00Z"), SOON),
    Recorded("bare-array", "openai", "models", "a/b", row("a/b")["data"], OK),
    Recorded("bare-array-auth", "openai", "auth", "", row("a/b")["data"], OK),
    Recorded("enforced-spend", "anthropic", "chat", "claude-1",
             refusal("rate_limit_error", "enforced_spend_limit_reached"), BILLING, 429),
    Recorded("contract-spend", "anthropic", "chat", "claude-1",
             refusal("rate_limit_error", "contract_spend_limit_reached"), BILLING, 429),
    Recorded("ramp", "anthropic", "chat", "claude-1",
             refusal("rate_limit_error", "ramp_limit_exceeded"),
             {"reason": "rate_limited", "fault": "caller"}, 429),
    Recorded("context-window", "anthropic", "chat", "claude-1",
             message("model_context_window_exceeded"),
             {"reason": "no_content", "detail": has("context window")}),
    Recorded("cached-deepseek", "openai", "chat", "deepseek-chat",
             completion("deepseek-chat", prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=26),
             {**OK, "cached_input_tokens": 64}),
    Recorded("reordered-name", "openrouter", "chat", "anthropic/claude-sonnet-4.5",
             completion("anthropic/claude-4.5-sonnet-20250929"),
             {**OK, "answered_model": "anthropic/claude-4.5-sonnet-20250929"}),
]  # fmt: skip


def scenario() -> str:
    """Returns the rules of the scenario."""
    return "\n".join(recorded.rule() for recorded in RECORDED)


def check(checks: Checks, place: Place, port: int) -> None:
    """Checks what the prober and the SDKs read in the answers."""
    base = f"http://127.0.0.1:{port}"
    cases = [
        Case(f"recorded-{recorded.name}", f"{base}/{PATHS[recorded.api]}", recorded.expected,
             recorded.check, recorded.api, recorded.model, recorded.key)
        for recorded in RECORDED
    ]  # fmt: skip
    judge(checks, place, "recorded", cases)
    by_name = {recorded.name: recorded for recorded in RECORDED}
    if is_installed("anthropic"):
        check_anthropic(Sdk(checks, "anthropic"), f"{base}/anthropic", by_name)
    if is_installed("openai"):
        client = load("openai").OpenAI(
            api_key=by_name["shutdown"].key, base_url=f"{base}/openai/v1"
        )
        sdk = Sdk(checks, "openai")
        sdk.equal("reads_the_shutdown_date", "2026-12-11",
                  lambda: str(client.models.list().data[0].shutdown_date))  # fmt: skip


def check_anthropic(sdk: Sdk, url: str, by_name: dict[str, Recorded]) -> None:
    """Checks that Anthropic's SDK knows the members and codes."""
    module = load("anthropic")

    def client(name: str) -> Any:
        return module.Anthropic(api_key=by_name[name].key, base_url=url, max_retries=0)

    def create(name: str) -> Any:
        return client(name).messages.create(model="claude-1", max_tokens=9, messages=PROMPT)

    def listed(name: str) -> Any:
        return client(name).models.list().data[0]

    sdk.equal("reads_a_retired_model", "retired", lambda: listed("retired").lifecycle)
    retires = "2026-12-11"
    sdk.equal("reads_the_retirement", retires, lambda: str(listed("retiring").retires_at)[:10])
    for name, exception in [
        ("enforced-spend", "EnforcedSpendLimitReachedError"),
        ("contract-spend", "ContractSpendLimitReachedError"),
        ("ramp", "RampLimitExceededError"),
    ]:
        refused = functools.partial(create, name)
        sdk.raises(f"reports_{name}", exception, {"status_code": 429}, refused)
    full = functools.partial(create, "context-window")
    sdk.equal("reads_a_full_context", "model_context_window_exceeded", lambda: full().stop_reason)
