import { problemOf, StrongroomProblem } from "./errors.js";
import { abortable } from "./retry.js";
import { type Fetch, fetched } from "./transport.js";

/** Where the token of a request comes from. */
export interface Bearer {
  get(signal: AbortSignal | undefined): Promise<string>;
  /** Says that this token was refused; true if another can be had. */
  refused(token: string): boolean;
}

/** A token that somebody else made, such as a connect session's. */
export class FixedToken implements Bearer {
  readonly #token: string;

  constructor(token: string) {
    this.#token = token;
  }

  get(): Promise<string> {
    return Promise.resolve(this.#token);
  }

  refused(): boolean {
    return false;
  }
}

export interface Credentials {
  clientId: string;
  clientSecret: string;
  scope: string | undefined;
}

/** The share of a token's life before its end in which it is fetched anew, and at most how many milliseconds. */
const MARGIN_SHARE = 0.1;
const LONGEST_MARGIN = 60_000;

/** Tokens by client credentials (RFC 6749, section 4.4): one at a time, kept until shortly before its end. */
export class ClientCredentials implements Bearer {
  readonly #url: string;
  readonly #fetch: Fetch;
  readonly #credentials: Credentials;
  readonly #timeout: number;
  #current: { token: string; until: number } | undefined;
  #underWay: Promise<string> | undefined;

  constructor(base: string, fetch: Fetch, credentials: Credentials, timeout: number) {
    this.#url = `${base}/oauth2/token`;
    this.#fetch = fetch;
    this.#credentials = credentials;
    this.#timeout = timeout;
  }

  async get(signal: AbortSignal | undefined): Promise<string> {
    if (this.#current && Date.now() < this.#current.until) return this.#current.token;
    // Shared by all who wait, so that no caller's abort ends it for the others.
    this.#underWay ??= this.#request().finally(() => {
      this.#underWay = undefined;
    });
    return abortable(this.#underWay, signal);
  }

  refused(token: string): boolean {
    // Of many who were refused with one token, the first drops it; the others find its successor.
    if (this.#current?.token === token) this.#current = undefined;
    return true;
  }

  async #request(): Promise<string> {
    const began = Date.now();
    const { clientId, clientSecret, scope } = this.#credentials;
    const form = new URLSearchParams({ grant_type: "client_credentials" });
    if (scope !== undefined) form.set("scope", scope);
    // Both halves are form-encoded first (RFC 6749, section 2.3.1).
    const basic = btoa(`${encodeURIComponent(clientId)}:${encodeURIComponent(clientSecret)}`);
    const { response, text } = await fetched(
      this.#fetch,
      this.#url,
      {
        method: "POST",
        headers: {
          accept: "application/json",
          authorization: `Basic ${basic}`,
          "content-type": "application/x-www-form-urlencoded",
        },
        body: form.toString(),
      },
      { timeout: this.#timeout },
    );
    if (!response.ok) throw problemOf(response, text);
    const { token, seconds } = parsed(text, response.status);
    const margin = Math.min(seconds * 1000 * MARGIN_SHARE, LONGEST_MARGIN);
    this.#current = { token, until: began + seconds * 1000 - margin };
    return token;
  }
}

function parsed(text: string, status: number): { token: string; seconds: number } {
  try {
    const { access_token: token, expires_in: seconds } = JSON.parse(text) as Record<string, unknown>;
    if (typeof token === "string" && token) {
      return { token, seconds: typeof seconds === "number" && seconds > 0 ? seconds : 60 };
    }
  } catch {
    // As below.
  }
  throw new StrongroomProblem(status, { detail: "The token endpoint's answer holds no token." });
}
