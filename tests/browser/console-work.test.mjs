// The main job of the console's other screens in headless Chromium, against `dev` with its sandbox: clients, webhooks, upstreams, a
// person's sessions, operators, an incident under way, a problem's request. Run by scripts/test-browser.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { launch } from "./browser.mjs";
import { accessible, PHONE, signIn } from "./console.mjs";

const { API_URL, SANDBOX_URL, STRONGROOM, STRONGROOM_BOOTSTRAP_CLIENT_ID, STRONGROOM_BOOTSTRAP_CLIENT_SECRET } = process.env;

let browser;
let token;
before(async () => {
  browser = await launch();
  const credentials = `${STRONGROOM_BOOTSTRAP_CLIENT_ID}:${STRONGROOM_BOOTSTRAP_CLIENT_SECRET}`;
  const answer = await fetch(`${API_URL}/oauth2/token`, {
    method: "POST",
    headers: { authorization: `Basic ${btoa(credentials)}` },
    body: new URLSearchParams({ grant_type: "client_credentials" }),
  });
  token = (await answer.json()).access_token;
});
after(() => browser.close());

// What a backend asks of the API.
async function api(path, body) {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const answer = await fetch(`${API_URL}${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  return { status: answer.status, json: await answer.json() };
}

const command = (...parts) => JSON.parse(execFileSync(STRONGROOM, [...parts, "--output", "json"]));
const heading = (page, name) => page.getByRole("heading", { name, level: 1 }).waitFor();

test("a client is cut off and let in again, and its page says what a thief could do", async () => {
  command("clients", "create", "of the browser's test", "--scope", "tokens:read");
  const { page, go, app, context } = await signIn(browser, "iris");
  await go(`${app}/clients`);
  await page.getByRole("link", { name: "of the browser's test" }).click();
  await page.getByText(/Read \d+ bank tokens a minute in the clear/).waitFor();
  await page.getByText("Make a second secret where it is to be used").waitFor();
  await accessible(page);
  await page.getByRole("button", { name: "Disable it now" }).click();
  await page.getByText("Nothing: the client is disabled.").waitFor();
  await page.getByRole("button", { name: "Enable it again" }).click();
  await page.getByRole("button", { name: "Disable it now" }).waitFor();
  await context.close();
});

test("a webhook is sent a test event and the events of a time again, and its page shows how they fared", async () => {
  const taken = [];
  const receiver = createServer((request, response) => {
    taken.push(request.headers["webhook-id"]);
    response.writeHead(204).end();
  });
  await new Promise((resolve) => { receiver.listen(0, "127.0.0.1", resolve); });
  command("webhooks", "add", `http://127.0.0.1:${receiver.address().port}/hook`);
  const { page, go, app, context } = await signIn(browser, "iris");
  await go(`${app}/webhooks`);
  await accessible(page);
  await page.getByRole("link", { name: /127\.0\.0\.1/ }).first().click();
  await page.getByRole("button", { name: "Send a test event" }).click();
  await page.getByText("A test event is on its way").waitFor();
  const webhook = await page.locator("dd .id").first().textContent();
  for (let tries = 0; tries < 40 && taken.length === 0; tries += 1) await page.waitForTimeout(250);
  assert.ok(taken.length > 0, "nothing arrived");
  await go(`${app}/webhooks/${webhook}`);
  await page.locator("tbody .pill").first().waitFor();
  await accessible(page);
  await page.getByLabel("From (UTC)").fill("2020-01-02T00:00");
  await page.getByLabel("To (UTC)").fill("2020-01-01T00:00");
  await page.getByRole("button", { name: "Send the events of this time again" }).click();
  await page.getByText("Choose two times, the earlier one first.").waitFor();
  await page.getByLabel("From (UTC)").fill("2020-01-01T00:00");
  await page.getByLabel("To (UTC)").fill("2020-01-02T00:00");
  await page.getByRole("button", { name: "Send the events of this time again" }).click();
  await page.getByText("Sent again").waitFor();
  await accessible(page);
  await context.close();
  receiver.close();
});

test("an upstream's page says how old its token is", async () => {
  const made = await api("/v1/admin/upstreams", {
    name: "kaisa-of-the-browser", preset: "kaisa", clientID: "sandbox-client", clientSecret: "sandbox-client-secret",
    tokenURL: `${SANDBOX_URL}/kaisa/oauth/token`, baseURL: `${SANDBOX_URL}/kaisa/api`,
  });
  assert.equal(made.status, 201, JSON.stringify(made.json));
  const { page, go, app, context } = await signIn(browser, "iris", PHONE);
  await go(`${app}/upstreams`);
  await page.getByText("none was fetched yet").waitFor();
  await accessible(page);
  const lent = await api("/v1/upstreams/kaisa-of-the-browser/token", {});
  assert.equal(lent.status, 200, JSON.stringify(lent.json));
  await page.reload();
  await page.getByText(/fetched .* ago/).waitFor();
  await accessible(page);
  await context.close();
});

test("a person's sessions are ended, and their browser hands in nothing any more", async () => {
  const made = await api("/v1/connect-sessions", { clientUserID: "moved-7" });
  assert.equal(made.status, 201, JSON.stringify(made.json));
  const { page, go, app, context } = await signIn(browser, "anna", PHONE);
  await go(`${app}/connections?user=moved-7`);
  await page.getByRole("link", { name: "moved-7" }).first().click();
  await heading(page, "Person");
  await accessible(page);
  await page.getByRole("button", { name: "End them all" }).click();
  await page.getByText("None is alive.").waitFor();
  const answer = await fetch(`${API_URL}/v1/connections`, {
    method: "POST",
    headers: { authorization: `Bearer ${made.json.token}`, "content-type": "application/json" },
    body: "{}",
  });
  assert.equal(answer.status, 401);
  await context.close();
});

test("an incident is paused and resumed, and follows what happens", async () => {
  const { page, go, app, context } = await signIn(browser, "anna");
  await go(`${app}/incident/new`);
  await page.getByLabel("Users, one in a line").fill("moved-10\nmoved-11\nmoved-12");
  await page.getByLabel("Delinkings a second, at most").fill("1");
  await page.getByRole("button", { name: "Count them" }).click();
  await page.getByLabel("Reason").fill("a feature ends");
  await page.getByRole("button", { name: /^Revoke \d+ connections$/ }).click();
  await page.getByRole("button", { name: "Pause", exact: true }).click();
  await page.getByText("Nothing is sent until it is resumed.").waitFor();
  await accessible(page);
  await page.getByRole("button", { name: "Pause updates" }).click();
  await page.getByText(/^Paused\. What stands below was true at .*/).waitFor();
  await page.getByRole("button", { name: "Follow again" }).click();
  await page.getByText("Live: this page follows what happens.").waitFor();
  await page.getByRole("link", { name: "Give up the rest…" }).click();
  await page.getByText("To stop for now, pause").waitFor();
  await page.getByText("A second person has to approve this").waitFor();
  await accessible(page);
  await page.getByRole("link", { name: "Go on with it" }).click();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("Live: this page follows what happens.").waitFor();
  // What is selected stays until it is selected no more: an id can be copied while the page follows.
  const select = (all) => page.evaluate((all) => {
    if (all) getSelection().selectAllChildren(document.querySelector("#live .lead"));
    else getSelection().removeAllRanges();
  }, all);
  const told = page.locator("#live .figure-value").first();
  await select(true);
  const shown = await told.textContent();
  await page.waitForTimeout(4000);
  assert.equal(await told.textContent(), shown);
  await select(false);
  await page.waitForFunction((shown) => document.querySelector("#live .figure-value").textContent !== shown, shown);
  // The page says so itself, without being loaded again, and offers nothing that it cannot do any more.
  await page.locator("#live .pill-done").waitFor({ timeout: 60_000 });
  assert.equal(await page.getByRole("link", { name: "Give up the rest…" }).count(), 0);
  await context.close();
});

test("an admin ends another operator's session, whose next page is the sign-in", async () => {
  const anna = await signIn(browser, "anna");
  const { page, go, context } = await signIn(browser, "iris");
  await go("/operators");
  const rows = page.getByRole("row").filter({ hasText: "anna" }).filter({ has: page.getByRole("button") });
  for (let left = await rows.count(); left > 0; left -= 1) {
    const shown = page.waitForResponse((answer) => answer.url().endsWith("/operators") && answer.ok());
    await rows.first().getByRole("button", { name: "End it" }).click();
    await shown;
  }
  assert.equal(await rows.count(), 0);
  await anna.go("/");
  await anna.page.waitForURL((url) => url.pathname === "/sign-in");
  await Promise.all([context.close(), anna.context.close()]);
});

test("a problem's requestID leads to what its request did, and an unknown address to a page that says so", async () => {
  const session = await api("/v1/connect-sessions", { clientUserID: "moved-8" });
  assert.equal(session.status, 201);
  const { page, go, app, context } = await signIn(browser, "iris");
  await go(`${app}/audit?action=session.created`);
  await page.getByRole("link", { name: "request", exact: true }).first().click();
  await heading(page, "Request");
  await page.getByText("session.created").first().waitFor();
  await accessible(page);
  await go("/requests/01a1fe64-6212-77f2-ba9a-bb99f82a36f0");
  await page.getByText("The trail has nothing of it").waitFor();
  await go(`${app}/connections/conn_00000000-0000-7000-8000-000000000000`);
  await heading(page, /not|no such/i);
  await accessible(page);
  await context.close();
});
