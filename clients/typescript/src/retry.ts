// When to ask again, and how long to wait before.

/** Waits between attempts, in milliseconds: the first, and the longest that is not asked for. */
const FIRST_WAIT = 250;
const LONGEST_WAIT = 8_000;
/** A longer `Retry-After`, in seconds, is the caller's to wait for. */
export const LONGEST_RETRY_AFTER = 60;

/** The seconds of `Retry-After`, which has them or a date (RFC 9110, section 10.2.3). */
export function retryAfterOf(headers: Headers): number | undefined {
  const value = headers.get("retry-after")?.trim();
  if (!value) return undefined;
  if (/^\d+$/.test(value)) return Number(value);
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, Math.ceil((date - Date.now()) / 1000));
}

/** The wait before the attempt with this number, from 1: doubled each time, and drawn from its upper half. */
export function waitBefore(attempt: number, retryAfter: number | undefined): number {
  const longest = Math.min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT);
  const drawn = longest * (0.5 + Math.random() / 2);
  // Clients that were all told the same second do not come back in the same millisecond.
  return retryAfter === undefined ? drawn : retryAfter * 1000 + Math.random() * FIRST_WAIT;
}

/** Sleeps; an abort rejects with the signal's reason. */
export function sleep(millis: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, millis);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Waits for a promise that others wait for too; an abort ends this wait alone. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

const NEVER_SENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"]);

/** True if the request provably never left: no address, or no connection. Browsers do not say. */
export function neverSent(error: unknown): boolean {
  const cause = error instanceof Error ? (error.cause as { code?: unknown } | undefined) : undefined;
  return typeof cause?.code === "string" && NEVER_SENT.has(cause.code);
}
