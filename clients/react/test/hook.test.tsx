import { act, cleanup, render, screen, waitFor } from "@testing-library/react";
import { StrictMode } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { dapiConnect, type LinkEvents, type OpenLink, plaidLink, type Session, sandboxLink, useConnectBank, type UseConnectBankOptions } from "../src/index.js";

const RESULT = { success: true, accessCode: "the-code", userSecret: "the-secret", connectionID: "login" };
const ADA: Session = { token: "cs_ada", clientUserID: "ada" };
const CONNECTION = { id: "conn_1", status: "active", clientUserID: "ada", connectionID: "login", createdAt: "now" };
const PENDING = { ...CONNECTION, status: "pending" };

/** Strongroom, by a script: answers, or `"lost"` for a network that fails. */
class Service {
  asked: { method: string; path: string; token: string; body: unknown }[] = [];
  answers: (Response | "lost" | Promise<Response>)[] = [];
  readonly fetch = async (url: string, init: RequestInit = {}): Promise<Response> => {
    const headers = init.headers as Record<string, string>;
    const body = init.body === undefined ? undefined : JSON.parse(init.body as string);
    this.asked.push({ method: init.method!, path: new URL(url).pathname, token: headers["authorization"]!, body });
    const answer = this.answers.shift() ?? "lost";
    if (answer === "lost") throw new TypeError("Failed to fetch");
    return answer;
  };
  posts = () => this.asked.filter(({ method }) => method === "POST");
}

const json = (status: number, body: object, headers = {}) => new Response(JSON.stringify(body), { status, headers });
const problem = (status: number, code: string, more = {}) => json(status, { code, status, detail: "Why.", ...more });

let service: Service;
let events: LinkEvents | undefined;
let opened = 0;
let closed = 0;
const link: OpenLink = (given) => {
  opened += 1;
  events = given;
  return { close: () => void (closed += 1) };
};

function Bank(props: Partial<UseConnectBankOptions>) {
  const given = { baseUrl: "http://strongroom.test", session: ADA, open: link, fetch: service.fetch, pollInterval: 5, ...props };
  const { state, open, reset } = useConnectBank(given);
  const more = "problem" in state && state.problem ? ` ${state.problem.code}` : "error" in state && state.error ? " error" : "";
  return (
    <>
      <output>{state.status + more}</output>
      <button onClick={open}>Connect</button>
      <button onClick={reset}>Reset</button>
    </>
  );
}

const shown = () => screen.getByRole("status").textContent;
const click = (name: string) => act(() => screen.getByText(name).click());
const shows = (text: string) => waitFor(() => expect(shown()).toBe(text), { timeout: 8000 });

function page(props: Partial<UseConnectBankOptions> = {}) {
  return render(
    <StrictMode>
      <Bank {...props} />
    </StrictMode>,
  );
}

/** What a reload leaves: a tab with its storage, and nothing else. */
async function reload(props: Partial<UseConnectBankOptions> = {}) {
  cleanup();
  await new Promise((done) => setTimeout(done, 10));
  return page(props);
}

beforeEach(() => {
  service = new Service();
  events = undefined;
  opened = closed = 0;
  sessionStorage.clear();
  vi.spyOn(Math, "random").mockReturnValue(0);
});

afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

describe("a result", () => {
  it("is handed in as it came, once under StrictMode, and connects", async () => {
    const onConnected = vi.fn();
    service.answers = [json(201, CONNECTION)];
    page({ onConnected });
    expect(shown()).toBe("idle");
    click("Connect");
    click("Connect");
    await shows("opening");
    act(() => events!.onResult(RESULT));
    act(() => events!.onResult(RESULT));
    act(() => events!.onExit());
    await shows("connected");
    expect(service.asked).toEqual([{ method: "POST", path: "/v1/connections", token: "Bearer cs_ada", body: RESULT }]);
    expect([opened, onConnected.mock.calls.length, sessionStorage.length]).toEqual([1, 1, 0]);
  });

  it.each([
    [410, "code_expired", "needs-relink"],
    [422, "code_rejected", "needs-relink"],
    [422, "connect_failed", "needs-relink"],
    [409, "code_orphaned", "needs-relink"],
    [409, "connection_of_another_user", "failed"],
    [409, "code_already_received", "failed"],
    [403, "user_mismatch", "failed"],
  ])("that is answered %i %s is a state, and is not kept", async (status, code, state) => {
    service.answers = [problem(status, code), json(201, CONNECTION)];
    page();
    click("Connect");
    act(() => events!.onResult(RESULT));
    await shows(`${state} ${code}`);
    expect(sessionStorage.length).toBe(0);
    // Another one may follow.
    click("Connect");
    act(() => events!.onResult({ ...RESULT, accessCode: "another" }));
    await shows("connected");
  });

  it("that is answered 202 is polled until it is connected", async () => {
    service.answers = [json(202, PENDING), json(200, PENDING), json(200, PENDING), json(200, CONNECTION)];
    page();
    click("Connect");
    act(() => events!.onResult(RESULT));
    await shows("connected");
    expect([service.posts().length, sessionStorage.length]).toEqual([1, 0]);
  });

  it("that ends as something else after a 202 needs another link", async () => {
    service.answers = [json(202, PENDING), json(200, PENDING), json(200, { ...PENDING, status: "expired" })];
    page();
    click("Connect");
    act(() => events!.onResult(RESULT));
    await shows("needs-relink");
  });

  it("is handed in again when the network is there again", async () => {
    service.answers = ["lost", json(503, { code: "unavailable", detail: "" }), json(201, CONNECTION)];
    page();
    click("Connect");
    act(() => events!.onResult(RESULT));
    await shows("handing-in error");
    expect(JSON.parse(sessionStorage.getItem("strongroom.connect:user:ada")!).result).toEqual(RESULT);
    act(() => void window.dispatchEvent(new Event("online")));
    await waitFor(() => expect(service.posts()).toHaveLength(2));
    await act(() => new Promise((done) => setTimeout(done, 20)));
    act(() => void window.dispatchEvent(new Event("online")));
    await shows("connected");
    expect([service.posts().length, sessionStorage.length]).toEqual([3, 0]);
  });

  it("is handed in though its component has gone", async () => {
    let answer = (_: Response) => undefined as void;
    service.answers = [new Promise<Response>((resolve) => (answer = resolve))];
    page();
    click("Connect");
    act(() => events!.onResult(RESULT));
    await waitFor(() => expect(service.posts()).toHaveLength(1));
    await reload();
    // The new component joins the same attempt.
    await shows("handing-in");
    answer(json(201, CONNECTION));
    await shows("connected");
    expect([service.posts().length, sessionStorage.length]).toEqual([1, 0]);
  });
});

describe("a reload", () => {
  function left(kept: object, user = "ada") {
    sessionStorage.setItem(`strongroom.connect:user:${user}`, JSON.stringify({ since: Date.now(), ...kept }));
  }

  it("goes on with a result, with the next session of the same user", async () => {
    left({ result: RESULT });
    service.answers = [json(200, CONNECTION)];
    page({ session: { token: "cs_next", clientUserID: "ada" } });
    await shows("connected");
    expect(service.asked).toMatchObject([{ token: "Bearer cs_next", body: RESULT }]);
    expect(sessionStorage.length).toBe(0);
  });

  it("goes on once the session is there, or is fetched", async () => {
    left({ result: RESULT });
    service.answers = [json(200, CONNECTION)];
    const { rerender } = render(<Bank session={null} />);
    expect(shown()).toBe("idle");
    rerender(<Bank session={ADA} />);
    await shows("connected");
    cleanup();
    left({ result: RESULT });
    service.answers = [json(200, CONNECTION)];
    page({ session: async () => ADA });
    await shows("connected");
  });

  it("goes on looking at what was pending", async () => {
    left({ pending: "conn_1" });
    service.answers = [json(200, PENDING), json(200, CONNECTION)];
    page();
    await shows("connected");
    expect([service.posts().length, sessionStorage.length]).toEqual([0, 0]);
  });

  it("leaves another user's result alone, and what no code outlives", async () => {
    left({ result: RESULT }, "grace");
    sessionStorage.setItem("strongroom.connect:user:ada", JSON.stringify({ since: Date.now() - 31 * 60_000, result: RESULT }));
    page();
    await act(() => new Promise((done) => setTimeout(done, 30)));
    expect([shown(), service.asked.length]).toEqual(["idle", 0]);
    expect(sessionStorage.getItem("strongroom.connect:user:ada")).toBeNull();
  });

  it("leaves the result of another app's link to the hook of that name", async () => {
    left({ result: RESULT }, "ada");
    sessionStorage.setItem("strongroom.connect:plaid:user:ada", sessionStorage.getItem("strongroom.connect:user:ada")!);
    sessionStorage.removeItem("strongroom.connect:user:ada");
    page({ name: "dapi" });
    await act(() => new Promise((done) => setTimeout(done, 30)));
    expect([shown(), service.asked.length]).toEqual(["idle", 0]);
    service.answers = [json(200, CONNECTION)];
    await reload({ name: "plaid" });
    await shows("connected");
    expect(sessionStorage.length).toBe(0);
  });

  it("finds what a session without a user's name left, and keeps no token", async () => {
    const first = page({ session: "cs_plain" });
    click("Connect");
    act(() => events!.onResult(RESULT));
    await shows("handing-in error");
    expect(JSON.stringify({ ...sessionStorage })).not.toContain("cs_plain");
    first.unmount();
  });

  it("keeps a result that a session without rights could not hand in", async () => {
    service.answers = [problem(401, "unauthorized"), json(201, CONNECTION)];
    page();
    click("Connect");
    act(() => events!.onResult(RESULT));
    await shows("failed unauthorized");
    expect(sessionStorage.length).toBe(1);
    await reload({ session: { token: "cs_next", clientUserID: "ada" } });
    await shows("connected");
    expect(sessionStorage.length).toBe(0);
  });
});

describe("a session", () => {
  it("that has ended is fetched anew once, for the same user alone", async () => {
    const sessions = [ADA, { token: "cs_2", clientUserID: "ada" }, ADA, { token: "cs_3", clientUserID: "grace" }];
    service.answers = [problem(401, "unauthorized"), json(201, CONNECTION), problem(401, "unauthorized")];
    page({ session: async () => sessions.shift()! });
    click("Connect");
    await waitFor(() => expect(events).toBeDefined());
    act(() => events!.onResult(RESULT));
    await shows("connected");
    expect(service.asked.map(({ token }) => token)).toEqual(["Bearer cs_ada", "Bearer cs_2"]);
    events = undefined;
    click("Connect");
    await waitFor(() => expect(events).toBeDefined());
    act(() => events!.onResult(RESULT));
    await shows("failed unauthorized");
    expect(service.asked).toHaveLength(3);
  });

  it("of another user begins afresh", async () => {
    service.answers = [json(201, CONNECTION)];
    const { rerender } = render(<Bank />);
    click("Connect");
    act(() => events!.onResult(RESULT));
    await shows("connected");
    rerender(<Bank session={{ token: "cs_grace", clientUserID: "grace" }} />);
    await shows("idle");
  });

  it("that is missing, or cannot be fetched, is a failure", async () => {
    page({ session: null });
    click("Connect");
    await shows("failed error");
    await reload({ session: () => Promise.reject(new Error("no")) });
    click("Connect");
    await shows("failed error");
  });
});

describe("the bank link", () => {
  it("that the user leaves is idle again, and one that fails is a failure", async () => {
    page();
    click("Connect");
    act(() => events!.onExit());
    await shows("idle");
    click("Connect");
    act(() => events!.onExit(new Error("broken")));
    await shows("failed error");
  });

  it("is closed with its component, and a result that comes then is handed in all the same", async () => {
    service.answers = [json(201, CONNECTION)];
    const { unmount } = page();
    click("Connect");
    await shows("opening");
    unmount();
    await waitFor(() => expect(closed).toBe(1));
    events!.onResult(RESULT);
    events!.onResult(RESULT);
    await waitFor(() => expect([service.asked.length, sessionStorage.length]).toEqual([1, 0]));
  });

  it("that throws is a failure", async () => {
    page({ open: () => Promise.reject(new Error("no script")) });
    click("Connect");
    await shows("failed error");
  });

  it("may be Dapi's, under the names of its versions", async () => {
    for (const name of ["onSuccess", "onSuccessfulConnection"] as const) {
      const events = { onResult: vi.fn(), onExit: vi.fn() };
      const open = vi.fn();
      await dapiConnect((callbacks) => {
        callbacks[name](RESULT);
        callbacks.onExit();
        return { open };
      })(events);
      expect([events.onResult.mock.calls, open.mock.calls.length]).toEqual([[[RESULT]], 1]);
    }
  });

  it("may be Plaid's, and what it gives goes on as it came", async () => {
    let config: Record<string, (...given: unknown[]) => void> = {};
    const handler = { open: vi.fn(), destroy: vi.fn() };
    const plaid = { create: (given: object) => ((config = given as never), handler) };
    service.answers = [json(201, CONNECTION)];
    page({ open: plaidLink({ token: async () => "link-1", plaid }) });
    click("Connect");
    await waitFor(() => expect(handler.open).toHaveBeenCalledOnce());
    expect(config["token"]).toBe("link-1");
    act(() => config["onSuccess"]!("public-1", { institution: { name: "Lumen" } }));
    await shows("connected");
    expect(service.posts()[0]?.body).toEqual({ public_token: "public-1", metadata: { institution: { name: "Lumen" } } });
  });

  it("may be the sandbox's, in a popup that only its origin speaks for", async () => {
    const popup = { closed: false, close: vi.fn() };
    const open = vi.spyOn(window, "open").mockReturnValue(popup as never);
    service.answers = [json(201, CONNECTION)];
    page({ open: sandboxLink("http://sandbox.test:8081", { query: { clientUserID: "ada" } }) });
    click("Connect");
    expect(String(open.mock.calls[0]?.[0])).toContain("http://sandbox.test:8081/connect?clientUserID=ada&origin=");
    const data = { source: "dapi-sandbox-connect", event: "success", result: RESULT };
    const say = (origin: string) => act(() => void window.dispatchEvent(new MessageEvent("message", { origin, data })));
    say("http://elsewhere.test");
    expect(shown()).toBe("opening");
    say("http://sandbox.test:8081");
    await shows("connected");
    click("Connect");
    popup.closed = true;
    await shows("idle");
  });

  it("is heard if its popup is gone before what it said arrives", () => {
    vi.useFakeTimers();
    const popup = { closed: false, close: vi.fn() };
    vi.spyOn(window, "open").mockReturnValue(popup as never);
    const events = { onResult: vi.fn(), onExit: vi.fn() };
    sandboxLink("http://sandbox.test:8081")(events);
    popup.closed = true;
    vi.advanceTimersByTime(500);
    const data = { source: "dapi-sandbox-connect", event: "success", result: RESULT };
    window.dispatchEvent(new MessageEvent("message", { origin: "http://sandbox.test:8081", data }));
    expect(events.onResult).toHaveBeenCalledExactlyOnceWith(RESULT);
    vi.advanceTimersByTime(5_000);
    expect(events.onExit).not.toHaveBeenCalled();
    vi.useRealTimers();
  });

  it("may be the sandbox's Link, whose popup is there before its token is", async () => {
    const popup = { closed: false, close: vi.fn(), location: { replace: vi.fn() } };
    const open = vi.spyOn(window, "open").mockReturnValue(popup as never);
    const events = { onResult: vi.fn(), onExit: vi.fn() };
    const opens = (token: string | (() => Promise<string>)) =>
      sandboxLink("http://sandbox.test:8081", { page: "link", token })(events);
    opens("link-1");
    expect(String(open.mock.calls[0]?.[0])).toContain("http://sandbox.test:8081/plaid/link?token=link-1&origin=");
    opens(async () => "link-2");
    expect(open.mock.calls[1]?.[0]).toBe("about:blank");
    await waitFor(() => expect(popup.location.replace).toHaveBeenCalledOnce());
    expect(popup.location.replace.mock.calls[0]?.[0]).toContain("/plaid/link?token=link-2&origin=");
    const error = new Error("no token");
    opens(async () => Promise.reject(error));
    await waitFor(() => expect(events.onExit).toHaveBeenCalledWith(error));
    expect(popup.close).toHaveBeenCalledOnce();
    // The first two still look whether they were closed.
    popup.closed = true;
    await waitFor(() => expect(events.onExit).toHaveBeenCalledTimes(3), { timeout: 3_000 });
  });
});
