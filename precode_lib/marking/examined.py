"""The notebook's side of an examination: hand over the answers, serve their functions.

While `precode grade` runs a notebook, a check does not judge here, where a learner's
code could reach it. It sends the answers to an examiner in another process, calls the
learner's functions on the inputs that come back, and prints the verdict. What happens
on this side is at the mercy of the notebook, so nothing on this side decides anything.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .frames import BrokenOffError, receive, send
from .plain import UnplainError, dump
from .verdicts import Verdict, describe_error

LONGEST = 4000  # characters of an error's description


def ask(name: str, answers: tuple, address: str) -> Verdict:
    """What the examiner at the address of a Unix socket says of the answers."""
    functions = [answer for answer in answers if callable(answer)]
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            send(connection, {"ask": name, "answers": [*map(_described, answers)]})
            return _serve(name, connection, functions)
    except (OSError, BrokenOffError, UnplainError) as problem:
        message = f"the examiner broke off: {problem}."
        return Verdict(name, "raised", message, "unjudged")


def _described(answer: Any) -> dict[str, Any]:
    return {"function": True} if callable(answer) else _or_reason(answer, "plain")


def _or_reason(value: Any, key: str) -> dict[str, Any]:
    """The value under the key; or, where it is no plain data, why it is not."""
    with suppress(RecursionError):
        try:
            dump(value)
        except UnplainError as problem:
            return {"unplain": str(problem)[:LONGEST]}
        return {key: value}
    return {"unplain": "it is nested too deeply"}


def _serve(
    name: str, connection: socket.socket, functions: list[Callable[..., Any]]
) -> Verdict:
    while True:
        message = receive(connection)
        if "verdict" in message:
            return Verdict(name, message["verdict"], message["message"])
        try:
            output = functions[message["call"]](*message["inputs"])
        except Exception as error:
            send(connection, {"raised": describe_error(error)[:LONGEST]})
        else:
            send(connection, _or_reason(output, "output"))
