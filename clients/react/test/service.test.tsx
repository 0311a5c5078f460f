// Against a real service with its sandbox, which scripts/test-client-libraries starts.
import { act, cleanup, render, screen, waitFor } from "@testing-library/react";
import { Strongroom } from "@strongroom/client";
import { StrictMode } from "react";
import { afterEach, describe, expect, it } from "vitest";
import { type OpenLink, type Session, useConnectBank } from "../src/index.js";

const { STRONGROOM_URL: baseUrl, SANDBOX_URL: sandbox, CLIENT_ID: clientId, CLIENT_SECRET: clientSecret } = process.env;

describe.skipIf(!baseUrl)("against the service", () => {
  const backend = () => new Strongroom({ baseUrl: baseUrl!, clientId: clientId!, clientSecret: clientSecret! });
  const control = async (path: string, body: object) =>
    (await fetch(`${sandbox}/sandbox/${path}`, { method: "POST", body: JSON.stringify(body) })).json();

  function Bank({ session, result, fetch }: { session: Session; result: object; fetch?: typeof globalThis.fetch }) {
    const open: OpenLink = ({ onResult }) => onResult(result as never);
    const { state, open: begin } = useConnectBank({ baseUrl: baseUrl!, session, open, pollInterval: 200, fetch: fetch as never });
    const code = "problem" in state ? state.problem?.code : undefined;
    return <button onClick={begin}>{[state.status, code].filter(Boolean).join(" ")}</button>;
  }

  async function start(result: object, fetch?: typeof globalThis.fetch) {
    const session = await backend().createConnectSession({ clientUserID: `react-${Math.random().toString(36).slice(2)}` });
    const bank = <StrictMode><Bank session={session} result={result} {...(fetch && { fetch })} /></StrictMode>;
    render(bank);
    act(() => screen.getByRole("button").click());
    return { session, bank };
  }

  const shows = (text: string) =>
    waitFor(() => expect(screen.getByRole("button").textContent).toBe(text), { timeout: 30_000 });

  afterEach(() => {
    cleanup();
    sessionStorage.clear();
  });

  it("connects, and a refused code needs another link", async () => {
    await start(await control("connect", {}));
    await shows("connected");
    expect(sessionStorage.length).toBe(0);
    cleanup();
    const result = await control("connect", {});
    const refusal = { refuse: { type: "INVALID_ACCESS_CODE", msg: "no", status: 400 } };
    await control("faults", { effect: refusal, path: "auth/ExchangeToken", connectionID: result.connectionID, times: 1 });
    await start(result);
    await shows("needs-relink code_rejected");
  });

  it("loses nothing if the answer is lost and the page is reloaded", async () => {
    let posts = 0;
    const lossy: typeof globalThis.fetch = async (...given) => {
      const answer = await globalThis.fetch(...given);
      if (given[1]?.method !== "POST") return answer;
      posts += 1;
      // Received, exchanged, and the answer is lost on its way.
      if (posts === 1) throw new TypeError("Failed to fetch");
      return answer;
    };
    const { session } = await start(await control("connect", {}), lossy);
    await waitFor(() => expect(posts).toBe(1), { timeout: 10_000 });
    await shows("connected");
    const { connections } = await backend().listConnections({ clientUserID: session.clientUserID });
    expect(connections.map(({ status }) => status)).toEqual(["active"]);
    expect(sessionStorage.length).toBe(0);
  });

  it("follows an exchange that got no answer at first", async () => {
    const result = await control("connect", {});
    const fault = { effect: "drop", path: "auth/ExchangeToken", when: "before", times: 1 };
    await control("faults", { ...fault, connectionID: result.connectionID });
    await start(result);
    await shows("connected");
  });
});
