package com.example.callers;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Set;

/**
 * An error as a caller sees it.
 *
 * @param delay goes with SLOW_DOWN and RETRY_AFTER.
 * @param reason is the gateway's; empty where the status is the library's own.
 * @param fields are those that break a rule.
 */
record Verdict(
    Action action,
    Duration delay,
    Status.Code code,
    String reason,
    String requestId,
    List<String> fields) {

  /** What a caller does about an error. */
  enum Action {
    /** A limit refused the call. Start no new calls for the delay, then repeat this one. */
    SLOW_DOWN,
    /** Repeat the call after the delay, with the same client_token. */
    RETRY_AFTER,
    /** Fetch a new bearer token, then repeat the call with the same client_token. */
    NEW_TOKEN,
    /** A repeat would fail alike. Report the reason and the request id. */
    NEVER
  }

  /** The delay where the error names none: the gateway was not reached. */
  private static final Duration UNHINTED = Duration.ofSeconds(1);

  /** The library's own statuses that a repeat may mend. */
  private static final Set<Status.Code> PASSING =
      Set.of(Status.Code.UNAVAILABLE, Status.Code.DEADLINE_EXCEEDED);

  /** Reads an error of a call that had a client_token. */
  static Verdict of(Throwable error) {
    var info = ErrorInfo.getDefaultInstance();
    var request = RequestInfo.getDefaultInstance();
    var violations = BadRequest.getDefaultInstance();
    RetryInfo retry = null;
    try {
      for (Any detail : details(error)) {
        if (detail.is(ErrorInfo.class)) {
          info = detail.unpack(ErrorInfo.class);
        } else if (detail.is(RequestInfo.class)) {
          request = detail.unpack(RequestInfo.class);
        } else if (detail.is(BadRequest.class)) {
          violations = detail.unpack(BadRequest.class);
        } else if (detail.is(RetryInfo.class)) {
          retry = detail.unpack(RetryInfo.class);
        }
      }
    } catch (InvalidProtocolBufferException unreadable) {
      // Details are an addition to the code, which decides alone then.
    }

    var code = Status.fromThrowable(error).getCode();
    var refusal = info.getMetadataOrDefault("refusal", "");
    var action = Action.NEVER;
    var delay = Duration.ZERO;
    if (retry != null) {
      action = code == Status.Code.RESOURCE_EXHAUSTED ? Action.SLOW_DOWN : Action.RETRY_AFTER;
      var hint = retry.getRetryDelay();
      delay = Duration.ofSeconds(hint.getSeconds(), hint.getNanos());
    } else if (refusal.equals("expired") || refusal.equals("not_yet_valid")) {
      action = Action.NEW_TOKEN;
    } else if (info.getReason().isEmpty() && PASSING.contains(code)) {
      action = Action.RETRY_AFTER;
      delay = UNHINTED;
    }
    var fields =
        violations.getFieldViolationsList().stream()
            .map(BadRequest.FieldViolation::getField)
            .toList();
    return new Verdict(action, delay, code, info.getReason(), request.getRequestId(), fields);
  }

  private static List<Any> details(Throwable error) {
    var status = StatusProto.fromThrowable(error);
    return status == null ? List.of() : status.getDetailsList();
  }
}
