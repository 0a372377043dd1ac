"""Shared code of the SDK tests."""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from harness import Checks

PROMPT: list[dict[str, str]] = [{"role": "user", "content": "Say OK."}]
MULTIBYTE = "héllo – 你好 🙂"
# LiteLLM's tables of prices and tokenizers are not downloaded.
LITELLM_OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1"}

# What the simulator plays, the name of the exception, and members of it.
Refusal = tuple[str, str, dict[str, Any]]


def load(module: str) -> Any:
    """Imports an SDK, which need not be installed where the types are checked."""
    return importlib.import_module(module)


def is_installed(module: str) -> bool:
    """Returns whether Python finds a module."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def simulate(fault: str) -> dict[str, str]:
    """Returns the header that selects what the simulator plays."""
    return {"x-simulate": fault}


def text_of(chunks: Any) -> str:
    """Returns the content of a stream of chunks in OpenAI's format."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def code_of(error: Any) -> Any:
    """Returns the code, or else the type, of an error in OpenAI's format."""
    body = getattr(error, "body", None)
    body = body.get("error", body) if isinstance(body, dict) else {}
    return body.get("code") or body.get("type")


class Sdk:
    """One SDK, or one service that it is a client of."""

    def __init__(self, checks: Checks, name: str) -> None:
        """Remembers the name, which begins those of the checks."""
        self.checks, self.name = checks, name

    def equal(self, name: str, expected: Any, call: Callable[[], Any]) -> None:
        """Checks what a call returns."""
        try:
            found = call()
        except Exception as error:
            found = f"{type(error).__name__}: {str(error)[:300]}"
        wrong = [] if found == expected else [f"{found!r}, not {expected!r}"]
        self.checks.report(f"{self.name}::{name}", wrong)

    def raises(
        self, name: str, exception: str, members: dict[str, Any], call: Callable[[], Any]
    ) -> None:
        """Checks what a call raises: the exception's name and members; `code` is the body's."""
        try:
            wrong = [f"returned {call()!r:.300}, and raised no {exception}"]
        except Exception as error:
            wrong = []
            if type(error).__name__ != exception:
                wrong.append(f"raised {type(error).__name__}, not {exception}: {str(error)[:300]}")
            for member, value in members.items():
                found = getattr(error, member, None)
                if member == "code" and value not in (found, code_of(error)):
                    wrong.append(f"code is {found!r} or {code_of(error)!r}, not {value!r}")
                elif member != "code" and found != value:
                    wrong.append(f"{member} is {found!r}, not {value!r}")
        self.checks.report(f"{self.name}::{name}", wrong)

    def refusals(self, rows: list[Refusal], call: Callable[[str], Any]) -> None:
        """Checks what a call raises for each fault that the simulator plays."""
        for fault, exception, members in rows:
            name = fault.replace("; variant=", "_").split(";")[0]
            self.raises(f"reports_{name}", exception, members, functools.partial(call, fault))
