// The sign-in to the console with Chromium's own authenticator. Run by scripts/test-browser.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";
import { launch, open } from "./browser.mjs";
import { accessible, authenticator, link, origin } from "./console.mjs";

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

test("a link signs in once, enrols a passkey, and the passkey signs in from then on", async () => {
  const { page, context, quiet } = await open(browser, {}, "about:blank");
  const { devtools, authenticatorId } = await authenticator(context, page);
  // As `dev` prints one; that one may be older than five minutes by now.
  const once = link("dev");
  await page.goto(once);
  await page.waitForURL(`${origin}/passkeys`);
  await page.getByLabel("Name of the new passkey").fill("Test laptop");
  await page.getByRole("button", { name: "Add a passkey" }).click();
  await page.getByText("Test laptop").waitFor();

  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL(`${origin}/sign-in`);
  await page.goto(`${origin}/passkeys`);
  await page.getByRole("button", { name: "Sign in with a passkey" }).click();
  // Back where it began, and the passkey is signed in with.
  await page.waitForURL(`${origin}/passkeys`);
  await page.getByText("last used").waitFor();

  // The code is gone from the address, and the link is used up.
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL(`${origin}/sign-in`);
  await page.goto("about:blank");
  await page.goto(once);
  await page.getByRole("heading", { name: "This code is not good" }).waitFor();
  assert.equal(new URL(page.url()).hash, "");

  // Without its user's finger it signs nobody in.
  await devtools.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: false });
  await page.goto(`${origin}/sign-in`);
  await page.getByRole("button", { name: "Sign in with a passkey" }).click();
  await page.getByText("Cancelled, or no passkey fits.").waitFor();
  // The refusal of the used link is an answer 403, about which Chromium complains.
  await quiet().catch((error) => assert.match(String(error.message), /403/));
});

test("a form that comes too late, or after its session, is sent again after a passkey, with what was filled in", async () => {
  const { page, context } = await open(browser, {}, "about:blank");
  await authenticator(context, page);
  await page.goto(link("cleo"));
  await page.waitForURL((url) => !url.pathname.startsWith("/sign-in"));
  await page.goto(`${origin}/passkeys`);
  await page.getByLabel("Name of the new passkey").fill("Cleo's laptop");
  await page.getByRole("button", { name: "Add a passkey" }).click();
  await page.getByText("Cleo's laptop").first().waitFor();
  await page.goto(`${origin}/`);
  if (new URL(page.url()).pathname === "/") await page.locator("main a").first().click();
  await page.waitForURL(/\/now$/);
  const app = page.url().replace(/\/now$/, "");
  // Fills an incident in, and sends it once something has happened to the operator's sessions.
  const revokeAfter = async (happened, user, reason) => {
    await page.goto(`${app}/incident/new`);
    await page.getByLabel("Users, one in a line").fill(user);
    await page.getByRole("button", { name: "Count them" }).click();
    await page.getByLabel("Reason").fill(reason);
    const sql = `UPDATE operator_sessions s SET ${happened} FROM operators o WHERE o.id = s.operator_id AND o.name = 'cleo'`;
    execFileSync("psql", [process.env.DATABASE_URL, "-qc", sql]);
    await page.getByRole("button", { name: /^Revoke \d+ connections$/ }).click();
  };
  const proved = async () => {
    await accessible(page);
    await page.getByRole("button", { name: "Prove it with a passkey" }).click();
    await page.getByText("Proved. What you filled in can be sent now.").waitFor();
    await page.keyboard.press("Enter");
  };
  const begun = async (reason) => {
    await page.waitForURL(/\/incident\/ord_/);
    await page.getByText(reason).first().waitFor();
  };

  await revokeAfter("authenticated_at = authenticated_at - interval '6 minutes'", "moved-60", "a stale laptop");
  await page.getByRole("heading", { name: "Prove again that it is you" }).waitFor();
  await proved();
  await begun("a stale laptop");

  await revokeAfter("last_seen_at = last_seen_at - interval '40 minutes'", "moved-61", "a long coffee");
  await page.getByRole("heading", { name: "You are not signed in" }).waitFor();
  await proved();
  await page.getByRole("heading", { name: "Is this still what you want?" }).waitFor();
  await accessible(page);
  await page.getByRole("button", { name: "Send it again" }).click();
  await begun("a long coffee");
  await context.close();
});
