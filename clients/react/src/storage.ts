// What has to survive a reload: a result that Strongroom has not answered yet, and afterwards the id of a connection that
// is still pending. In sessionStorage, so that it is this tab's and ends with it.
import type { LinkResult } from "@strongroom/client";

const PREFIX = "strongroom.connect:";
/** No code outlives this. */
const LIFE_MILLIS = 30 * 60_000;

export interface Kept {
  /** When the result came, by this browser's clock. */
  since: number;
  result?: LinkResult;
  pending?: string;
}

function storage(): Storage | undefined {
  try {
    return globalThis.sessionStorage;
  } catch {
    // Forbidden by the browser's settings: then a reload is not survived.
    return undefined;
  }
}

/**
 * The key for a session: by its user, so that the next session of the same user finds it, else by the token's hash. The
 * name keeps links of several apps apart, since a result means nothing to another app.
 */
export function keyOf(session: { token: string; clientUserID?: string }, name = ""): string {
  const whose = session.clientUserID === undefined ? `token:${hash(session.token)}` : `user:${session.clientUserID}`;
  return PREFIX + (name && `${name}:`) + whose;
}

/** FNV-1a: the token itself is not to be kept. */
function hash(text: string): string {
  let value = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) value = ((value ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
  return value.toString(16);
}

export function keep(key: string, kept: Kept): void {
  try {
    storage()?.setItem(key, JSON.stringify(kept));
  } catch {
    // Full, or forbidden.
  }
}

/** Removes what is kept; with `since` unless it is another result's by now. */
export function forget(key: string, since?: number): void {
  try {
    if (since !== undefined) {
      const kept = JSON.parse(storage()?.getItem(key) ?? "null") as Kept | null;
      if (kept && kept.since !== since) return;
    }
    storage()?.removeItem(key);
  } catch {
    // Forbidden: then there is nothing.
  }
}

export function find(key: string): Kept | undefined {
  expire();
  try {
    const text = storage()?.getItem(key);
    return text ? (JSON.parse(text) as Kept) : undefined;
  } catch {
    forget(key);
    return undefined;
  }
}

/** True if anything is kept, of whatever session. */
export function holdsAny(): boolean {
  expire();
  return keys().length > 0;
}

function keys(): string[] {
  const found = storage();
  if (!found) return [];
  return Array.from({ length: found.length }, (_, index) => found.key(index) ?? "").filter((key) => key.startsWith(PREFIX));
}

/** Removes what no code can be used for any more, of every session. */
function expire(): void {
  for (const key of keys()) {
    let since = 0;
    try {
      since = (JSON.parse(storage()?.getItem(key) ?? "") as Kept).since;
    } catch {
      // Not readable: away with it.
    }
    if (!(Date.now() - since < LIFE_MILLIS)) forget(key);
  }
}
