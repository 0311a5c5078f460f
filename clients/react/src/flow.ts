// The way of one bank link, outside of React: its state is an external store, so that double effects, remounts and
// unmounts change who listens and not what happens.
import { type Connection, type LinkResult, Strongroom, StrongroomError, StrongroomNetworkError, StrongroomProblem } from "@strongroom/client";
import type { OpenedLink, OpenLink } from "./adapters.js";
import { find, forget, holdsAny, keep, keyOf } from "./storage.js";

export interface Session {
  token: string;
  clientUserID?: string;
  expiresAt?: string;
}

export type SessionSource = Session | string | (() => Promise<Session | string>);

/** Where a bank link stands. */
export type ConnectState =
  /** Nothing is under way. */
  | { status: "idle" }
  /** The bank link is open. */
  | { status: "opening" }
  /** The result is on its way; with `error` an attempt got no answer, and another one follows. */
  | { status: "handing-in"; error?: StrongroomError }
  /** Received and safe; the page may go. `watched` is false if this session may no longer look. */
  | { status: "pending"; connection: Connection; watched: boolean }
  | { status: "connected"; connection: Connection }
  /** The code came to nothing: the user has to link again. */
  | { status: "needs-relink"; problem?: StrongroomProblem; connection?: Connection }
  /** It cannot go on: a refusal, or an error of the bank link or of the network. */
  | { status: "failed"; problem?: StrongroomProblem; error: unknown };

export interface FlowOptions {
  baseUrl: string;
  session: SessionSource | null | undefined;
  open: OpenLink;
  /** Tells this bank link from one of another app on the same page, such as "plaid" from "dapi". */
  name?: string | undefined;
  fetch?: ((input: string, init?: RequestInit) => Promise<Response>) | undefined;
  onConnected?: ((connection: Connection) => void) | undefined;
  /** Milliseconds before the first look at a pending connection. */
  pollInterval?: number | undefined;
}

const RELINK = ["code_expired", "code_rejected", "code_orphaned", "connect_failed"];
const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 15_000;
/** No code outlives this; handing it in later is in vain. */
const WINDOW_MILLIS = 30 * 60_000;

/** Results on their way, by their key: two components, or a remount, hand one in once. */
const underWay = new Map<string, Promise<Connection>>();

export class Flow {
  options: FlowOptions;
  #state: ConnectState = { status: "idle" };
  #listeners = new Set<() => void>();
  #link: OpenedLink | undefined;
  /** Rises with each beginning, so that what an older one still reports is left out. */
  #round = 0;
  #watching: AbortController | undefined;
  /** Whose session it was last. */
  #user: string | undefined;
  #leaving: ReturnType<typeof setTimeout> | undefined;

  constructor(options: FlowOptions) {
    this.options = options;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly state = (): ConnectState => this.#state;

  /** Mounted: goes on with what an earlier page left. Returns the cleanup. */
  readonly attach = (): (() => void) => {
    clearTimeout(this.#leaving);
    const { session } = this.options;
    const user = typeof session === "object" ? session?.clientUserID : undefined;
    if (user !== undefined && this.#user !== undefined && user !== this.#user) {
      // Another user logged in: what the last one did is none of theirs. A result on its way still goes there.
      this.#leave();
      this.#begin({ status: "idle" });
    }
    this.#user = user ?? this.#user;
    if (this.#state.status === "idle") void this.#resume();
    return () => {
      // StrictMode mounts again at once. A result that is on its way is handed in in any case.
      this.#leaving = setTimeout(() => this.#leave(), 0);
    };
  };

  /** Opens the bank link; nothing if one is under way already. */
  readonly open = (): void => {
    if (["opening", "handing-in", "pending"].includes(this.#state.status)) return;
    const round = this.#begin({ status: "opening" });
    void this.#opened(round);
  };

  /** Back to `idle`; what is pending goes on without the page. */
  readonly reset = (): void => {
    if (this.#state.status === "handing-in") return;
    this.#leave();
    this.#begin({ status: "idle" });
  };

  #begin(state: ConnectState): number {
    this.#round += 1;
    this.#set(state);
    return this.#round;
  }

  #set(state: ConnectState): void {
    this.#state = state;
    for (const listener of this.#listeners) listener();
  }

  #leave(): void {
    this.#watching?.abort(new Error("left"));
    this.#close();
    if (this.#state.status === "opening" || this.#state.status === "pending") this.#begin({ status: "idle" });
  }

  #close(): void {
    const link = this.#link;
    this.#link = undefined;
    link?.close?.();
  }

  async #opened(round: number): Promise<void> {
    try {
      const source = this.options.session;
      if (!source) throw new Error("There is no connect session yet");
      // Without a wait if there is a session, because browsers open popups only in the click itself.
      const session = typeof source === "function" ? normal(await source()) : normal(source);
      if (round !== this.#round) return;
      let done = false;
      const link = this.options.open({
        onResult: (result) => {
          if (!done) this.#came(round, session, result);
          done = true;
        },
        onExit: (error) => this.#left(round, error),
      });
      const opened = link instanceof Promise ? await link : link;
      if (round === this.#round && this.#state.status === "opening") this.#link = opened ?? undefined;
      else opened?.close?.();
    } catch (error) {
      this.#left(round, error);
    }
  }

  #came(round: number, session: Session, result: LinkResult): void {
    const since = Date.now();
    // Before anything else: from here on a reload loses nothing.
    keep(this.#key(session), { since, result });
    if (round === this.#round) {
      this.#link = undefined;
      void this.#handIn(session, result, since);
    } else {
      // The component has gone, and the user has linked their bank all the same.
      this.#deliver(session, result, since, round).catch(() => undefined);
    }
  }

  #left(round: number, error: unknown): void {
    if (round !== this.#round || this.#state.status !== "opening") return;
    this.#link = undefined;
    this.#set(error === undefined || error === null ? { status: "idle" } : { status: "failed", error });
  }

  async #resume(): Promise<void> {
    const source = this.options.session;
    if (!source || !holdsAny()) return;
    const round = this.#round;
    let session: Session;
    try {
      session = typeof source === "function" ? normal(await source()) : normal(source);
    } catch {
      // Without a session nothing can be said; the next page may have one.
      return;
    }
    const kept = find(this.#key(session));
    if (round !== this.#round || this.#state.status !== "idle" || !kept) return;
    if (kept.result) await this.#handIn(session, kept.result, kept.since);
    else if (kept.pending) await this.#watch(session, kept.pending);
  }

  async #handIn(session: Session, result: LinkResult, since: number): Promise<void> {
    const round = this.#begin({ status: "handing-in" });
    try {
      const connection = await this.#deliver(session, result, since, round);
      if (round !== this.#round) return;
      if (connection.status === "pending") await this.#watch(session, connection.id, connection);
      else this.#ended(connection);
    } catch (error) {
      if (round === this.#round) this.#refused(error);
    }
  }

  /** Hands a result in, and keeps of it what the answer leaves to be done. */
  async #deliver(session: Session, result: LinkResult, since: number, round: number): Promise<Connection> {
    const key = this.#key(session);
    const name = key + JSON.stringify(result);
    let answer = underWay.get(name);
    if (!answer) {
      answer = this.#answer(session, result, since, round).finally(() => underWay.delete(name));
      underWay.set(name, answer);
    }
    try {
      const connection = await answer;
      forget(key, since);
      if (connection.status === "pending") keep(key, { since, pending: connection.id });
      return connection;
    } catch (error) {
      if (!undecided(error)) forget(key, since);
      throw error;
    }
  }

  /** Strongroom's answer, however long it takes to get through. */
  async #answer(session: Session, result: LinkResult, since: number, round: number): Promise<Connection> {
    let current = session;
    let renewed = false;
    for (let wait = FIRST_WAIT; ; wait = Math.min(wait * 2, LONGEST_WAIT)) {
      try {
        return await this.#client(current).createConnection(result, { retries: 0 });
      } catch (error) {
        const source = this.options.session;
        if (error instanceof StrongroomProblem && error.status === 401 && !renewed && typeof source === "function") {
          renewed = true;
          const next = normal(await source());
          // Another user may have logged in meanwhile: whose result this is, is the first session's to say.
          if (next.clientUserID !== session.clientUserID) throw error;
          current = next;
          continue;
        }
        const late = Date.now() - since > WINDOW_MILLIS;
        if (late || !(error instanceof StrongroomError) || !worthRepeating(error)) throw error;
        if (round === this.#round) this.#set({ status: "handing-in", error });
        const asked = error instanceof StrongroomProblem ? (error.retryAfter ?? 0) * 1000 : 0;
        await calm(Math.max(asked, wait * (0.5 + Math.random() / 2)));
      }
    }
  }

  async #watch(session: Session, id: string, connection?: Connection): Promise<void> {
    const round = this.#begin(
      connection ? { status: "pending", connection, watched: true } : { status: "handing-in" },
    );
    const key = this.#key(session);
    const watching = new AbortController();
    this.#watching = watching;
    const client = this.#client(session);
    const interval = this.options.pollInterval ?? 2_000;
    while (round === this.#round) {
      try {
        const seen = await client.getConnection(id, { signal: watching.signal });
        if (round !== this.#round) return;
        this.#set({ status: "pending", connection: seen, watched: true });
        const ended = await client.waitForConnection(id, { signal: watching.signal, interval, within: WINDOW_MILLIS });
        forget(key);
        if (round === this.#round) this.#ended(ended);
        return;
      } catch (error) {
        if (watching.signal.aborted) return;
        if (error instanceof StrongroomNetworkError) {
          await calm(interval);
          continue;
        }
        // Another session may not look at it, and this one has ended. It goes on all the same.
        forget(key);
        if (round !== this.#round) return;
        const last = this.#state;
        if (last.status === "pending") this.#set({ ...last, watched: false });
        else this.#set({ status: "idle" });
        return;
      }
    }
  }

  #ended(connection: Connection): void {
    // A newer link of the same login took its place: the user is connected all the same.
    const replaced = connection.status === "invalidated" && Boolean(connection.replacedBy);
    if (connection.status === "active" || replaced) {
      this.#set({ status: "connected", connection });
      this.options.onConnected?.(connection);
    } else this.#set({ status: "needs-relink", connection });
  }

  #refused(error: unknown): void {
    const problem = error instanceof StrongroomProblem ? error : undefined;
    if (problem && RELINK.includes(problem.code)) this.#set({ status: "needs-relink", problem });
    else this.#set({ status: "failed", error, ...(problem && { problem }) });
  }

  #key(session: Session): string {
    return keyOf(session, this.options.name);
  }

  #client(session: Session): Strongroom {
    const { baseUrl, fetch } = this.options;
    return new Strongroom({ baseUrl, session, ...(fetch && { fetch }) });
  }
}

function normal(session: Session | string): Session {
  return typeof session === "string" ? { token: session } : session;
}

function worthRepeating(error: StrongroomError): boolean {
  if (!(error instanceof StrongroomProblem)) return error instanceof StrongroomNetworkError;
  return error.status >= 500 || error.status === 408 || (error.status === 429 && error.retryAfter !== undefined);
}

/** True if the next session of the same user may still hand the result in. */
function undecided(error: unknown): boolean {
  if (!(error instanceof StrongroomProblem)) return true;
  return error.status === 401 || error.status === 408 || error.status === 429 || error.status >= 500;
}

/** Waits, or until the network is there again. */
function calm(millis: number): Promise<void> {
  return new Promise((resolve) => {
    const go = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", go);
      resolve();
    };
    const timer = setTimeout(go, millis);
    globalThis.addEventListener?.("online", go);
  });
}
