// The console's screens in headless Chromium, on a desktop and on a phone: each screen's main job against `dev`, what runs in
// the browser alone (the checks, the live part), and axe on every page. Run by scripts/test-browser.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, open, connect } from "./browser.mjs";
import { accessible, origin, PHONE, signIn } from "./console.mjs";

let browser;
const signedIn = (options) => signIn(browser, "iris", options);
let app;
let connection;
before(async () => {
  browser = await launch();
  const { page, quiet } = await open(browser);
  await connect(page);
  await quiet();
  const console = await signedIn();
  ({ app } = console);
  await console.go(`${app}/connections?status=active`);
  connection = await console.page.locator("tbody a").first().getAttribute("href");
});
after(() => browser.close());

for (const [device, options] of [
  ["a desktop", {}],
  ["a phone in the dark", PHONE],
]) {
  test(`every screen is accessible on ${device}, and no token is on it`, async () => {
    const { page, go } = await signedIn(options);
    const screens = ["now", "connections", "incident", "approvals", "audit", "clients", "keys", "webhooks", "upstreams"];
    const asking = ["incident/new", "connections?text=nobody-is-called-so"];
    for (const rest of [...screens, ...asking]) {
      await go(`${app}/${rest}`);
      await accessible(page);
    }
    for (const way of ["delink", "invalidate", "give-up"]) {
      await go(`${connection}/${way}`);
      await page.getByRole("heading", { name: "What follows" }).waitFor();
      await accessible(page);
    }
    await go(`${app}/clients`);
    await page.locator("tbody a").first().click();
    await page.getByText("What a thief of this client’s credentials could do").waitFor();
    await accessible(page);
    await go(connection);
    await accessible(page);
    assert.doesNotMatch(await page.content(), /accessToken|access-sandbox/);
    await page.getByRole("link", { name: /usr_|user|ada|demo/i }).first().waitFor();
    for (const path of ["/operators", "/passkeys", "/nowhere", "/"]) {
      await go(path);
      await accessible(page);
    }
  });
}

test("among ten thousand connections one is found by its user's name, and the list goes on", async () => {
  const { page, go } = await signedIn();
  await go(`${app}/now`);
  // Nearly all: other tests have ended a few dozen of them.
  await page.getByRole("link", { name: /^Active (9,[89]|10,\d)\d\d/ }).waitFor();
  await go(`${app}/connections`);
  const [first, more] = [page.locator("tbody tr"), page.getByRole("link", { name: "Older" })];
  const shown = await first.count();
  assert.ok(shown > 10, `${shown} rows`);
  const top = await first.first().textContent();
  await more.click();
  await page.waitForFunction((top) => document.querySelector("tbody tr").textContent !== top, top);
  await go(`${app}/connections?text=moved-2718`);
  assert.equal(await first.count(), 3);
  await accessible(page);
});

test("Now follows what happens, and says when it lost contact", async () => {
  const { page, go } = await signedIn();
  await page.getByText("Live: this page follows what happens.").waitFor();
  await page.route("**/now/live", (route) => route.abort());
  await go(`${app}/now`);
  await page.getByText("Contact lost.").waitFor({ timeout: 30_000 });
  await page.unroute("**/now/live");
  await page.getByText("Live: this page follows what happens.").waitFor({ timeout: 30_000 });
});

test("the chain is verified in the browser, and a checkpoint that was kept is compared", async () => {
  const { page, go } = await signedIn();
  await go(`${app}/audit`);
  const kept = await page.getByLabel("Checkpoint of this moment").inputValue();
  await page.getByLabel("A checkpoint that you kept").fill(kept);
  await page.getByRole("button", { name: "Verify every link" }).click();
  await page.getByText(/Every link holds: \d+.*The checkpoint of link \d+ agrees\./).waitFor();
});

test("a link that was changed on its way is found in the browser", async () => {
  const { page, go } = await signedIn();
  await go(`${app}/audit`);
  await page.route("**/audit/links?after=0", async (route) => {
    const answer = await route.fetch();
    const links = await answer.json();
    links[1].event.outcome = "changed";
    await route.fulfill({ response: answer, json: links });
  });
  await page.getByRole("button", { name: "Verify every link" }).click();
  await page.getByText("It does not hold: link 2 does not follow").waitFor();
});

test("a check that could not be made does not say that the chain does not hold", async () => {
  const { page, go } = await signedIn();
  await go(`${app}/audit`);
  await page.route("**/audit/links?after=0", (route) => route.fulfill({ status: 503, body: "" }));
  await page.getByRole("button", { name: "Verify every link" }).click();
  await page.getByText("It could not be checked: the console does not answer").waitFor();
});

test("Now says that its session has ended, instead of trying for ever", async () => {
  const { page, context, go } = await signedIn();
  let first = true;
  await page.route("**/now/live", async (route) => {
    if (!first) return route.continue();
    first = false;
    await context.clearCookies();
    return route.fulfill({ contentType: "text/event-stream", body: "retry: 100\nevent: alive\ndata:\n\n" });
  });
  await go(`${app}/now`);
  await page.getByText("Your session has ended.").waitFor({ timeout: 40_000 });
  await accessible(page);
  await page.reload();
  await page.waitForURL((url) => url.pathname === "/sign-in");
});

test("with the keyboard alone the content is reached past the navigation, and a form is filled and sent", async () => {
  const { page, go } = await signedIn();
  await go(`${app}/connections`);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "text");
  await page.keyboard.type("moved-2718");
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => url.searchParams.get("text") === "moved-2718");
  // A table that is wider than the page can be scrolled with the keys.
  const table = page.getByRole("group", { name: "Connections" });
  await table.focus();
  assert.equal(await table.evaluate((it) => it === document.activeElement), true);
});

test("a connection's life shows each row's link, and an incident of a few users ends theirs after its dry run", async () => {
  const { page, go } = await signedIn();
  await go(connection);
  await page.getByText(/link \d+ holds/).first().waitFor();
  await go(`${app}/incident`);
  await page.getByRole("link", { name: "Begin an incident…" }).click();
  await page.getByLabel("Users, one in a line").fill("moved-1\nmoved-2");
  await page.getByRole("button", { name: "Count them" }).click();
  await accessible(page);
  await page.getByLabel("Reason").fill("laptop with a client secret lost");
  await page.getByRole("button", { name: /^Revoke \d+ connections$/ }).click();
  await page.getByText("Live at the bank").waitFor();
  await accessible(page);
});

test("a person's sessions and links are shown, and a connection is given up only by a second person", async () => {
  const { page, go } = await signedIn();
  await go(`${app}/connections?user=moved-3&status=active`);
  await page.locator("tbody a").first().click();
  await page.getByRole("link", { name: "End it without telling the bank…" }).click();
  await page.getByText("A second person has to approve this").waitFor();
  await accessible(page);
  await page.getByLabel("Reason").fill("the bank closed our application");
  await page.getByRole("button", { name: "Ask to end it without telling the bank" }).click();
  await page.getByText("You asked for it: somebody else has to approve.").waitFor();
  await page.getByText("a token may live on there, and nobody can end it any more").waitFor();
  await accessible(page);
  await page.getByRole("button", { name: "Withdraw it" }).click();
  await page.getByText("withdrawn by operator: iris").waitFor();
});
