// What a page is told if something does not work: `{ code }`, for which the page has the words. Nothing of Strongroom's
// `detail` goes to it: that is written for developers, and goes into the log.
import { StrongroomNetworkError, StrongroomProblem } from "@strongroom/client";

/** A refusal of this backend's own. */
export class Refusal extends Error {
  constructor(status, code, more = {}) {
    super(code);
    this.status = status;
    this.code = code;
    this.more = more;
  }
}

// Strongroom's refusals that mean something to a user. Every other one is a defect, here or in the configuration.
const TOLD = new Set([
  "connection_needs_attention", // 409: the user has to log in at the bank again before anything is called
  "connection_not_active", // 409: it was disconnected, perhaps in another tab
  "not_found", // 404
  "too_many_requests", // 429, with Retry-After: many calls wait for this connection
  "upstream_failed", // 502: no usable answer from the bank link. What was asked for may have been done
  "upstream_timeout", // 504: the same
]);

function refusalOf(error) {
  if (error instanceof Refusal) return error;
  if (error instanceof StrongroomProblem) {
    const more = error.retryAfter === undefined ? {} : { retryAfter: error.retryAfter };
    if (TOLD.has(error.code)) return new Refusal(error.status, error.code, more);
    // By the request's id Strongroom's operator finds the rest.
    console.error(`Strongroom refused: ${error.message} (request ${error.requestID})`);
    return error.status === 503 ? new Refusal(503, "unavailable", more) : new Refusal(500, "internal");
  }
  // The client has repeated by now what may be repeated.
  if (error instanceof StrongroomNetworkError) {
    console.error(`Strongroom was not reached: ${error.message}`);
    return new Refusal(503, "unavailable");
  }
  // Express's own, such as a body that is not JSON.
  if (error.status >= 400 && error.status < 500) return new Refusal(error.status, "invalid_request");
  console.error(error);
  return new Refusal(500, "internal");
}

/** The last of Express's handlers, which knows it by its four parameters. */
export function answerError(error, _request, response, next) {
  if (response.headersSent) return next(error);
  const { status, code, more } = refusalOf(error);
  response.status(status).json({ code, ...more });
}
