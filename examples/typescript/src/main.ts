// Creates participants, reads quotas and checks health. Prints a line of JSON for each call.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

import { type Channel, type Metadata, type ServiceError, credentials } from "@grpc/grpc-js";

import { type Identity, call, metadataOf, openChannel } from "./channel.js";
import { HealthClient, healthCheckResponse_ServingStatusToJSON } from "./gen/health/v1/health.js";
import {
  CreateParticipantRequest,
  ParticipantServiceClient,
  participantRoleFromJSON,
} from "./gen/participantgateway/v1/participant_service.js";
import { QuotaServiceClient } from "./gen/participantgateway/v1/quota_service.js";
import { judge } from "./verdict.js";

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    target: { type: "string", default: "127.0.0.1:50051" },
    "service-config": { type: "string", default: "../service-config.json" },
    tenant: { type: "string" },
    "token-file": { type: "string" },
    ca: { type: "string" },
    cert: { type: "string" },
    key: { type: "string" },
    instance: { type: "string", default: "demo" },
    contact: { type: "string", default: "contact-1" },
    role: { type: "string", default: "CUSTOM_BOT" },
    name: { type: "string", default: "Bot" },
    "client-token": { type: "string" },
    service: { type: "string", default: "" },
    "timeout-ms": { type: "string", default: "5000" },
    "every-ms": { type: "string", default: "0" },
    "cancel-after-ms": { type: "string", default: "0" },
    calls: { type: "string", default: "1" },
    gzip: { type: "boolean", default: false },
  },
});

// The idempotency key. A repeat of a call must have the same.
const clientToken = args["client-token"] ?? randomUUID();
const calls = Number(args.calls);
const timeoutMs = Number(args["timeout-ms"]);
const identity: Identity = {
  tenant: args.tenant,
  tokenFile: args["token-file"],
  ca: args.ca,
  cert: args.cert,
  key: args.key,
};

type Line = Record<string, unknown>;

async function createAll(channel: Channel): Promise<void> {
  const client = new ParticipantServiceClient("", credentials.createInsecure(), {
    channelOverride: channel,
  });
  const cancelAfterMs = Number(args["cancel-after-ms"]);
  const signal = cancelAfterMs > 0 ? AbortSignal.timeout(cancelAfterMs) : undefined;
  const running: Promise<Line>[] = [];
  for (let number = 0; number < calls; number++) {
    running.push(create(client, number, signal));
    await sleep(Number(args["every-ms"]));
  }
  for (const line of await Promise.all(running)) {
    emit(line);
  }
}

async function create(
  client: ParticipantServiceClient,
  number: number,
  signal?: AbortSignal,
): Promise<Line> {
  const request = CreateParticipantRequest.fromPartial({
    instanceId: args.instance,
    contactId: args.contact,
    clientToken: calls > 1 ? `${clientToken}-${number.toString()}` : clientToken,
    participantDetails: {
      participantRole: participantRoleFromJSON(`PARTICIPANT_ROLE_${args.role}`),
      displayName: args.name,
    },
  });
  const method = client.createParticipant.bind(client);
  const metadata = await metadataOf(identity);
  try {
    const { response, headers } = await call(method, request, metadata, timeoutMs, signal);
    return {
      call: number,
      verdict: "done",
      participant_id: response.participantId,
      replayed: response.replayed,
      request_id: headers.get("x-request-id").join(""),
      remaining: remaining(headers),
    };
  } catch (error) {
    return { call: number, ...judged(error) };
  }
}

async function quota(channel: Channel): Promise<Line> {
  const client = new QuotaServiceClient("", credentials.createInsecure(), {
    channelOverride: channel,
  });
  const method = client.getQuota.bind(client);
  const request = { instanceId: args.instance };
  const { response } = await call(method, request, await metadataOf(identity), timeoutMs);
  return {
    verdict: "done",
    rate_per_second: response.ratePerSecond,
    burst: response.burst,
    remaining: response.remaining,
    in_flight_limit: response.inFlightLimit,
  };
}

async function health(channel: Channel): Promise<Line> {
  const client = new HealthClient("", credentials.createInsecure(), { channelOverride: channel });
  const method = client.check.bind(client);
  const request = { service: args.service };
  const { response } = await call(method, request, await metadataOf(identity), timeoutMs);
  return { verdict: "done", health: healthCheckResponse_ServingStatusToJSON(response.status) };
}

function judged(error: unknown): Line {
  const failed = error as ServiceError;
  const { action, delayMs, code, reason, requestId, fields } = judge(failed);
  return {
    verdict: action,
    delay_ms: delayMs,
    code,
    reason,
    request_id: requestId,
    fields,
    message: failed.details,
    // An error has its metadata in the trailers.
    remaining: remaining(failed.metadata),
  };
}

/** The calls that the tenant's rate admits now. */
function remaining(metadata: Metadata): number | null {
  const [value] = metadata.get("ratelimit-remaining");
  return value === undefined ? null : Number(value);
}

function emit(line: Line): void {
  console.log(JSON.stringify(line));
}

const serviceConfig = readFileSync(args["service-config"], "utf8");
const channel = openChannel(args.target, identity, serviceConfig, args.gzip);
switch (positionals[0]) {
  case "create":
    await createAll(channel);
    break;
  case "quota":
    emit(await quota(channel).catch(judged));
    break;
  case "health":
    emit(await health(channel).catch(judged));
    break;
  default:
    console.error("usage: create|quota|health [flags]");
    process.exitCode = 64;
}
channel.close();
