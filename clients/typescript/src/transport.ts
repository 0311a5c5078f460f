import { isOwn, problemOf, StrongroomError, StrongroomNetworkError, StrongroomProblem, StrongroomTimeoutError } from "./errors.js";
import { LONGEST_RETRY_AFTER, neverSent, sleep, waitBefore } from "./retry.js";
import type { Bearer } from "./token.js";

export type Fetch = (input: string, init?: RequestInit) => Promise<Response>;

/** What every method takes last. */
export interface RequestOptions {
  /** Ends the request, its retries and its waits; it rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Milliseconds for one attempt, its answer included. */
  timeout?: number | undefined;
  /** How many times a request that is safe to repeat is repeated. */
  retries?: number | undefined;
}

export interface Call extends RequestOptions {
  method: string;
  path: string;
  query?: object | undefined;
  /** JSON, or with a string the body as it is. */
  body?: unknown;
  headers?: Record<string, string> | undefined;
  /** Whether a second request does no more than the first. If not, only one that did not arrive is repeated. */
  repeatable: boolean;
  /** Whether the answer may be another API's, which `Strongroom-Upstream` announces. */
  relayed?: boolean;
  /** Whether the request outlives the page that made it. */
  keepalive?: boolean;
}

/** An answer, read to its end. */
export interface Answer {
  response: Response;
  text: string;
  bytes: Uint8Array<ArrayBuffer>;
}

/** The longest body that a browser sends for a page that is gone, with room for others. */
const KEEPALIVE_BYTES = 48 * 1024;

/** Checks the base URL, and takes its trailing slashes off. */
export function checkedBase(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new TypeError("baseUrl is not a URL");
  }
  if (!/^https?:$/.test(url.protocol)) throw new TypeError("baseUrl is not an http or https URL");
  if (url.username || url.password || url.search || url.hash) {
    throw new TypeError("baseUrl has credentials, a query or a fragment");
  }
  return (url.origin + url.pathname).replace(/\/+$/, "");
}

/** Encodes one segment of a path. What a URL would resolve away would lead to another resource. */
export function segment(value: string): string {
  if (typeof value !== "string" || value === "" || value === "." || value === "..") {
    throw new TypeError(`${JSON.stringify(value)} cannot be part of a path`);
  }
  return encodeURIComponent(value);
}

/** Encodes a path of several segments. */
export function segments(path: string): string {
  return path.replace(/^\//, "").split("/").map(segment).join("/");
}

function queryOf(query: object | undefined): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null) parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text && `?${text}`;
}

/** Sends requests with a bearer token, and again if that is safe and promises anything. */
export class Transport {
  readonly #base: string;
  readonly #fetch: Fetch;
  readonly #bearer: Bearer;

  constructor(base: string, fetch: Fetch, bearer: Bearer) {
    this.#base = base;
    this.#fetch = fetch;
    this.#bearer = bearer;
  }

  /** The answer to a call: 2xx, or of whatever status if it is another API's. Throws a problem for all else. */
  async send(call: Call): Promise<Answer> {
    let renewed = false;
    for (let attempt = 1; ; attempt += 1) {
      const outcome = await this.#attempt(call);
      if (!(outcome instanceof Failure)) return outcome;
      if (outcome.tokenRefused && !renewed) {
        // Refused before anything was done, so that even a relayed call may be sent again.
        renewed = true;
        attempt -= 1;
        continue;
      }
      const wait = outcome.waitBefore(attempt, call);
      if (wait === undefined) throw outcome.error;
      await sleep(wait, call.signal);
    }
  }

  async #attempt(call: Call): Promise<Answer | Failure> {
    let token: string;
    try {
      token = await this.#bearer.get(call.signal);
    } catch (error) {
      if (!(error instanceof StrongroomError)) throw error;
      return new Failure(error, { beforehand: true });
    }
    const headers: Record<string, string> = { accept: "application/json", ...call.headers };
    headers["authorization"] = `Bearer ${token}`;
    const init: RequestInit = { method: call.method, headers };
    if (call.body !== undefined) {
      if (!Object.keys(headers).some((name) => name.toLowerCase() === "content-type")) {
        headers["content-type"] = "application/json";
      }
      init.body = isRaw(call.body) ? (call.body as BodyInit) : JSON.stringify(call.body);
      if (call.keepalive && typeof init.body === "string" && init.body.length < KEEPALIVE_BYTES) init.keepalive = true;
    }
    const url = this.#base + call.path + queryOf(call.query);
    let answer: Answer;
    try {
      answer = await fetched(this.#fetch, url, init, call);
    } catch (error) {
      if (call.signal?.aborted) throw call.signal.reason;
      return new Failure(error as StrongroomError, { beforehand: neverSent(error) });
    }
    const { response, text } = answer;
    if (call.relayed && response.headers.has("strongroom-upstream")) return answer;
    if (response.ok) return answer;
    const tokenRefused = response.status === 401 && this.#bearer.refused(token);
    return new Failure(problemOf(response, text), { tokenRefused });
  }
}

function isRaw(body: unknown): boolean {
  return typeof body === "string" || body instanceof Uint8Array || body instanceof ArrayBuffer;
}

/** One attempt that brought nothing usable. */
class Failure {
  readonly error: StrongroomError;
  readonly tokenRefused: boolean;
  readonly #beforehand: boolean;

  /** `beforehand` if the call itself provably never left. */
  constructor(error: StrongroomError, found: { beforehand?: boolean; tokenRefused?: boolean }) {
    this.error = error;
    this.#beforehand = found.beforehand ?? false;
    this.tokenRefused = found.tokenRefused ?? false;
  }

  /** Milliseconds to wait before the call is sent again, or nothing if it is not. */
  waitBefore(attempt: number, call: Call): number | undefined {
    if (attempt > (call.retries ?? 0) || !this.#promising(call)) return undefined;
    const retryAfter = this.error instanceof StrongroomProblem ? this.error.retryAfter : undefined;
    if (retryAfter !== undefined && retryAfter > LONGEST_RETRY_AFTER) return undefined;
    return waitBefore(attempt, retryAfter);
  }

  #promising(call: Call): boolean {
    const { error } = this;
    const repeatable = call.repeatable || this.#beforehand;
    if (!(error instanceof StrongroomProblem)) return repeatable;
    // A 429 was refused before anything was done. Without a time it is not about load: asking again brings the same.
    if (error.status === 429) return error.retryAfter !== undefined;
    if (!repeatable) return false;
    // Strongroom's own 500, 502 and 504 are what came of the request; a gateway's say nothing about it.
    return error.status === 503 || ([500, 502, 504].includes(error.status) && !isOwn(error));
  }
}

/** Fetches and reads to the end within the time. Throws errors of this package, or the signal's reason. */
export async function fetched(
  fetch: Fetch,
  url: string,
  init: RequestInit,
  { signal, timeout }: RequestOptions,
): Promise<Answer> {
  if (signal?.aborted) throw signal.reason;
  const controller = new AbortController();
  let late = false;
  const stop = () => controller.abort(signal?.reason);
  signal?.addEventListener("abort", stop, { once: true });
  const timer = timeout
    ? setTimeout(() => {
        late = true;
        controller.abort();
      }, timeout)
    : undefined;
  try {
    // A redirect would carry token and body to where nobody sent them.
    const response = await fetch(url, {
      ...init,
      signal: controller.signal,
      redirect: "manual",
      credentials: "omit",
      cache: "no-store",
    });
    const foreign = response.headers.has("strongroom-upstream");
    if (response.type === "opaqueredirect" || (response.status >= 300 && response.status < 400 && !foreign)) {
      throw new StrongroomNetworkError("The answer is a redirect, which is not followed; is baseUrl right?");
    }
    const bytes = new Uint8Array(await response.arrayBuffer());
    return { response, bytes, text: new TextDecoder().decode(bytes) };
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    if (error instanceof StrongroomError) throw error;
    if (late) throw new StrongroomTimeoutError(`No answer within ${timeout} ms`);
    throw networkError(error);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

function networkError(error: unknown): StrongroomNetworkError {
  const cause = error instanceof Error ? (error.cause as { code?: unknown; message?: unknown } | undefined) : undefined;
  const why = cause?.code ?? cause?.message ?? (error instanceof Error ? error.message : String(error));
  // The cause of a failed fetch (its code) stays readable; it holds neither headers nor bodies.
  return new StrongroomNetworkError(`Strongroom was not reached, or broke off: ${String(why)}`, { cause });
}
