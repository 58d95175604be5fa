// What a caller does about an error.

import { type ServiceError, status } from "@grpc/grpc-js";

import { BadRequest, ErrorInfo, RequestInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

/**
 * - `slow_down`: a limit refused the call. Start no new calls for the delay, then repeat this one.
 * - `retry_after`: repeat the call after the delay, with the same client_token.
 * - `new_token`: fetch a new bearer token, then repeat the call with the same client_token.
 * - `never`: a repeat would fail alike. Report the reason and the request id.
 */
export type Action = "slow_down" | "retry_after" | "new_token" | "never";

/** An error as a caller sees it. */
export interface Verdict {
  action: Action;
  /** Milliseconds; it goes with `slow_down` and `retry_after`. */
  delayMs: number;
  /** The code's name as gRPC's specification writes it. */
  code: string;
  /** The gateway's; empty where the status is the library's own. */
  reason: string;
  requestId: string;
  /** The fields that break a rule. */
  fields: string[];
}

/** Reads an error of a call that had a client_token. */
export function judge(error: ServiceError): Verdict {
  const { info, retry, request, violations } = details(error);
  const reason = info?.reason ?? "";
  const refusal = info?.metadata.refusal ?? "";
  const verdict: Verdict = {
    action: "never",
    delayMs: 0,
    code: status[error.code],
    reason,
    requestId: request?.requestId ?? "",
    fields: violations?.fieldViolations.map((violation) => violation.field) ?? [],
  };
  if (retry) {
    verdict.action = error.code === status.RESOURCE_EXHAUSTED ? "slow_down" : "retry_after";
    const { seconds = 0, nanos = 0 } = retry.retryDelay ?? {};
    verdict.delayMs = seconds * 1000 + Math.ceil(nanos / 1e6);
  } else if (refusal === "expired" || refusal === "not_yet_valid") {
    verdict.action = "new_token";
  } else if (reason === "" && PASSING.has(error.code)) {
    verdict.action = "retry_after";
    verdict.delayMs = UNHINTED_MS;
  }
  return verdict;
}

interface Details {
  info?: ErrorInfo;
  retry?: RetryInfo;
  request?: RequestInfo;
  violations?: BadRequest;
}

function details(error: ServiceError): Details {
  const found: Details = {};
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  if (!Buffer.isBuffer(bytes)) {
    return found;
  }
  for (const { typeUrl, value } of Status.decode(bytes).details) {
    switch (typeUrl) {
      case "type.googleapis.com/google.rpc.ErrorInfo":
        found.info = ErrorInfo.decode(value);
        break;
      case "type.googleapis.com/google.rpc.RetryInfo":
        found.retry = RetryInfo.decode(value);
        break;
      case "type.googleapis.com/google.rpc.RequestInfo":
        found.request = RequestInfo.decode(value);
        break;
      case "type.googleapis.com/google.rpc.BadRequest":
        found.violations = BadRequest.decode(value);
        break;
    }
  }
  return found;
}

/** The delay where the error names none: the gateway was not reached. */
const UNHINTED_MS = 1000;

/** The library's own statuses that a repeat may mend. */
const PASSING = new Set([status.UNAVAILABLE, status.DEADLINE_EXCEEDED]);
