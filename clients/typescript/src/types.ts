// The shapes of requests and answers, taken from the OpenAPI document by path: names of its schemas may change
// without changing these.
import type { paths } from "./openapi.js";

type Json<R> = R extends { content: { "application/json": infer T } } ? T : never;
type Success<O> = O extends { responses: infer R } ? Json<R[Extract<keyof R, 200 | 201 | 202>]> : never;
type Body<O> = O extends { requestBody?: infer B } ? Json<NonNullable<B>> : never;
type Query<O> = O extends { parameters: { query?: infer Q } } ? NonNullable<Q> : never;

/** A connection: one linked bank login of one user. Never has a secret in it. */
export type Connection = Success<paths["/v1/connections/{id}"]["get"]>;
/** `pending`, `active`, `rejected`, … */
export type ConnectionStatus = Connection["status"];
/** One page of connections. */
export type ConnectionList = Success<paths["/v1/connections"]["get"]>;
/** Filters of {@link Strongroom.listConnections}. */
export type ConnectionFilter = Query<paths["/v1/connections"]["get"]>;
/** A connect session: `{ token, expiresAt, clientUserID }`. */
export type ConnectSession = Success<paths["/v1/connect-sessions"]["post"]>;
export type ConnectSessionRequest = Body<paths["/v1/connect-sessions"]["post"]>;

/** What Dapi's Connect hands to a page, as it came; with `clientUserID` if a backend hands it in. */
export interface DapiResult {
  success: boolean;
  accessCode: string;
  userSecret: string;
  connectionID: string;
  userID?: string | null;
  tokenID?: string | null;
  clientUserID?: string | null;
  [more: string]: unknown;
}

/** What Plaid's Link hands to a page, as `onSuccess` has it; with `clientUserID` if a backend hands it in. */
export interface PlaidResult {
  public_token: string;
  metadata?: unknown;
  clientUserID?: string | null;
  [more: string]: unknown;
}

/** A bank link's result. */
export type LinkResult = DapiResult | PlaidResult;

export type ImportRequest = Body<paths["/v1/connections/import"]["post"]> | PlaidImportRequest;

/** A Plaid token that an app holds already. */
export interface PlaidImportRequest {
  clientUserID: string;
  accessToken: string;
  itemID: string;
  verify?: boolean;
}

export type RevealRequest = Body<paths["/v1/connections/{id}/token"]["post"]>;
/** Holds the access token and the user secret in the clear. */
export type RevealedToken = Success<paths["/v1/connections/{id}/token"]["post"]>;
export type InvalidateRequest = Body<paths["/v1/connections/{id}/invalidate"]["post"]>;
export type ErasureReceipt = Success<paths["/v1/users/erasures/{id}"]["get"]>;

/** A token of another API: `{ access_token, token_type, expires_in }`. */
export type UpstreamToken = Success<paths["/v1/upstreams/{name}/token"]["post"]>;
export type Upstream = Success<paths["/v1/admin/upstreams/{name}"]["get"]>;
export type UpstreamList = Success<paths["/v1/admin/upstreams"]["get"]>;
export type UpstreamRequest = Body<paths["/v1/admin/upstreams"]["post"]>;
export type UpstreamChange = Body<paths["/v1/admin/upstreams/{name}"]["patch"]>;

/** Events, oldest first, and the `after` of the next request. */
export type EventList = Success<paths["/v1/events"]["get"]>;
/** What happened: `connection.active`, `user.erased`, …, with the resource as it then was. */
export type StrongroomEvent = EventList["events"][number];
/** Filters of {@link Strongroom.listEvents}. */
export type EventFilter = Query<paths["/v1/events"]["get"]>;

export type Webhook = Success<paths["/v1/admin/webhooks/{id}"]["get"]>;
export type WebhookList = Success<paths["/v1/admin/webhooks"]["get"]>;
export type WebhookRequest = Body<paths["/v1/admin/webhooks"]["post"]>;
/** Holds the webhook's secret, which is shown this once. */
export type CreatedWebhook = Success<paths["/v1/admin/webhooks"]["post"]>;
export type WebhookChange = Body<paths["/v1/admin/webhooks/{id}"]["patch"]>;
export type AddWebhookSecret = Body<paths["/v1/admin/webhooks/{id}/secrets"]["post"]>;
/** Holds the new secret, which is shown this once. */
export type CreatedWebhookSecret = Success<paths["/v1/admin/webhooks/{id}/secrets"]["post"]>;
export type WebhookTest = Success<paths["/v1/admin/webhooks/{id}/test"]["post"]>;
export type ReplayRequest = Body<paths["/v1/admin/webhooks/{id}/replay"]["post"]>;
export type Replay = Success<paths["/v1/admin/webhooks/{id}/replay"]["post"]>;
export type WebhookDeliveryList = Success<paths["/v1/admin/webhooks/{id}/deliveries"]["get"]>;
export type WebhookDeliveryPage = Query<paths["/v1/admin/webhooks/{id}/deliveries"]["get"]>;

export type ClientDetails = Success<paths["/v1/admin/clients/{clientID}"]["get"]>;
export type ClientList = Success<paths["/v1/admin/clients"]["get"]>;
export type ClientPage = Query<paths["/v1/admin/clients"]["get"]>;
export type CreateClient = Body<paths["/v1/admin/clients"]["post"]>;
/** Holds the client's secret, which is shown this once. */
export type CreatedClient = Success<paths["/v1/admin/clients"]["post"]>;
export type ChangeClient = Body<paths["/v1/admin/clients/{clientID}"]["patch"]>;
export type AddSecret = Body<paths["/v1/admin/clients/{clientID}/secrets"]["post"]>;
/** Holds the new secret, which is shown this once. */
export type CreatedSecret = Success<paths["/v1/admin/clients/{clientID}/secrets"]["post"]>;

export type AdminConnectionList = Success<paths["/v1/admin/connections"]["get"]>;
export type AdminConnectionFilter = Query<paths["/v1/admin/connections"]["get"]>;
export type AdminConnectionWithHistory = Success<paths["/v1/admin/connections/{id}"]["get"]>;
export type ConnectionStats = Success<paths["/v1/admin/stats"]["get"]>;

export type BulkRevocation = Success<paths["/v1/admin/revocations/{id}"]["get"]>;
export type BulkRevocationList = Success<paths["/v1/admin/revocations"]["get"]>;
export type BulkRevocationPage = Query<paths["/v1/admin/revocations"]["get"]>;
export type BulkRevocationRequest = Body<paths["/v1/admin/revocations"]["post"]>;
/** A request that waits for a second person, or did. */
export type Approval = Success<paths["/v1/admin/approvals/{id}"]["get"]>;
export type ApprovalList = Success<paths["/v1/admin/approvals"]["get"]>;
export type ApprovalPage = Query<paths["/v1/admin/approvals"]["get"]>;
/** What is answered where the service has four eyes on: nothing was done, and this waits for a second person. */
export type AwaitingApproval = { approval: { id: string; status: Approval["status"]; expiresAt: string } };
/** A bulk revocation, or with `dryRun` what it would do, or with four eyes on what it waits for. */
export type BulkRevocationAnswer = Success<paths["/v1/admin/revocations"]["post"]>;

export type AuditEventList = Success<paths["/v1/admin/audit-events"]["get"]>;
export type AuditFilter = Query<paths["/v1/admin/audit-events"]["get"]>;
export type AuditCheckpoint = Success<paths["/v1/admin/audit-checkpoint"]["get"]>;

/** An answer of the bank link's own, whatever its status. */
export interface RelayAnswer<T = Record<string, unknown>> {
  /** The bank link's HTTP status; `ok` is true for 2xx. */
  readonly status: number;
  readonly ok: boolean;
  /** Its JSON, parsed. */
  readonly body: T;
  /** Its JSON as it came, for numbers that JavaScript would round. */
  readonly text: string;
  /** Seconds after which the bank link wants to be asked again, if it says so. */
  readonly retryAfter: number | undefined;
}
