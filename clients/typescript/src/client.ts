import { StrongroomError, StrongroomTimeoutError } from "./errors.js";
import { Listing } from "./listing.js";
import { retryAfterOf, sleep } from "./retry.js";
import { ClientCredentials, FixedToken } from "./token.js";
import { type Answer, type Call, checkedBase, type Fetch, type RequestOptions, segment, segments, Transport } from "./transport.js";
import type * as t from "./types.js";

/** What every client is made with. */
export interface CommonOptions {
  /** Where Strongroom is, such as `https://strongroom.internal`. */
  baseUrl: string;
  /** In place of the global `fetch`, for instance with a proxy or certificates of your own. */
  fetch?: Fetch;
  /** Milliseconds for one attempt; 30,000 if left out. Calls that are passed on have `relayTimeout`. */
  timeout?: number;
  /** Milliseconds for a call that is passed on, which may wait for its turn first; 300,000 if left out. */
  relayTimeout?: number;
  /** How many times a request that is safe to repeat is repeated; 4 if left out. */
  retries?: number;
}

/** With client credentials, for backends alone. */
export interface ClientCredentialsOptions extends CommonOptions {
  clientId: string;
  clientSecret: string;
  /** The scopes to ask for, separated by spaces; all of the client's if left out. */
  scope?: string;
}

/** With a connect session, for the page of the user whom it belongs to. */
export interface SessionOptions extends CommonOptions {
  /** The connect session, or its `token`. */
  session: string | { token: string };
}

export type StrongroomOptions = ClientCredentialsOptions | SessionOptions;

/** How to wait for a connection. */
export interface WaitOptions extends RequestOptions {
  /** What to wait for; that it is no longer `pending` if left out. */
  until?: (connection: t.Connection) => boolean;
  /** Milliseconds in all; 300,000 if left out. */
  within?: number;
  /** Milliseconds before the first look, growing by half each time up to 15,000; 2,000 if left out. */
  interval?: number;
}

/** What may go along with a call through an upstream. */
export interface UpstreamOptions extends RequestOptions {
  headers?: Record<string, string>;
  query?: Record<string, string | number | boolean | undefined>;
}

const LONGEST_INTERVAL = 15_000;
const SAFE = { repeatable: true };
/** A repeat would make another one, or answer 404 for what the first request removed. */
const ONCE = { repeatable: false };

/**
 * A client of Strongroom. Its methods are named as the operations of the OpenAPI document.
 *
 * ```js
 * const strongroom = new Strongroom({ baseUrl, clientId, clientSecret });
 * const session = await strongroom.createConnectSession({ clientUserID: "ada" });
 * ```
 */
export class Strongroom {
  readonly #baseUrl: string;
  readonly #transport: Transport;
  readonly #timeout: number;
  readonly #relayTimeout: number;
  readonly #retries: number;

  constructor(options: StrongroomOptions) {
    this.#baseUrl = checkedBase(options.baseUrl);
    this.#timeout = options.timeout ?? 30_000;
    this.#relayTimeout = options.relayTimeout ?? 300_000;
    this.#retries = options.retries ?? 4;
    // Looked up at each call, because some tools replace the global one later.
    const fetch: Fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    this.#transport = new Transport(this.#baseUrl, fetch, bearerOf(options, this.#baseUrl, fetch, this.#timeout));
  }

  /** Names the client without its secret. */
  toString(): string {
    return `Strongroom(${this.#baseUrl})`;
  }

  /** Says as much as {@link toString}: nothing in here is to be stored or printed. */
  toJSON(): string {
    return this.toString();
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }

  // ----------------------------------------------------------------------------------------------
  // Connections

  /** Makes a connect session, with which one browser hands in one user's results. */
  createConnectSession(request: t.ConnectSessionRequest, options?: RequestOptions): Promise<t.ConnectSession> {
    return this.#json("POST", "/v1/connect-sessions", { ...options, ...SAFE, body: request });
  }

  /**
   * Hands in a bank link's result. The same code gives the same connection, so that it is repeated until an answer
   * comes. `pending` means received and safe: see {@link waitForConnection}.
   */
  createConnection(result: t.LinkResult, options?: RequestOptions): Promise<t.Connection> {
    return this.#json("POST", "/v1/connections", { ...options, ...SAFE, body: result, keepalive: true });
  }

  /** Moves a token in that the app holds already. */
  importConnection(request: t.ImportRequest, options?: RequestOptions): Promise<t.Connection> {
    const timeout = "verify" in request && request.verify ? this.#relayTimeout : this.#timeout;
    return this.#json("POST", "/v1/connections/import", { timeout, ...options, ...SAFE, body: request });
  }

  listConnections(filter?: t.ConnectionFilter, options?: RequestOptions): Listing<t.ConnectionList, t.Connection> {
    return this.#list("/v1/connections", filter, options, (page: t.ConnectionList) => page.connections);
  }

  getConnection(id: string, options?: RequestOptions): Promise<t.Connection> {
    return this.#json("GET", `/v1/connections/${segment(id)}`, { ...options, ...SAFE });
  }

  /**
   * Looks at a connection until it is no longer `pending`, and returns it with the status that it then has, whether
   * that is `active` or not. Throws a {@link StrongroomTimeoutError} if it takes longer than `within`.
   */
  async waitForConnection(id: string, options: WaitOptions = {}): Promise<t.Connection> {
    const { until = (found) => found.status !== "pending", within = 300_000, interval = 2_000, ...request } = options;
    const end = Date.now() + within;
    for (let wait = interval; ; wait = Math.min(wait * 1.5, LONGEST_INTERVAL)) {
      const answer = await this.#send("GET", `/v1/connections/${segment(id)}`, { ...request, ...SAFE });
      const connection = JSON.parse(answer.text) as t.Connection;
      if (until(connection)) return connection;
      const asked = (retryAfterOf(answer.response.headers) ?? 0) * 1000;
      const left = end - Date.now();
      if (left <= 0) throw new StrongroomTimeoutError(`${id} is still ${connection.status} after ${within} ms`);
      await sleep(Math.min(Math.max(wait, asked), left), options.signal);
    }
  }

  /** Reads a token in the clear, which goes into the audit trail with the reason. Prefer {@link callDapi}. */
  revealToken(id: string, request: t.RevealRequest, options?: RequestOptions): Promise<t.RevealedToken> {
    return this.#json("POST", `/v1/connections/${segment(id)}/token`, { ...options, ...SAFE, body: request });
  }

  /** Says that the reader of a token of Plaid's is done with it: it is replaced, if the app wants that. */
  releaseToken(id: string, options?: RequestOptions): Promise<t.Connection> {
    return this.#json("DELETE", `/v1/connections/${segment(id)}/token`, { ...options, ...SAFE });
  }

  /** Ends a connection by the user's wish. `revoking` is final for the app too. */
  delinkConnection(id: string, options?: RequestOptions): Promise<t.Connection> {
    return this.#json("POST", `/v1/connections/${segment(id)}/delink`, { ...options, ...SAFE });
  }

  /** Ends a connection by the app's wish. */
  invalidateConnection(
    id: string,
    request: t.InvalidateRequest,
    options?: RequestOptions,
  ): Promise<t.Connection | t.AwaitingApproval> {
    return this.#json("POST", `/v1/connections/${segment(id)}/invalidate`, { ...options, ...SAFE, body: request });
  }

  /** Says that the user has put right what kept the connection from being used. */
  clearAttention(id: string, options?: RequestOptions): Promise<t.Connection> {
    return this.#json("DELETE", `/v1/connections/${segment(id)}/attention`, { ...options, ...SAFE });
  }

  /**
   * Calls Dapi on a connection's behalf, such as `callDapi(id, "data/accounts/get")`. Resolves with Dapi's answer,
   * refusals included; throws a problem if Strongroom refuses. It is never sent again if it may have arrived.
   */
  callDapi<T = Record<string, unknown>>(id: string, path: string, body?: object | string, options?: RequestOptions) {
    return this.#relay<T>(id, "dapi", path, body, options);
  }

  /** Calls Plaid on a connection's behalf, such as `callPlaid(id, "accounts/get")`; see {@link callDapi}. */
  callPlaid<T = Record<string, unknown>>(id: string, path: string, body?: object | string, options?: RequestOptions) {
    return this.#relay<T>(id, "plaid", path, body, options);
  }

  /** Makes a `link_token` for Plaid's Link; the body is Plaid's without `client_id` and `secret`, with `clientUserID`. */
  createPlaidLinkToken<T = { link_token: string; expiration: string }>(
    request: object,
    options?: RequestOptions,
  ): Promise<t.RelayAnswer<T>> {
    return this.#relayed<T>("/v1/plaid/link-token", request, options);
  }

  // ----------------------------------------------------------------------------------------------
  // Users

  /** Revokes everything of a user's and destroys it. `receipt` says when it is through; see {@link getErasure}. */
  eraseUser(clientUserID: string, options?: RequestOptions): Promise<t.ErasureReceipt | t.AwaitingApproval> {
    return this.#json("DELETE", `/v1/users/${segment(clientUserID)}`, { ...options, ...SAFE });
  }

  getErasure(id: string, options?: RequestOptions): Promise<t.ErasureReceipt> {
    return this.#json("GET", `/v1/users/erasures/${segment(id)}`, { ...options, ...SAFE });
  }

  // ----------------------------------------------------------------------------------------------
  // Events

  /**
   * The app's events, oldest first. Go on with `after: nextCursor`, which is never `null`; with `wait` the answer is held
   * for so many seconds, up to 30, until there is an event.
   */
  listEvents(filter?: t.EventFilter, options?: RequestOptions): Promise<t.EventList> {
    const timeout = this.#timeout + (filter?.wait ?? 0) * 1000;
    return this.#json("GET", "/v1/events", { timeout, ...options, ...SAFE, query: filter });
  }

  /** Adds a webhook. Its secret is in this answer and nowhere else. */
  createWebhook(request: t.WebhookRequest, options?: RequestOptions): Promise<t.CreatedWebhook> {
    return this.#json("POST", "/v1/admin/webhooks", { ...options, ...ONCE, body: request });
  }

  listWebhooks(options?: RequestOptions): Promise<t.WebhookList> {
    return this.#json("GET", "/v1/admin/webhooks", { ...options, ...SAFE });
  }

  getWebhook(id: string, options?: RequestOptions): Promise<t.Webhook> {
    return this.#json("GET", `/v1/admin/webhooks/${segment(id)}`, { ...options, ...SAFE });
  }

  updateWebhook(id: string, change: t.WebhookChange, options?: RequestOptions): Promise<t.Webhook> {
    return this.#json("PATCH", `/v1/admin/webhooks/${segment(id)}`, { ...options, ...SAFE, body: change });
  }

  deleteWebhook(id: string, options?: RequestOptions): Promise<void> {
    return this.#nothing("DELETE", `/v1/admin/webhooks/${segment(id)}`, { ...options, ...ONCE });
  }

  createWebhookSecret(id: string, request: t.AddWebhookSecret = {}, options?: RequestOptions): Promise<t.CreatedWebhookSecret> {
    return this.#json("POST", `/v1/admin/webhooks/${segment(id)}/secrets`, { ...options, ...ONCE, body: request });
  }

  deleteWebhookSecret(id: string, secretID: string, options?: RequestOptions): Promise<void> {
    const path = `/v1/admin/webhooks/${segment(id)}/secrets/${segment(secretID)}`;
    return this.#nothing("DELETE", path, { ...options, ...ONCE });
  }

  /** Sends a test event to a webhook; {@link listWebhookDeliveries} shows how it went. */
  testWebhook(id: string, options?: RequestOptions): Promise<t.WebhookTest> {
    return this.#json("POST", `/v1/admin/webhooks/${segment(id)}/test`, { ...options, ...ONCE });
  }

  /** Sends the events of a range of time to a webhook once more. */
  replayWebhook(id: string, request: t.ReplayRequest, options?: RequestOptions): Promise<t.Replay> {
    return this.#json("POST", `/v1/admin/webhooks/${segment(id)}/replay`, { ...options, ...ONCE, body: request });
  }

  listWebhookDeliveries(
    id: string,
    page?: t.WebhookDeliveryPage,
    options?: RequestOptions,
  ): Listing<t.WebhookDeliveryList, t.WebhookDeliveryList["deliveries"][number]> {
    const path = `/v1/admin/webhooks/${segment(id)}/deliveries`;
    return this.#list(path, page, options, (found: t.WebhookDeliveryList) => found.deliveries);
  }

  // ----------------------------------------------------------------------------------------------
  // Other APIs

  /** A token of another API, from Strongroom's cache. Take it anew for each piece of work. */
  getUpstreamToken(name: string, options?: RequestOptions): Promise<t.UpstreamToken> {
    return this.#json("POST", `/v1/upstreams/${segment(name)}/token`, { ...options, ...SAFE });
  }

  /** Calls another API. Resolves with its answer, whatever the status; throws a problem if Strongroom refuses. */
  getThroughUpstream(name: string, path: string, options?: UpstreamOptions): Promise<Response> {
    return this.#through("GET", name, path, undefined, options);
  }

  deleteThroughUpstream(name: string, path: string, body?: unknown, options?: UpstreamOptions): Promise<Response> {
    return this.#through("DELETE", name, path, body, options);
  }

  postThroughUpstream(name: string, path: string, body?: unknown, options?: UpstreamOptions): Promise<Response> {
    return this.#through("POST", name, path, body, options);
  }

  putThroughUpstream(name: string, path: string, body?: unknown, options?: UpstreamOptions): Promise<Response> {
    return this.#through("PUT", name, path, body, options);
  }

  patchThroughUpstream(name: string, path: string, body?: unknown, options?: UpstreamOptions): Promise<Response> {
    return this.#through("PATCH", name, path, body, options);
  }

  // ----------------------------------------------------------------------------------------------
  // Administration

  createClient(request: t.CreateClient, options?: RequestOptions): Promise<t.CreatedClient> {
    return this.#json("POST", "/v1/admin/clients", { ...options, ...ONCE, body: request });
  }

  listClients(page?: t.ClientPage, options?: RequestOptions): Listing<t.ClientList, t.ClientList["clients"][number]> {
    return this.#list("/v1/admin/clients", page, options, (found: t.ClientList) => found.clients);
  }

  getClient(clientID: string, options?: RequestOptions): Promise<t.ClientDetails> {
    return this.#json("GET", `/v1/admin/clients/${segment(clientID)}`, { ...options, ...SAFE });
  }

  updateClient(clientID: string, change: t.ChangeClient, options?: RequestOptions): Promise<t.ClientDetails> {
    return this.#json("PATCH", `/v1/admin/clients/${segment(clientID)}`, { ...options, ...SAFE, body: change });
  }

  deleteClient(clientID: string, options?: RequestOptions): Promise<void> {
    return this.#nothing("DELETE", `/v1/admin/clients/${segment(clientID)}`, { ...options, ...ONCE });
  }

  createClientSecret(clientID: string, request: t.AddSecret = {}, options?: RequestOptions): Promise<t.CreatedSecret> {
    const path = `/v1/admin/clients/${segment(clientID)}/secrets`;
    return this.#json("POST", path, { ...options, ...ONCE, body: request });
  }

  deleteClientSecret(clientID: string, secretID: string, options?: RequestOptions): Promise<void> {
    const path = `/v1/admin/clients/${segment(clientID)}/secrets/${segment(secretID)}`;
    return this.#nothing("DELETE", path, { ...options, ...ONCE });
  }

  searchConnections(
    filter?: t.AdminConnectionFilter,
    options?: RequestOptions,
  ): Listing<t.AdminConnectionList, t.AdminConnectionList["connections"][number]> {
    return this.#list("/v1/admin/connections", filter, options, (page: t.AdminConnectionList) => page.connections);
  }

  getConnectionHistory(id: string, options?: RequestOptions): Promise<t.AdminConnectionWithHistory> {
    return this.#json("GET", `/v1/admin/connections/${segment(id)}`, { ...options, ...SAFE });
  }

  getConnectionStats(options?: RequestOptions): Promise<t.ConnectionStats> {
    return this.#json("GET", "/v1/admin/stats", { ...options, ...SAFE });
  }

  /** Revokes many connections. An `Idempotency-Key` is made if none is given, so that a repeat revokes once. */
  createRevocation(
    request: t.BulkRevocationRequest,
    options?: RequestOptions & { idempotencyKey?: string },
  ): Promise<t.BulkRevocationAnswer> {
    const { idempotencyKey = globalThis.crypto.randomUUID(), ...rest } = options ?? {};
    const headers = { "idempotency-key": idempotencyKey };
    return this.#json("POST", "/v1/admin/revocations", { ...rest, ...SAFE, headers, body: request });
  }

  listRevocations(
    page?: t.BulkRevocationPage,
    options?: RequestOptions,
  ): Listing<t.BulkRevocationList, t.BulkRevocation> {
    return this.#list("/v1/admin/revocations", page, options, (found: t.BulkRevocationList) => found.revocations);
  }

  getRevocation(id: string, options?: RequestOptions): Promise<t.BulkRevocation> {
    return this.#json("GET", `/v1/admin/revocations/${segment(id)}`, { ...options, ...SAFE });
  }

  pauseRevocation(id: string, options?: RequestOptions): Promise<t.BulkRevocation> {
    return this.#json("POST", `/v1/admin/revocations/${segment(id)}/pause`, { ...options, ...ONCE });
  }

  resumeRevocation(id: string, options?: RequestOptions): Promise<t.BulkRevocation> {
    return this.#json("POST", `/v1/admin/revocations/${segment(id)}/resume`, { ...options, ...ONCE });
  }

  cancelRevocation(id: string, options?: RequestOptions): Promise<t.BulkRevocation | t.AwaitingApproval> {
    return this.#json("POST", `/v1/admin/revocations/${segment(id)}/cancel`, { ...options, ...ONCE });
  }

  listApprovals(page?: t.ApprovalPage, options?: RequestOptions): Listing<t.ApprovalList, t.Approval> {
    return this.#list("/v1/admin/approvals", page, options, (found: t.ApprovalList) => found.approvals);
  }

  getApproval(id: string, options?: RequestOptions): Promise<t.Approval> {
    return this.#json("GET", `/v1/admin/approvals/${segment(id)}`, { ...options, ...SAFE });
  }

  withdrawApproval(id: string, options?: RequestOptions): Promise<t.Approval> {
    return this.#json("POST", `/v1/admin/approvals/${segment(id)}/withdraw`, { ...options, ...ONCE });
  }

  createUpstream(request: t.UpstreamRequest, options?: RequestOptions): Promise<t.Upstream> {
    return this.#json("POST", "/v1/admin/upstreams", { ...options, ...ONCE, body: request });
  }

  listUpstreams(options?: RequestOptions): Listing<t.UpstreamList, t.UpstreamList["upstreams"][number]> {
    return this.#list("/v1/admin/upstreams", undefined, options, (page: t.UpstreamList) => page.upstreams);
  }

  getUpstream(name: string, options?: RequestOptions): Promise<t.Upstream> {
    return this.#json("GET", `/v1/admin/upstreams/${segment(name)}`, { ...options, ...SAFE });
  }

  updateUpstream(name: string, change: t.UpstreamChange, options?: RequestOptions): Promise<t.Upstream> {
    return this.#json("PATCH", `/v1/admin/upstreams/${segment(name)}`, { ...options, ...SAFE, body: change });
  }

  deleteUpstream(name: string, options?: RequestOptions): Promise<void> {
    return this.#nothing("DELETE", `/v1/admin/upstreams/${segment(name)}`, { ...options, ...ONCE });
  }

  listAuditEvents(
    filter?: t.AuditFilter,
    options?: RequestOptions,
  ): Listing<t.AuditEventList, t.AuditEventList["events"][number]> {
    return this.#list("/v1/admin/audit-events", filter, options, (page: t.AuditEventList) => page.events);
  }

  getAuditCheckpoint(options?: RequestOptions): Promise<t.AuditCheckpoint> {
    return this.#json("GET", "/v1/admin/audit-checkpoint", { ...options, ...SAFE });
  }

  // ----------------------------------------------------------------------------------------------

  #send(method: string, path: string, call: Omit<Call, "method" | "path">): Promise<Answer> {
    const timeout = call.timeout ?? (call.relayed ? this.#relayTimeout : this.#timeout);
    return this.#transport.send({ ...call, method, path, timeout, retries: call.retries ?? this.#retries });
  }

  async #json<T>(method: string, path: string, call: Omit<Call, "method" | "path">): Promise<T> {
    return parsed<T>((await this.#send(method, path, call)).text);
  }

  async #nothing(method: string, path: string, call: Omit<Call, "method" | "path">): Promise<void> {
    await this.#send(method, path, call);
  }

  #list<Page extends object, Item>(
    path: string,
    filter: object | undefined,
    options: RequestOptions | undefined,
    items: (page: Page) => readonly Item[],
  ): Listing<Page, Item> {
    return new Listing((cursor) => {
      const query = cursor === undefined ? filter : { ...filter, cursor };
      return this.#json<Page>("GET", path, { ...options, ...SAFE, query });
    }, items);
  }

  #relay<T>(id: string, provider: string, path: string, body: object | string = {}, options?: RequestOptions) {
    return this.#relayed<T>(`/v1/connections/${segment(id)}/${provider}/${segments(path)}`, body, options);
  }

  async #relayed<T>(path: string, body: object | string, options?: RequestOptions): Promise<t.RelayAnswer<T>> {
    const { response, text } = await this.#send("POST", path, { ...options, ...ONCE, relayed: true, body });
    const retryAfter = retryAfterOf(response.headers);
    return { status: response.status, ok: response.ok, body: parsed<T>(text), text, retryAfter };
  }

  async #through(method: string, name: string, path: string, body: unknown, options: UpstreamOptions = {}) {
    const whole = `/v1/upstreams/${segment(name)}/proxy/${segments(path)}`;
    const { response, bytes } = await this.#send(method, whole, { ...options, ...ONCE, relayed: true, body });
    const { status, statusText, headers } = response;
    return new Response([204, 205, 304].includes(status) ? null : bytes, { status, statusText, headers });
  }
}

function parsed<T>(text: string): T {
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new StrongroomError("The answer is not JSON; is baseUrl right?");
  }
}

function bearerOf(options: StrongroomOptions, base: string, fetch: Fetch, timeout: number) {
  if ("session" in options && options.session !== undefined) {
    const token = typeof options.session === "string" ? options.session : options.session.token;
    if (!token) throw new TypeError("session is empty");
    return new FixedToken(token);
  }
  const { clientId, clientSecret, scope } = options as ClientCredentialsOptions;
  if (!clientId || !clientSecret) throw new TypeError("clientId and clientSecret, or session, are missing");
  return new ClientCredentials(base, fetch, { clientId, clientSecret, scope }, timeout);
}
