import { inspect } from "node:util";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Strongroom, StrongroomNetworkError, StrongroomProblem, StrongroomTimeoutError } from "../src/index.js";
import { dropped, half, json, problem, Script, silent } from "./server.js";

const SECRET = "a-client-secret-that-must-not-show";
const RESULT = { success: true, accessCode: "the-code", userSecret: "the-user-secret", connectionID: "login" };
const ACTIVE = { id: "conn_1", status: "active", clientUserID: "ada", connectionID: "login", createdAt: "now" };

let script: Script;
let client: Strongroom;

function made(more: object = {}): Strongroom {
  return new Strongroom({ baseUrl: script.url, clientId: "id", clientSecret: SECRET, ...more });
}

beforeEach(async () => {
  script = await Script.start();
  client = made();
  // Waits are drawn from their upper half: the shortest makes the tests quick.
  vi.spyOn(Math, "random").mockReturnValue(0);
});

afterEach(async () => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  await script.stop();
});

async function refusal(promise: PromiseLike<unknown>): Promise<StrongroomProblem> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(StrongroomProblem);
  return error as StrongroomProblem;
}

describe("the token", () => {
  it("is asked for once by many requests at once, and kept", async () => {
    script.answers(...Array.from({ length: 11 }, () => json(200, ACTIVE)));
    await Promise.all(Array.from({ length: 10 }, () => client.getConnection("conn_1")));
    await client.getConnection("conn_1");
    expect(script.tokens).toBe(1);
    expect(script.asked[0]?.headers.authorization).toBe("Bearer token-1");
  });

  it("is fetched anew before it ends", async () => {
    script.expiresIn = 100;
    script.answers(json(200, ACTIVE), json(200, ACTIVE), json(200, ACTIVE));
    const now = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(now);
    await client.getConnection("conn_1");
    clock.mockReturnValue(now + 89_000);
    await client.getConnection("conn_1");
    expect(script.tokens).toBe(1);
    clock.mockReturnValue(now + 91_000);
    await client.getConnection("conn_1");
    expect(script.tokens).toBe(2);
  });

  it("is fetched anew once after a 401, by one of all who were refused", async () => {
    const accepted = (asked: { headers: { authorization?: string } }) => asked.headers.authorization === "Bearer token-2";
    for (let n = 0; n < 11; n += 1) {
      script.answers((asked, response) => {
        (n === 0 || accepted(asked) ? json(200, ACTIVE) : problem(401, "unauthorized"))(asked, response);
      });
    }
    await client.getConnection("warm");
    await Promise.all(Array.from({ length: 5 }, () => client.getConnection("conn_1")));
    expect(script.tokens).toBe(2);
  });

  it("is not fetched a third time if the second is refused too", async () => {
    script.answers(problem(401, "unauthorized"), problem(401, "unauthorized"));
    expect((await refusal(client.getConnection("conn_1"))).code).toBe("unauthorized");
    expect(script.tokens).toBe(2);
    expect(script.asked).toHaveLength(2);
  });

  it("is not waited for by a caller who aborts, and still comes to the others", async () => {
    let release = () => undefined as void;
    script.tokenAnswers.push((_, response) => {
      release = () => json(200, { access_token: "late", token_type: "Bearer", expires_in: 60 })(_, response);
    });
    script.answers(json(200, ACTIVE));
    const controller = new AbortController();
    const first = client.getConnection("conn_1", { signal: controller.signal });
    const second = client.getConnection("conn_1");
    await vi.waitFor(() => expect(script.tokens).toBe(1));
    controller.abort(new Error("left"));
    await expect(first).rejects.toThrow("left");
    release();
    expect((await second).status).toBe("active");
    expect(script.tokens).toBe(1);
  });

  it("is asked for again after a 503, also for a call that is passed on", async () => {
    script.tokenAnswers.push(json(503, { error: "temporarily_unavailable" }));
    script.answers(json(200, { success: true }, { "strongroom-upstream": "dapi" }));
    expect((await client.callDapi("conn_1", "data/accounts/get")).ok).toBe(true);
    expect(script.tokens).toBe(2);
  });

  it("that is refused says why, as OAuth has it", async () => {
    script.tokenAnswers.push(json(401, { error: "invalid_client", error_description: "No." }));
    const error = await refusal(client.getConnection("conn_1"));
    expect([error.code, error.status, error.detail]).toEqual(["invalid_client", 401, "No."]);
  });

  it("may be a connect session's, which no credentials replace", async () => {
    const session = new Strongroom({ baseUrl: script.url, session: { token: "cs_1" } });
    script.answers(json(201, ACTIVE), problem(401, "unauthorized"));
    await session.createConnection(RESULT);
    expect(script.asked[0]?.headers.authorization).toBe("Bearer cs_1");
    expect((await refusal(session.getConnection("conn_1"))).status).toBe(401);
    expect([script.tokens, script.asked.length]).toEqual([0, 2]);
  });
});

describe("a repeat", () => {
  it.each([
    ["dropped", dropped],
    ["half an answer", half],
    ["a 503", problem(503, "unavailable", {}, { "retry-after": "0" })],
    ["a gateway's 502", (_: unknown, response: import("node:http").ServerResponse) => response.writeHead(502).end("<html>")],
  ])("follows %s for the result of a bank link", async (_, fault) => {
    script.answers(fault as never, json(201, ACTIVE));
    expect((await client.createConnection(RESULT)).status).toBe("active");
    expect(script.asked.map(({ body }) => JSON.parse(body))).toEqual([RESULT, RESULT]);
  });

  it("follows a silence, after the time for one attempt", async () => {
    script.answers(silent, json(200, ACTIVE));
    expect((await made({ timeout: 100 }).getConnection("conn_1")).id).toBe("conn_1");
  });

  it.each([409, 410, 422, 404, 400])("does not follow a %i", async (status) => {
    script.answers(problem(status, "some_code"));
    expect((await refusal(client.createConnection(RESULT))).status).toBe(status);
    expect(script.asked).toHaveLength(1);
  });

  it.each([500, 502, 504])("does not follow Strongroom's own %i", async (status) => {
    script.answers(problem(status, "upstream_failed"));
    await refusal(client.importConnection({ clientUserID: "a", connectionID: "b", accessToken: "c", userSecret: "d" }));
    expect(script.asked).toHaveLength(1);
  });

  it("waits as long as Retry-After says, seconds or a date", async () => {
    script.answers(problem(429, "too_many_requests", {}, { "retry-after": "1" }));
    script.answers((asked, response) => {
      const soon = new Date(Date.now() + 2000).toUTCString();
      problem(503, "unavailable", {}, { "retry-after": soon })(asked, response);
    }, json(200, ACTIVE));
    const began = performance.now();
    await client.getConnection("conn_1");
    expect(performance.now() - began).toBeGreaterThan(1900);
  });

  it("leaves a long Retry-After, and a 429 without one, to the caller", async () => {
    script.answers(problem(503, "unavailable", {}, { "retry-after": "3600" }), problem(429, "too_many_requests"));
    expect((await refusal(client.getConnection("conn_1"))).retryAfter).toBe(3600);
    expect((await refusal(client.createConnection(RESULT))).status).toBe(429);
    expect(script.asked).toHaveLength(2);
  });

  it("ends after as many as are allowed", async () => {
    script.answers(dropped, dropped, dropped, json(200, ACTIVE));
    await expect(client.getConnection("conn_1", { retries: 2 })).rejects.toBeInstanceOf(StrongroomNetworkError);
    expect(script.asked).toHaveLength(3);
  });

  it.each([
    ["dropped", dropped],
    ["half an answer", half],
    ["a 503", problem(503, "unavailable", {}, { "retry-after": "0" })],
    ["a gateway's 504", json(504, {})],
  ])("never follows %s of a call that is passed on", async (_, fault) => {
    script.answers(fault, json(200, {}, { "strongroom-upstream": "dapi" }));
    await expect(client.callDapi("conn_1", "payment/transfer/create", { amount: 1 })).rejects.toThrow();
    await Promise.resolve();
    expect(script.asked).toHaveLength(1);
  });

  it("never follows a silence of a call that is passed on, nor of what makes something new", async () => {
    script.answers(silent, dropped);
    const call = client.callPlaid("conn_1", "transfer/create", {}, { timeout: 100 });
    await expect(call).rejects.toBeInstanceOf(StrongroomTimeoutError);
    await expect(client.createClient({ name: "n", scopes: [] } as never)).rejects.toBeInstanceOf(StrongroomNetworkError);
    expect(script.asked).toHaveLength(2);
  });

  it("follows for a call that is passed on if it was refused before anything was done", async () => {
    script.answers(problem(429, "too_many_requests", {}, { "retry-after": "0" }), problem(401, "unauthorized"));
    script.answers(json(200, { success: true }, { "strongroom-upstream": "dapi" }));
    expect((await client.callDapi("conn_1", "data/accounts/get")).body).toEqual({ success: true });
    expect(script.asked).toHaveLength(3);
  });

  it("follows for a call that is passed on if there was no connection", async () => {
    const gone = await Script.start();
    const { url: nowhere } = gone;
    await gone.stop();
    let refused = 0;
    const fetch = (url: string, init?: RequestInit) => {
      if (!url.includes("/dapi/") || refused === 2) return globalThis.fetch(url, init);
      refused += 1;
      return globalThis.fetch(nowhere, init);
    };
    script.answers(json(200, {}, { "strongroom-upstream": "dapi" }));
    expect((await made({ fetch }).callDapi("conn_1", "payment/transfer/create")).ok).toBe(true);
    expect(refused).toBe(2);
  });

  it("of a bulk revocation has the same idempotency key", async () => {
    script.answers(dropped, json(202, { id: "rev_1" }));
    await client.createRevocation({ kind: "invalidate", reason: "r", filter: { all: true } } as never);
    const keys = script.asked.map(({ headers }) => headers["idempotency-key"]);
    expect(keys[0]).toMatch(/^[0-9a-f-]{36}$/);
    expect(keys[1]).toBe(keys[0]);
  });
});

describe("a call that is passed on", () => {
  it("resolves with the bank link's answer, its refusals and its 401 too", async () => {
    const upstream = { "strongroom-upstream": "dapi" };
    script.answers(json(404, { success: false, type: "INVALID_ACCOUNT_ID" }, upstream));
    script.answers(json(401, { success: false }, upstream), json(503, { n: 1 }, { ...upstream, "retry-after": "7" }));
    const refused = await client.callDapi<{ type: string }>("conn_1", "/data/balance/get", { accountID: "x" });
    expect([refused.status, refused.ok, refused.body.type]).toEqual([404, false, "INVALID_ACCOUNT_ID"]);
    expect((await client.callDapi("conn_1", "data/accounts/get")).status).toBe(401);
    expect((await client.callDapi("conn_1", "data/accounts/get")).retryAfter).toBe(7);
    expect([script.tokens, script.asked.length]).toEqual([1, 3]);
    expect(script.asked[0]?.path).toBe("/v1/connections/conn_1/dapi/data/balance/get");
  });

  it("throws Strongroom's own refusals, with their members", async () => {
    const attention = { type: "INVALID_CREDENTIALS", since: "now" };
    script.answers(problem(409, "connection_needs_attention", { attention }));
    const error = await refusal(client.callDapi("conn_1", "data/accounts/get"));
    expect([error.code, error.members["attention"]]).toEqual(["connection_needs_attention", attention]);
  });

  it("cannot be led to another path", async () => {
    for (const path of ["../delink", "data/../../token", "a//b", "", "."]) {
      await expect(async () => client.callDapi("conn_1", path)).rejects.toBeInstanceOf(TypeError);
    }
    await expect(async () => client.getConnection("..")).rejects.toBeInstanceOf(TypeError);
    await expect(async () => client.eraseUser("")).rejects.toBeInstanceOf(TypeError);
    script.answers(json(202, {}));
    await client.eraseUser("a/b c?d#e");
    expect(script.asked[0]?.path).toBe("/v1/users/a%2Fb%20c%3Fd%23e");
  });

  it("sends text as it is, for numbers that JavaScript would round", async () => {
    script.answers((_, response) => {
      response.writeHead(200, { "strongroom-upstream": "dapi" }).end('{"amount": 12345678901234567890.10}');
    });
    const answer = await client.callDapi("conn_1", "payment/transfer/create", '{"amount": 0.1000000000000000001}');
    expect(script.asked[0]?.body).toBe('{"amount": 0.1000000000000000001}');
    expect(answer.text).toBe('{"amount": 12345678901234567890.10}');
  });

  it("through an upstream passes bytes, headers and redirects", async () => {
    script.answers((_, response) => {
      response.writeHead(302, { "strongroom-upstream": "plain", location: "/x" }).end(Buffer.from([0, 255]));
    });
    const body = new Uint8Array([1, 200]);
    const options = { headers: { "Content-Type": "image/png" }, query: { page: 2 } };
    const answer = await client.putThroughUpstream("plain", "files/1", body, options);
    expect([answer.status, answer.headers.get("location")]).toEqual([302, "/x"]);
    expect(new Uint8Array(await answer.arrayBuffer())).toEqual(new Uint8Array([0, 255]));
    expect(script.asked[0]?.path).toBe("/v1/upstreams/plain/proxy/files/1?page=2");
    expect(script.asked[0]?.headers["content-type"]).toBe("image/png");
  });
});

describe("a list", () => {
  it("is one page if awaited, and everything if iterated", async () => {
    const pages = [
      json(200, { connections: [ACTIVE, { ...ACTIVE, id: "conn_2" }], nextCursor: "c/2" }),
      json(200, { connections: [{ ...ACTIVE, id: "conn_3" }], nextCursor: null }),
    ];
    script.answers(pages[0]!, ...pages);
    const page = await client.listConnections({ clientUserID: "a&b", limit: 2 });
    expect(page.nextCursor).toBe("c/2");
    const ids = [];
    for await (const { id } of client.listConnections({ clientUserID: "a&b", limit: 2 })) ids.push(id);
    expect(ids).toEqual(["conn_1", "conn_2", "conn_3"]);
    expect(script.asked[2]?.path).toBe("/v1/connections?clientUserID=a%26b&limit=2&cursor=c%2F2");
  });

  it("stops asking when its reader stops", async () => {
    script.answers(json(200, { connections: [ACTIVE], nextCursor: "next" }));
    for await (const _ of client.listConnections()) break;
    expect(script.asked).toHaveLength(1);
  });
});

describe("waiting for a connection", () => {
  it("ends when it is no longer pending, whatever it became", async () => {
    const pending = json(200, { ...ACTIVE, status: "pending" });
    script.answers(pending, pending, json(200, { ...ACTIVE, status: "rejected" }));
    expect((await client.waitForConnection("conn_1", { interval: 5 })).status).toBe("rejected");
  });

  it("ends with an error after its time, and with the reason of an abort", async () => {
    const pending = json(200, { ...ACTIVE, status: "pending" });
    script.answers(...Array.from({ length: 50 }, () => pending));
    const wait = client.waitForConnection("conn_1", { interval: 5, within: 60 });
    await expect(wait).rejects.toBeInstanceOf(StrongroomTimeoutError);
    const controller = new AbortController();
    const aborted = client.waitForConnection("conn_1", { interval: 5000, signal: controller.signal });
    setTimeout(() => controller.abort(new Error("gone")), 50);
    await expect(aborted).rejects.toThrow("gone");
  });
});

describe("an abort", () => {
  it("ends a request, a wait between two, and one that has not begun", async () => {
    script.answers(silent, problem(503, "unavailable", {}, { "retry-after": "30" }));
    for (let n = 0; n < 2; n += 1) {
      const controller = new AbortController();
      const request = client.getConnection("conn_1", { signal: controller.signal });
      await vi.waitFor(() => expect(script.asked).toHaveLength(n + 1));
      setTimeout(() => controller.abort(new Error("gone")), 50);
      await expect(request).rejects.toThrow("gone");
    }
    await expect(client.getConnection("conn_1", { signal: AbortSignal.abort(new Error("no")) })).rejects.toThrow("no");
    expect(script.asked).toHaveLength(2);
  });
});

describe("a secret", () => {
  it("shows neither in the client nor in its errors", async () => {
    script.answers(problem(422, "code_rejected", { id: "conn_1", failure: { type: "X", detail: "y" } }), dropped);
    const errors: unknown[] = [await refusal(client.createConnection(RESULT))];
    await client.createConnection(RESULT, { retries: 0 }).catch((error: unknown) => errors.push(error));
    await made({ baseUrl: "http://127.0.0.1:1", retries: 0 }).getConnection("x").catch((e: unknown) => errors.push(e));
    expect(errors).toHaveLength(3);
    for (const shown of [client, ...errors]) {
      const texts = [String(shown), JSON.stringify(shown), inspect(shown, { depth: 9, showHidden: true }), `${shown}`];
      for (const text of texts) expect(text).not.toMatch(/must-not-show|the-code|the-user-secret|token-1/);
    }
    expect(inspect({ client })).toContain(`Strongroom(${script.url})`);
  });

  it("does not follow a redirect", async () => {
    script.answers((_, response) => void response.writeHead(307, { location: "http://127.0.0.1:1/" }).end());
    await expect(client.createConnection(RESULT, { retries: 0 })).rejects.toThrow("redirect");
  });
});

describe("options", () => {
  it("that cannot be are refused at once", () => {
    for (const baseUrl of ["", "strongroom", "ftp://x", "http://a:b@x", "http://x?y", "http://x/#z"]) {
      expect(() => made({ baseUrl })).toThrow(TypeError);
    }
    expect(() => made({ clientSecret: "" })).toThrow(TypeError);
    expect(() => new Strongroom({ baseUrl: "http://x", session: "" })).toThrow(TypeError);
  });

  it("take a base URL with a path, and a fetch of one's own", async () => {
    const urls: string[] = [];
    const fetch = async (url: string) => {
      urls.push(url);
      return new Response(JSON.stringify({ access_token: "t", expires_in: 60, ...ACTIVE }));
    };
    const other = made({ baseUrl: "https://x.test/banks/", fetch });
    await other.getConnection("conn_1");
    expect(urls).toEqual(["https://x.test/banks/oauth2/token", "https://x.test/banks/v1/connections/conn_1"]);
  });
});
