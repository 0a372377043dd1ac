"""The prober behind a real LiteLLM proxy: its error bodies, model names, waits and fallbacks."""

import json
import pathlib
import re
import sys
from typing import Any

from harness import (
    KEY,
    REFUSING_PORT,
    WRONG_KEY,
    Case,
    Checks,
    Place,
    answers,
    free_port,
    judge,
    running,
)
from sdk import LITELLM_OFFLINE

OK = {"reason": "ok", "fault": "none", "detail": None}
# Model groups: name, model and path at the simulator, and what the simulator plays.
OPENAI, ANTHROPIC = ("openai/gpt-4o-mini", "openai/v1"), ("anthropic/claude-haiku-5-5", "anthropic")
GROUPS: dict[str, tuple[tuple[str, str], str]] = {
    "plain": (OPENAI, ""),
    "claude": (ANTHROPIC, ""),
    "gemini": (("gemini/gemini-2.5-flash", "google/v1beta"), ""),
    "router": (("openrouter/mistralai/mistral-nemo", "openrouter/api/v1"), ""),
    "slow": (OPENAI, "pace; first_token=100ms; tokens=100; token=20ms"),
    "swapped": (OPENAI, "pace; answered_model=gpt-4o"),
    "primary": (OPENAI, "server_error"),
    "spare": (("openai/gpt-4o", "openai/v1"), ""),
    "key": (OPENAI, "auth_failed"),
    "quota": (OPENAI, "billing"),
    "credit": (ANTHROPIC, "billing"),
    "limited": (OPENAI, "rate_limited; retry_after=20s"),
    "busy": (OPENAI, "overloaded"),
    "down": (OPENAI, "unavailable"),
    "broken": (OPENAI, "server_error"),
    "late": (OPENAI, "gateway_timeout"),
    "stalled": (OPENAI, "stall"),
    "cut": (OPENAI, "cut"),
    "page": (OPENAI, "html"),
    "error-mid": (OPENAI, "stream_error_mid"),
    "truncated": (OPENAI, "stream_truncated"),
    "unknown": (("openai/no-such-model", "openai/v1"), ""),
    "dead": (("openai/gpt-4o-mini", ""), ""),
}


def configuration(simulator: int) -> str:
    """Returns LiteLLM's configuration, in JSON, which is YAML."""

    def group(name: str) -> dict[str, Any]:
        (model, path), fault = GROUPS[name]
        port = simulator if path else REFUSING_PORT
        parameters: dict[str, Any] = {
            "model": model,
            "api_base": f"http://127.0.0.1:{port}/{path}".rstrip("/"),
            "api_key": KEY,
            "timeout": 2 if name == "stalled" else 30,
            "max_retries": 0,
        }
        if fault:
            parameters["extra_headers"] = {"x-simulate": fault}
        return {"model_name": name, "litellm_params": parameters}

    return json.dumps({
        "model_list": [group(name) for name in GROUPS],
        "litellm_settings": {"telemetry": False, "num_retries": 0,
                             "fallbacks": [{"primary": ["spare"]}]},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": KEY},
    })  # fmt: skip


def cases(base: str) -> list[Case]:
    """Returns the cases: the model group asked for, and what must be found."""
    provider, caller = {"fault": "provider"}, {"fault": "caller"}
    # The ID that LiteLLM's support asks for.
    known = {"request_id": re.compile("^[0-9a-f-]{36}$")}
    rows: list[tuple[str, str, dict[str, Any]]] = [
        *((check, name, OK) for name in ("plain", "claude", "gemini", "router")
          for check in ("chat", "stream")),
        ("chat", "plain", {**OK, **known, "hint": None}),
        ("stream", "slow", {**OK, "buffered": False}),
        ("auth", "", OK),
        ("models", "", OK),
        ("chat", "key", {"reason": "auth_failed", "http_status": 401, **caller}),
        ("chat", "quota", {"reason": "billing", "http_status": 429, **caller, **known}),
        ("stream", "quota", {"reason": "billing", **caller}),
        ("chat", "credit", {"reason": "billing", **caller}),
        ("chat", "limited", {"reason": "rate_limited", "retry_after_seconds": 20.0, **caller,
                             "limited_by": "requests", **known}),
        ("stream", "limited", {"reason": "rate_limited", "retry_after_seconds": 20.0}),
        ("chat", "busy", {"reason": "overloaded", **provider}),
        ("chat", "down", {"reason": "unavailable", **provider}),
        ("chat", "broken", {"reason": "server_error", **provider}),
        ("chat", "late", {"reason": "gateway_timeout", **provider}),
        ("chat", "stalled", {"reason": "gateway_timeout", **provider}),
        ("chat", "cut", {"reason": "server_error", **provider}),
        ("chat", "page", {"reason": "server_error", **provider}),
        ("chat", "dead", {"reason": "server_error", **provider}),
        ("stream", "error-mid", {"reason": "stream_error", **provider}),
        # LiteLLM completes the stream itself, so that it is whole.
        ("stream", "truncated", OK),
        ("chat", "unknown", {"reason": "model_not_found", **caller}),
        ("chat", "not-configured", {"reason": "model_not_found", **caller}),
        # Without expect.model a deployment's name is not compared.
        ("chat", "primary", {**OK, "model_match": None}),
        ("chat", "swapped", {**OK, "model_match": None}),
    ]  # fmt: skip
    found = {}
    for check, model, expected in rows:
        name = f"litellm-{model or 'list'}-{check}"
        probe = "max_tokens = 128" if model == "slow" else ""
        found[name] = Case(name, f"{base}/v1", expected, check, model=model, probe=probe)
    return [*found.values(), *special(base)]


def special(base: str) -> list[Case]:
    """Returns the cases with keys of their own in provider or probe."""
    fallen = {"reason": "unmet_expectation", "fault": "provider", "model_match": False}
    # Without a database it knows no key but its own, and answers 400.
    refused = {"reason": "auth_failed", "fault": "caller", "http_status": 400}
    return [
        Case("litellm-health", f"{base}/v1", OK, "health",
             provider='health_path = "//health/liveliness"'),
        Case("litellm-expected", f"{base}/v1", {**OK, "model_match": True}, model="plain",
             probe='expect = { model = "pl*" }'),
        Case("litellm-wrong-key", f"{base}/v1", refused, model="plain", key=WRONG_KEY),
        Case("litellm-wrong-key-auth", f"{base}/v1", refused, "auth", key=WRONG_KEY),
        Case("litellm-fallback", f"{base}/v1", fallen, model="primary",
             probe='expect = { model = "primary" }'),
        Case("litellm-fallback-stream", f"{base}/v1", fallen, "stream", model="primary",
             probe='expect = { model = "primary" }'),
        Case("litellm-anthropic", base, OK, api="anthropic", model="claude"),
        Case("litellm-anthropic-stream", base, OK, "stream", api="anthropic", model="claude"),
    ]  # fmt: skip


def check(checks: Checks, place: Place, simulator: int) -> None:
    """Checks LiteLLM's proxy, if it is installed beside this Python."""
    command = pathlib.Path(sys.executable).with_name("litellm")
    if not command.exists():
        checks.skip("litellm-proxy", "litellm[proxy]")
        return
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    config = place.write("litellm.yaml", configuration(simulator))
    # Its requests to other hosts are refused; it needs none of them.
    offline = {
        **LITELLM_OFFLINE,
        "https_proxy": f"http://127.0.0.1:{REFUSING_PORT}",
        "no_proxy": "127.0.0.1",
    }
    started = [str(command), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with running(place, "litellm", started, answers(f"{base}/health/liveliness"), offline):
        judge(checks, place, "litellm", cases(base), at_once=8)
