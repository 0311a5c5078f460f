// Against a real service with its sandbox, which scripts/test-client-libraries starts.
import { beforeAll, describe, expect, it } from "vitest";
import { Strongroom, StrongroomProblem } from "../src/index.js";

const { STRONGROOM_URL: baseUrl, SANDBOX_URL: sandbox, CLIENT_ID: clientId, CLIENT_SECRET: clientSecret } = process.env;

async function control(path: string, body: object | undefined, method = "POST"): Promise<Record<string, unknown>> {
  const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
  return (await (await fetch(`${sandbox}/sandbox/${path}`, init)).json()) as Record<string, unknown>;
}

// Each run has users of its own, so that it can be repeated.
const RUN = Date.now().toString(36);
const LISTER = `ts-lister-${RUN}`;
let n = 0;
async function linked(more: object = {}) {
  n += 1;
  return (await control("connect", { clientUserID: `ts-${RUN}-${n}`, ...more })) as never;
}

describe.skipIf(!baseUrl)("against the service", () => {
  let client: Strongroom;
  beforeAll(() => {
    client = new Strongroom({ baseUrl: baseUrl!, clientId: clientId!, clientSecret: clientSecret! });
  });

  async function connected(user: string) {
    return client.createConnection({ ...(await linked()) as object, clientUserID: user } as never);
  }

  it("connects by a session, reads, calls Dapi and delinks", async () => {
    const session = await client.createConnectSession({ clientUserID: "ts-ada" });
    const page = new Strongroom({ baseUrl: baseUrl!, session });
    const result = await linked();
    const made = await page.createConnection(result);
    expect(made).toMatchObject({ status: "active", clientUserID: "ts-ada" });
    expect((await page.createConnection(result)).id).toBe(made.id);
    expect((await page.waitForConnection(made.id)).status).toBe("active");

    const accounts = await client.callDapi<{ accounts: unknown[] }>(made.id, "data/accounts/get");
    expect([accounts.ok, accounts.body.accounts.length > 0]).toEqual([true, true]);
    const refused = await client.callDapi(made.id, "data/balance/get", { accountID: "unknown" });
    expect([refused.status, refused.body["type"]]).toEqual([404, "INVALID_ACCOUNT_ID"]);
    const token = await client.revealToken(made.id, { reason: "a test" });
    expect(token.accessToken.length).toBeGreaterThan(10);

    expect((await client.delinkConnection(made.id)).status).toBe("delinked");
    expect((await client.delinkConnection(made.id)).status).toBe("delinked");
    const after = await client.callDapi(made.id, "data/accounts/get").catch((error: unknown) => error);
    expect(after).toBeInstanceOf(StrongroomProblem);
    expect(after).toMatchObject({ code: "connection_not_active", members: { connectionStatus: "delinked" } });
  });

  it("lists over pages", async () => {
    const made = [];
    for (let i = 0; i < 3; i += 1) made.push((await connected(LISTER)).id);
    const found = [];
    for await (const { id } of client.listConnections({ clientUserID: LISTER, limit: 2 })) found.push(id);
    expect(found).toEqual(made.reverse());
    expect((await client.listConnections({ clientUserID: LISTER, limit: 2 })).connections).toHaveLength(2);
  });

  it("knows refusals by their codes", async () => {
    const failed = await linked({ success: false });
    await expect(client.createConnection({ ...(failed as object), clientUserID: "x" } as never)).rejects.toMatchObject({
      code: expect.stringMatching(/connect_failed|invalid_request/),
    });
    await expect(client.getConnection("conn_01a1fe64-61ad-7560-a615-31f381b4a65e")).rejects.toMatchObject({
      code: "not_found",
      status: 404,
    });
    const reader = new Strongroom({ baseUrl: baseUrl!, clientId: clientId!, clientSecret: clientSecret!, scope: "connections:read" });
    await expect(reader.createConnectSession({ clientUserID: "x" })).rejects.toMatchObject({ code: "insufficient_scope" });
    const wrong = new Strongroom({ baseUrl: baseUrl!, clientId: clientId!, clientSecret: "wrong" });
    await expect(wrong.getConnectionStats()).rejects.toMatchObject({ code: "invalid_client", status: 401 });
  });

  it("waits for a connection whose exchange got no answer at first", async () => {
    const result = (await linked()) as { connectionID: string };
    const fault = { effect: "drop", path: "auth/ExchangeToken", when: "before", times: 1, connectionID: result.connectionID };
    await control("faults", fault);
    const made = await client.createConnection({ ...result, clientUserID: "ts-wait" } as never);
    const ended = made.status === "pending" ? await client.waitForConnection(made.id, { interval: 300 }) : made;
    expect(ended.status).toBe("active");
  });

  it("administers: a client, its secrets, upstreams, stats, audit", async () => {
    const made = await client.createClient({ name: "ts", scopes: ["connections:read"] } as never);
    const other = new Strongroom({ baseUrl: baseUrl!, clientId: made.clientID, clientSecret: made.clientSecret });
    expect((await other.listConnections({ limit: 1 })).connections.length).toBeLessThan(2);
    const second = await client.createClientSecret(made.clientID);
    expect(second.clientSecret).not.toBe(made.clientSecret);
    await client.deleteClient(made.clientID);

    const name = `ts-plain-${RUN}`;
    await client.createUpstream({
      name, clientID: "sandbox-client", clientSecret: "sandbox-client-secret",
      tokenURL: `${sandbox}/oauth/v2/token`, baseURL: `${sandbox}/oauth/v2/api`,
    } as never);
    expect((await client.getUpstreamToken(name)).token_type).toBe("Bearer");
    const answer = await client.getThroughUpstream(name, "things", { query: { page: 1 } });
    expect(answer.headers.get("strongroom-upstream")).not.toBeNull();
    const names = [];
    for await (const upstream of client.listUpstreams()) names.push(upstream.name);
    expect(names).toContain(name);
    await client.deleteUpstream(name);

    expect(await client.getConnectionStats()).toBeTypeOf("object");
    const page = await client.listAuditEvents({ limit: 5 });
    expect(page.events).toHaveLength(5);
  });

  it("erases a user, and revokes many", async () => {
    await connected(`ts-erased-${RUN}`);
    const receipt = await client.eraseUser(`ts-erased-${RUN}`);
    if ("approval" in receipt) throw new Error("nothing waits for a second person here");
    expect((await client.getErasure(receipt.id)).id).toBe(receipt.id);
    const { id } = await connected(`ts-many-${RUN}`);
    const request = { kind: "invalidate" as const, reason: "a test", filter: { clientUserIDs: [`ts-many-${RUN}`] } };
    const revocation = await client.createRevocation(request);
    expect(revocation).toHaveProperty("id");
    const ended = await client.waitForConnection(id, { until: ({ status }) => status !== "active", interval: 50 });
    expect(["revoking", "invalidated"]).toContain(ended.status);
  });
});
