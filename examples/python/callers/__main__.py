"""Creates participants, reads quotas and checks health. Prints a line of JSON for each call."""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from callers import Identity, aio_channel, channel, judge
from participantgateway.v1 import (
    participant_service_pb2,
    participant_service_pb2_grpc,
    quota_service_pb2,
    quota_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

Line = dict[str, Any]


def main() -> None:
    """Run one command."""
    args = _parser().parse_args()
    identity = Identity(args.tenant, args.token_file, args.ca, args.cert, args.key)
    config = args.service_config.read_text()
    if args.command == "create" and args.aio:
        asyncio.run(_create_all_aio(args, identity, config))
        return
    with channel(args.target, identity, config) as open_channel:
        if args.command == "create":
            _create_all(args, identity, open_channel)
        elif args.command == "quota":
            _quota(args, identity, open_channel)
        else:
            _health(args, open_channel)


def _create_all(args: argparse.Namespace, identity: Identity, open_channel: grpc.Channel) -> None:
    stub = participant_service_pb2_grpc.ParticipantServiceStub(open_channel)

    def create(number: int) -> Line:
        call = stub.CreateParticipant.future(
            _request(args, number),
            timeout=args.timeout_ms / 1000,
            metadata=identity.metadata(),
            compression=_compression(args),
        )
        if args.cancel_after_ms:
            threading.Timer(args.cancel_after_ms / 1000, call.cancel).start()
        try:
            answer = call.result()
            return _done(number, answer, call.initial_metadata())
        except grpc.FutureCancelledError:
            return {"call": number, "verdict": "never", "code": "CANCELLED", "reason": ""}
        except grpc.RpcError as error:
            return _failed(number, error)

    with ThreadPoolExecutor(args.calls) as pool:
        running = []
        for number in range(args.calls):
            running.append(pool.submit(create, number))
            time.sleep(args.every_ms / 1000)
        for call in running:
            _emit(call.result())


async def _create_all_aio(args: argparse.Namespace, identity: Identity, config: str) -> None:
    async with aio_channel(args.target, identity, config) as open_channel:
        stub = participant_service_pb2_grpc.ParticipantServiceStub(open_channel)

        async def create(number: int) -> None:
            call = stub.CreateParticipant(
                _request(args, number),
                timeout=args.timeout_ms / 1000,
                metadata=identity.metadata(),
                compression=_compression(args),
            )
            if args.cancel_after_ms:
                asyncio.get_running_loop().call_later(args.cancel_after_ms / 1000, call.cancel)
            try:
                answer = await call
                _emit(_done(number, answer, await call.initial_metadata()))
            except asyncio.CancelledError:
                _emit({"call": number, "verdict": "never", "code": "CANCELLED", "reason": ""})
            except grpc.RpcError as error:
                _emit(_failed(number, error))

        async with asyncio.TaskGroup() as calls:
            for number in range(args.calls):
                calls.create_task(create(number))
                await asyncio.sleep(args.every_ms / 1000)


def _quota(args: argparse.Namespace, identity: Identity, open_channel: grpc.Channel) -> None:
    stub = quota_service_pb2_grpc.QuotaServiceStub(open_channel)
    request = quota_service_pb2.GetQuotaRequest(instance_id=args.instance)
    try:
        quota = stub.GetQuota(request, timeout=args.timeout_ms / 1000, metadata=identity.metadata())
    except grpc.RpcError as error:
        _emit(_failed(0, error))
        return
    _emit(
        {
            "verdict": "done",
            "rate_per_second": quota.rate_per_second,
            "burst": quota.burst,
            "remaining": quota.remaining,
            "in_flight_limit": quota.in_flight_limit,
        }
    )


def _health(args: argparse.Namespace, open_channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(open_channel)
    request = health_pb2.HealthCheckRequest(service=args.service)
    try:
        answer = stub.Check(request, timeout=args.timeout_ms / 1000, compression=_compression(args))
    except grpc.RpcError as error:
        _emit(_failed(0, error))
        return
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    _emit({"verdict": "done", "health": name})


def _request(
    args: argparse.Namespace, number: int
) -> participant_service_pb2.CreateParticipantRequest:
    return participant_service_pb2.CreateParticipantRequest(
        instance_id=args.instance,
        contact_id=args.contact,
        # The idempotency key of this one call. A repeat of the call must have the same.
        client_token=f"{args.client_token}-{number}" if args.calls > 1 else args.client_token,
        participant_details=participant_service_pb2.ParticipantDetails(
            participant_role=f"PARTICIPANT_ROLE_{args.role}", display_name=args.name
        ),
    )


def _done(
    number: int,
    answer: participant_service_pb2.CreateParticipantResponse,
    header: Iterable[Any],
) -> Line:
    return {
        "call": number,
        "verdict": "done",
        "participant_id": answer.participant_id,
        "replayed": answer.replayed,
        "request_id": dict(header).get("x-request-id"),
        "remaining": _remaining(header),
    }


def _failed(number: int, error: grpc.RpcError) -> Line:
    verdict = judge(error)
    return {
        "call": number,
        "verdict": verdict.action,
        "delay_ms": round(verdict.delay * 1000),
        "code": verdict.code.name,
        "reason": verdict.reason,
        "request_id": verdict.request_id,
        "fields": verdict.fields,
        "message": error.details(),
        # An error has its metadata in the trailers.
        "remaining": _remaining(error.trailing_metadata() or ()),
    }


def _remaining(metadata: Iterable[Any]) -> int | None:
    """Return the calls that the tenant's rate admits now."""
    text = dict(metadata).get("ratelimit-remaining")
    return None if text is None else int(text)


def _compression(args: argparse.Namespace) -> grpc.Compression:
    return grpc.Compression.Gzip if args.gzip else grpc.Compression.NoCompression


def _emit(line: Line) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - the answer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="callers", description=__doc__)
    parser.add_argument("command", choices=("create", "quota", "health"))
    parser.add_argument("--target", default="127.0.0.1:50051", help="the gateway")
    parser.add_argument(
        "--service-config", type=Path, default="../service-config.json", help="the shared file"
    )
    parser.add_argument("--tenant", help="identity by header")
    parser.add_argument("--token-file", type=Path, help="identity by bearer token")
    parser.add_argument("--ca", type=Path, help="CAs of the gateway: TLS")
    parser.add_argument("--cert", type=Path, help="identity by client certificate")
    parser.add_argument("--key", type=Path, help="the certificate's key")
    parser.add_argument("--instance", default="demo", help="the Connect instance")
    parser.add_argument("--contact", default="contact-1", help="the contact")
    parser.add_argument("--role", default="CUSTOM_BOT", choices=("CUSTOM_BOT", "CUSTOMER"))
    parser.add_argument("--name", default="Bot", help="the display name")
    parser.add_argument("--client-token", default=str(uuid.uuid4()), help="the idempotency key")
    parser.add_argument("--service", default="", help="whose health; absent: the whole gateway's")
    parser.add_argument("--timeout-ms", type=int, default=5000, help="a call's deadline")
    parser.add_argument("--every-ms", type=int, default=0, help="the time between two starts")
    parser.add_argument("--cancel-after-ms", type=int, default=0, help="give the calls up then")
    parser.add_argument("--calls", type=int, default=1, help="how many calls")
    parser.add_argument("--gzip", action="store_true", help="compress the requests")
    parser.add_argument("--aio", action="store_true", help="use grpc.aio")
    return parser


if __name__ == "__main__":
    main()
