export { type ClientCredentialsOptions, type CommonOptions, type SessionOptions, Strongroom, type StrongroomOptions, type UpstreamOptions, type WaitOptions } from "./client.js";
export { StrongroomError, StrongroomNetworkError, StrongroomProblem, StrongroomTimeoutError } from "./errors.js";
export { Listing } from "./listing.js";
export type { Fetch, RequestOptions } from "./transport.js";
export type * from "./types.js";
