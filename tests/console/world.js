// What stands behind the page: the program, a Redis, a simulated Amazon Connect, and callers.

import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const PROGRAM = process.env.PARTICIPANT_GATEWAY;
const METHOD = "participantgateway.v1.ParticipantService/CreateParticipant";
const PATIENCE_MS = 30_000;

/** A port that is free now. */
async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Waits until `happened` returns something true, and returns that. */
export async function until(what, happened) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await happened();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${PATIENCE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A program that runs, and the lines that it has printed. */
class Running {
  constructor(command, args, options = {}) {
    this.lines = [];
    this.child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], ...options });
    let rest = "";
    this.child.stdout.on("data", (data) => {
      const lines = (rest + data).split("\n");
      rest = lines.pop();
      this.lines.push(...lines);
    });
    this.ended = new Promise((resolve) => this.child.on("exit", resolve));
  }

  line(text) {
    return until(`a line with ${text}`, () => this.lines.find((line) => line.includes(text)));
  }

  async end(signal = "SIGKILL") {
    this.child.kill(signal);
    await this.ended;
  }
}

/** A gateway over Redis and a simulated Connect, with callers that keep calling. */
export class World {
  static async start() {
    const world = new World();
    world.folder = mkdtempSync(join(tmpdir(), "console-"));
    world.redisPort = await freePort();
    await world.startRedis();
    world.connect = new Running(PROGRAM, ["simulate", "--listen", "127.0.0.1:0", "--latency", "40ms", "--rate", "9/s", "--burst", "20"]);
    const exported = async (name) => (await world.connect.line(`export ${name}=`)).split("=")[1];
    const env = { ...process.env };
    for (const name of ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_CONNECT"]) env[name] = await exported(name);
    const key = join(world.folder, "root-key");
    writeFileSync(key, (await run(PROGRAM, ["keygen"])).stdout);
    const tenant = (rate, burst, more = {}) => ({ instances: ["*"], rate, burst, ...more });
    const config = {
      server: { listen: "127.0.0.1:0" },
      admin: { listen: "127.0.0.1:0" },
      identity: { mode: "header" },
      tenants: {
        "chat-bots": tenant("20/s", 40, { committed: "2/s" }),
        "voice-ivr": tenant("5/s", 10, { committed: "1/s" }),
        "night-batch": tenant("12/m", 2),
        "new-team": tenant("1/s", 2, { enforcement: "shadow" }),
      },
      upstreams: {
        "us-main": { region: "us-east-1", instances: ["*"], rate: "8/s", burst: 20, max_wait: "200ms" },
      },
      store: { kind: "redis", redis: { urls: [`redis://127.0.0.1:${world.redisPort}`] }, replicas: 3 },
      idempotency: { root_key_file: key },
    };
    world.configFile = join(world.folder, "config.yaml");
    writeFileSync(world.configFile, JSON.stringify(config));
    world.config = config;
    world.gateway = new Running(PROGRAM, ["serve", "--config", world.configFile], { env });
    const ready = JSON.parse(await world.gateway.line('"ready"'));
    world.address = ready.address;
    world.page = `http://${ready.admin_address}/`;
    return world;
  }

  async startRedis() {
    this.redis = new Running("redis-server", ["--port", String(this.redisPort), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", this.folder]);
    await this.redis.line("Ready to accept connections");
  }

  /** One call: what grpcurl printed. */
  async call(tenant, contact, { token = "", id, name = "Bot" } = {}) {
    const message = {
      instance_id: "instance-1",
      contact_id: contact,
      client_token: token,
      participant_details: { participant_role: "PARTICIPANT_ROLE_CUSTOM_BOT", display_name: name },
    };
    const headers = [`x-tenant-id: ${tenant}`, ...(id ? [`x-request-id: ${id}`] : [])];
    const args = ["-plaintext", ...headers.flatMap((header) => ["-H", header]), "-d", JSON.stringify(message), this.address, METHOD];
    try {
      return (await run("grpcurl", args)).stdout;
    } catch (error) {
      return String(error.stderr);
    }
  }

  /** What the tenants usually do, for a while: a few calls each second, some that fail. */
  async traffic(seconds) {
    const end = Date.now() + seconds * 1000;
    for (let round = 0; Date.now() < end; round += 1) {
      const wave = 1 + Math.round(1 + Math.sin(round / 12));
      const calls = [];
      for (let each = 0; each < wave; each += 1) calls.push(this.call("chat-bots", `contact-${round}-${each}`, { token: `bots-${round}-${each}` }));
      if (round % 2 === 0) calls.push(this.call("voice-ivr", `contact-${round}`));
      if (round % 3 === 0) calls.push(this.call("night-batch", `contact-${round}`));
      if (round % 4 === 0) calls.push(this.call("new-team", `contact-${round}`));
      if (round % 7 === 0) calls.push(this.call("chat-bots", `contact-${round}-0`, { token: `bots-${round}-0` }));
      if (round % 23 === 11) calls.push(this.call("voice-ivr", "sim-not-found"));
      await Promise.all(calls);
      await new Promise((resolve) => setTimeout(resolve, 400));
    }
  }

  /** More than Connect's quota, and the gateway is told that there is more of it. */
  async throttled() {
    this.config.upstreams["us-main"].rate = "40/s";
    writeFileSync(this.configFile, JSON.stringify(this.config));
    await this.gateway.line('"config reloaded"');
    for (let round = 0; round < 8; round += 1) {
      await Promise.all(Array.from({ length: 12 }, (_, each) => this.call("chat-bots", `rush-${round}-${each}`)));
    }
  }

  async end() {
    await this.gateway?.end();
    await this.connect?.end();
    await this.redis?.end();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
