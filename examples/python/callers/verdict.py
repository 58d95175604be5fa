"""What a caller does about an error."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

UNHINTED = 1.0
"""The delay in seconds where the error names none: the gateway was not reached."""


class Action(StrEnum):
    """What to do."""

    SLOW_DOWN = "slow_down"
    """A limit refused the call. Start no new calls for the delay, then repeat this one."""
    RETRY_AFTER = "retry_after"
    """Repeat the call after the delay, with the same client_token."""
    NEW_TOKEN = "new_token"  # noqa: S105 - the name of an action
    """Fetch a new bearer token, then repeat the call with the same client_token."""
    NEVER = "never"
    """A repeat would fail alike. Report the reason and the request id."""


@dataclass(frozen=True)
class Verdict:
    """An error as a caller sees it."""

    action: Action
    delay: float
    """Seconds; it goes with SLOW_DOWN and RETRY_AFTER."""
    code: grpc.StatusCode
    reason: str
    """The gateway's; empty where the status is the library's own."""
    request_id: str
    fields: tuple[str, ...]
    """The fields that break a rule."""


def judge(error: grpc.RpcError) -> Verdict:
    """Read an error of a call that had a client_token."""
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.RequestInfo()
    violations = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    # What is raised is a call, too; the annotations do not say so.
    call = cast("grpc.Call", error)
    status = rpc_status.from_call(call)
    is_hinted = False
    for detail in status.details if status else ():
        detail.Unpack(info)
        detail.Unpack(request)
        detail.Unpack(violations)
        is_hinted = detail.Unpack(retry) or is_hinted

    code = call.code()
    action, delay = Action.NEVER, 0.0
    if is_hinted:
        is_limit = code is grpc.StatusCode.RESOURCE_EXHAUSTED
        action = Action.SLOW_DOWN if is_limit else Action.RETRY_AFTER
        delay = retry.retry_delay.ToTimedelta().total_seconds()
    elif info.metadata.get("refusal") in {"expired", "not_yet_valid"}:
        action = Action.NEW_TOKEN
    elif not info.reason and code in _PASSING:
        action, delay = Action.RETRY_AFTER, UNHINTED
    fields = tuple(violation.field for violation in violations.field_violations)
    return Verdict(action, delay, code, info.reason, request.request_id, fields)


# The library's own statuses that a repeat may mend.
_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
