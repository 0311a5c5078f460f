// A signed-in browser at the console, and what its tests ask of every page.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import axe from "axe-core";
import { open } from "./browser.mjs";

export const origin = new URL(process.env.SIGN_IN_URL).origin;
export const PHONE = { viewport: { width: 360, height: 740 }, colorScheme: "dark" };

// A one-time link, as the command line makes it.
export function link(operator) {
  const made = execFileSync(process.env.STRONGROOM, ["operators", "link", operator, "--output", "json"]);
  return JSON.parse(made).url;
}

// Opens Now of the only app, or of the first.
async function opened(browser, options) {
  const shown = await open(browser, { reducedMotion: "reduce", ...options }, origin);
  const { page } = shown;
  if (new URL(page.url()).pathname === "/") await page.locator("main a").first().click();
  await page.getByRole("heading", { name: "Now", level: 1 }).waitFor();
  const go = (path) => page.goto(new URL(path, origin).href);
  const app = new URL(page.url()).pathname.replace(/\/now$/, "");
  return { ...shown, go, app };
}

// Signs an operator in by a link. Returns their page, what opens another, and the path of the app's pages.
export async function signIn(browser, operator, options = {}) {
  const { page, context } = await open(browser, {}, link(operator));
  await page.waitForURL((url) => !url.pathname.startsWith("/sign-in"));
  const storageState = await context.storageState();
  await context.close();
  return opened(browser, { storageState, ...options });
}

// Chromium's own authenticator, for the pages of this context.
export async function authenticator(context, page) {
  const devtools = await context.newCDPSession(page);
  await devtools.send("WebAuthn.enable");
  const options = {
    protocol: "ctap2",
    transport: "internal",
    hasResidentKey: true,
    hasUserVerification: true,
    isUserVerified: true,
    automaticPresenceSimulation: true,
  };
  const { authenticatorId } = await devtools.send("WebAuthn.addVirtualAuthenticator", { options });
  return { devtools, authenticatorId };
}

// Signs an operator in by a passkey, which they add with a link first.
export async function signInByPasskey(browser, operator, options = {}) {
  const { page, context } = await open(browser, {}, "about:blank");
  await authenticator(context, page);
  await page.goto(link(operator));
  await page.waitForURL((url) => !url.pathname.startsWith("/sign-in"));
  await page.goto(`${origin}/passkeys`);
  await page.getByLabel("Name of the new passkey").fill("Test laptop");
  // There may be others of this name, on the page before the one that follows.
  const others = await page.getByText("Test laptop").count();
  await page.getByRole("button", { name: "Add a passkey" }).click();
  await page.getByText("Test laptop").nth(others).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL(`${origin}/sign-in`);
  await page.getByRole("button", { name: "Sign in with a passkey" }).click();
  await page.getByText(`${operator}, `).waitFor();
  const storageState = await context.storageState();
  await context.close();
  return opened(browser, { storageState, ...options });
}

// Nothing that axe finds, and nothing beyond the page's width.
export async function accessible(page) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() =>
    window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }),
  );
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), [], page.url());
  const [wide, window_] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= window_, `${page.url()} scrolls sideways: ${wide} in ${window_}`);
}
