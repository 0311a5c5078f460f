import type { LinkResult } from "@strongroom/client";

/** What a bank link reports. The first result counts; an exit after it changes nothing. */
export interface LinkEvents {
  onResult(result: LinkResult): void;
  /** The user left; with an error, the bank link itself failed. */
  onExit(error?: unknown): void;
}

export interface OpenedLink {
  /** Closes the bank link, if the page that opened it goes away first. */
  close?: (() => void) | undefined;
}

/** Opens a bank link. */
export type OpenLink = (events: LinkEvents) => OpenedLink | void | Promise<OpenedLink | void>;

/** What Dapi's Connect calls, under the names of its versions. */
export interface DapiCallbacks {
  onSuccess(result: unknown): void;
  onSuccessfulConnection(result: unknown): void;
  onFailure(error: unknown): void;
  onFailedConnection(error: unknown): void;
  onExit(): void;
}

/**
 * Dapi's Connect, whose script the page brings. `create` is given the callbacks and returns what Dapi's own `create`
 * does; what it returns is opened, if it can be.
 */
export function dapiConnect(
  create: (callbacks: DapiCallbacks) => { open?: () => void; close?: () => void } | void,
): OpenLink {
  return ({ onResult, onExit }) => {
    const succeed = (result: unknown) => onResult(result as LinkResult);
    const fail = (error: unknown) => onExit(error ?? new Error("Connect failed"));
    const handler = create({
      onSuccess: succeed,
      onSuccessfulConnection: succeed,
      onFailure: fail,
      onFailedConnection: fail,
      onExit: () => onExit(),
    });
    handler?.open?.();
    return { close: () => handler?.close?.() };
  };
}

interface PlaidHandler {
  open(): void;
  destroy?(): void;
}

/** What Plaid's script puts on the page, as far as it is used here. */
export interface PlaidScript {
  create(config: Record<string, unknown>): PlaidHandler;
}

export interface PlaidLinkOptions {
  /** The `link_token` that the backend made, or how to get it. */
  token: string | (() => Promise<string>);
  /** Plaid's script; `window.Plaid` if left out, which is loaded if it is not there. */
  plaid?: PlaidScript;
  /** After a bank's page led back (OAuth): the address that it led to. */
  receivedRedirectUri?: string;
  /** Link's events, for analytics. */
  onEvent?: (name: string, metadata: unknown) => void;
}

const PLAID_SCRIPT = "https://cdn.plaid.com/link/v2/stable/link-initialize.js";

/** Plaid's Link. */
export function plaidLink(options: PlaidLinkOptions): OpenLink {
  return async ({ onResult, onExit }) => {
    const plaid = options.plaid ?? (await loadedPlaid());
    const token = typeof options.token === "string" ? options.token : await options.token();
    const config: Record<string, unknown> = {
      token,
      onSuccess: (publicToken: string, metadata: unknown) => onResult({ public_token: publicToken, metadata }),
      onExit: (error: unknown) => onExit(error ?? undefined),
    };
    if (options.receivedRedirectUri) config["receivedRedirectUri"] = options.receivedRedirectUri;
    if (options.onEvent) config["onEvent"] = options.onEvent;
    const handler = plaid.create(config);
    handler.open();
    return { close: () => handler.destroy?.() };
  };
}

async function loadedPlaid(): Promise<PlaidScript> {
  const found = () => (globalThis as { Plaid?: PlaidScript }).Plaid;
  if (!found()) await loadScript(PLAID_SCRIPT);
  const plaid = found();
  if (!plaid) throw new Error("Plaid's script did not load");
  return plaid;
}

const scripts = new Map<string, Promise<void>>();

/** Loads a script once. */
export function loadScript(src: string): Promise<void> {
  let loading = scripts.get(src);
  if (!loading) {
    loading = new Promise<void>((resolve, reject) => {
      const element = Object.assign(document.createElement("script"), { src, async: true });
      element.onload = () => resolve();
      element.onerror = () => {
        // The next attempt loads it anew.
        scripts.delete(src);
        element.remove();
        reject(new Error(`${src} did not load`));
      };
      document.head.append(element);
    });
    scripts.set(src, loading);
  }
  return loading;
}

const CLOSED_CHECK_MILLIS = 500;
const SANDBOX_SOURCES = ["dapi-sandbox-connect", "plaid-sandbox-link"];

export interface SandboxLinkOptions {
  /** Connect's page, or Link's. */
  page?: "connect" | "link";
  /** For Link: the `link_token` that the backend made, or how to get it, as {@link plaidLink} takes it. */
  token?: string | (() => Promise<string>);
  /** What else the page takes, such as `clientUserID`. */
  query?: Record<string, string>;
}

/** The page of `strongroom sandbox` in a popup, in Connect's (`connect`) or Link's (`link`) place. */
export function sandboxLink(sandboxUrl: string, options: SandboxLinkOptions = {}): OpenLink {
  return ({ onResult, onExit }) => {
    const { origin } = new URL(sandboxUrl);
    const address = (token?: string) => {
      const query = new URLSearchParams({ ...options.query, ...(token && { token }), origin: location.origin });
      return `${origin}/${options.page === "link" ? "plaid/link" : "connect"}?${query}`;
    };
    const { token } = options;
    // A popup opens in the click itself, or it may be kept closed: one that waits for its token is blank until then.
    const url = typeof token === "function" ? "about:blank" : address(token);
    const popup = window.open(url, "connect", "width=460,height=760");
    if (!popup) return onExit(new Error("The browser kept the popup from opening"));
    const stop = () => {
      window.removeEventListener("message", hear);
      clearInterval(closed);
    };
    const hear = (message: MessageEvent) => {
      const data = message.data as { source?: string; event?: string; result?: LinkResult } | null;
      if (message.origin !== origin || !SANDBOX_SOURCES.includes(data?.source ?? "")) return;
      // After a failure the page lets the user try again.
      if (data?.event === "failure") return;
      stop();
      if (data?.event === "success" && data.result) onResult(data.result);
      else onExit();
    };
    window.addEventListener("message", hear);
    // A window can be gone before what it said last is heard: it is looked at once more.
    let gone = false;
    const closed = setInterval(() => {
      if (!popup.closed) return;
      if (!gone) {
        gone = true;
        return;
      }
      stop();
      onExit();
    }, CLOSED_CHECK_MILLIS);
    const close = () => {
      stop();
      popup.close();
    };
    if (typeof token === "function") {
      token().then(
        (text) => popup.location.replace(address(text)),
        (error: unknown) => {
          close();
          onExit(error);
        },
      );
    }
    return { close };
  };
}
