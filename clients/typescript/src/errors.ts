import { retryAfterOf } from "./retry.js";

/** What every error of this package is. */
export class StrongroomError extends Error {
  override name = "StrongroomError";
}

/** No usable answer came: no connection, one that broke, or a redirect. What was asked for may have been done. */
export class StrongroomNetworkError extends StrongroomError {
  override name = "StrongroomNetworkError";
}

/** No answer came in time. What was asked for may have been done. */
export class StrongroomTimeoutError extends StrongroomNetworkError {
  override name = "StrongroomTimeoutError";
}

/**
 * A refusal: a problem document (RFC 9457), or an OAuth error (RFC 6749, section 5.2) with its `error` as `code`.
 * Decide by `code`. An answer of something else, such as a proxy, has the code `unrecognized_answer`.
 */
export class StrongroomProblem extends StrongroomError {
  override name = "StrongroomProblem";
  /** Such as `connection_not_active`; `/problems/{code}` says what it means. */
  readonly code: string;
  /** The HTTP status. */
  readonly status: number;
  readonly title: string;
  /** For developers, not for users. */
  readonly detail: string;
  /** By which Strongroom's operator finds the rest. */
  readonly requestID: string | undefined;
  /** Seconds after which to ask again, if the answer says so. */
  readonly retryAfter: number | undefined;
  /** All members of the document, those of this code included: `id`, `failure`, `connectionStatus`, `field`, … */
  readonly members: Readonly<Record<string, unknown>>;

  constructor(status: number, members: Record<string, unknown>, retryAfter?: number) {
    const text = (name: string) => (typeof members[name] === "string" ? (members[name] as string) : undefined);
    const code = text("code") ?? text("error") ?? "unrecognized_answer";
    const detail = text("detail") ?? text("error_description") ?? `The answer has the status ${status}.`;
    super(`${code} (${status}): ${detail}`);
    this.code = code;
    this.status = status;
    this.title = text("title") ?? code;
    this.detail = detail;
    this.requestID = text("requestID");
    this.retryAfter = retryAfter;
    this.members = members;
  }
}

/** True if Strongroom itself wrote the answer, rather than something between. */
export function isOwn(problem: StrongroomProblem): boolean {
  return typeof problem.members["code"] === "string";
}

export function problemOf(response: Response, text: string): StrongroomProblem {
  let members: Record<string, unknown> = {};
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) {
      members = parsed as Record<string, unknown>;
    }
  } catch {
    // Not a document: the status has to do.
  }
  return new StrongroomProblem(response.status, members, retryAfterOf(response.headers));
}
