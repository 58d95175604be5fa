// Channels to the gateway, with the caller's identity.

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";

import {
  type CallOptions,
  Channel,
  type ChannelCredentials,
  type ClientUnaryCall,
  Metadata,
  type ServiceError,
  compressionAlgorithms,
  credentials,
} from "@grpc/grpc-js";

/** Who calls, and whom the caller trusts. Paths are of PEM files. */
export interface Identity {
  /** Sent as the header x-tenant-id. Only where something in front checks it. */
  tenant?: string | undefined;
  /** Holds a bearer token. It is read anew for each call, since it is rotated. */
  tokenFile?: string | undefined;
  /** The CAs of the gateway's certificate. They switch TLS on. */
  ca?: string | undefined;
  /** A client certificate. */
  cert?: string | undefined;
  /** The certificate's key. */
  key?: string | undefined;
}

/** Opens a channel. One channel serves a whole process: share it. */
export function openChannel(
  target: string,
  identity: Identity,
  serviceConfig: string,
  gzip = false,
): Channel {
  return new Channel(target, channelCredentials(identity), {
    "grpc.service_config": serviceConfig,
    "grpc.default_compression_algorithm": gzip
      ? compressionAlgorithms.gzip
      : compressionAlgorithms.identity,
  });
}

/**
 * The metadata of one call. Over TLS the channel's call credentials send the token. They cannot be
 * composed with a plaintext channel, so in a mesh, which encrypts by itself, the token goes here.
 */
export async function metadataOf(identity: Identity): Promise<Metadata> {
  const metadata = new Metadata();
  if (identity.tokenFile && !identity.ca) {
    metadata.set("authorization", await bearer(identity.tokenFile));
  } else if (identity.tenant) {
    metadata.set("x-tenant-id", identity.tenant);
  }
  return metadata;
}

/** An answer, with the metadata that an OK has in its headers: x-request-id and ratelimit-*. */
export interface Answer<Response> {
  response: Response;
  headers: Metadata;
}

type Unary<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall;

/**
 * Makes one call within the timeout, until the signal gives it up. The request must have a
 * client_token, so that the library's retries, and the caller's own, are safe.
 */
export function call<Request, Response>(
  method: Unary<Request, Response>,
  request: Request,
  metadata: Metadata,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<Answer<Response>> {
  return new Promise((resolve, reject) => {
    let headers = new Metadata();
    const options = { deadline: Date.now() + timeoutMs };
    const running = method(request, metadata, options, (error, response) => {
      signal?.removeEventListener("abort", cancel);
      if (error) {
        reject(error);
      } else {
        resolve({ response, headers });
      }
    });
    const cancel = (): void => {
      running.cancel();
    };
    running.on("metadata", (received) => (headers = received));
    if (signal?.aborted) {
      cancel();
    } else {
      signal?.addEventListener("abort", cancel, { once: true });
    }
  });
}

function channelCredentials(identity: Identity): ChannelCredentials {
  if (!identity.ca) {
    return credentials.createInsecure();
  }
  const transport = credentials.createSsl(
    readFileSync(identity.ca),
    identity.key ? readFileSync(identity.key) : null,
    identity.cert ? readFileSync(identity.cert) : null,
  );
  const { tokenFile } = identity;
  if (!tokenFile) {
    return transport;
  }
  const generator = credentials.createFromMetadataGenerator((_, callback) => {
    bearer(tokenFile).then(
      (value) => {
        const metadata = new Metadata();
        metadata.set("authorization", value);
        callback(null, metadata);
      },
      (error: unknown) => {
        callback(error instanceof Error ? error : new Error(String(error)));
      },
    );
  });
  return credentials.combineChannelCredentials(transport, generator);
}

async function bearer(file: string): Promise<string> {
  return `Bearer ${(await readFile(file, "utf8")).trim()}`;
}
