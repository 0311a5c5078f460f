// The console's screens in headless Chromium, on a desktop and on a phone: each screen's main job against `dev`, what runs in
// the browser alone (the checks, the live part), and axe on every page. Run by scripts/test-browser.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import axe from "axe-core";
import { launch, open, connect, demo } from "./browser.mjs";
import { signedIn } from "./console.mjs";

let browser;
let app;
let connection;
before(async () => {
  browser = await launch();
  const { page, quiet } = await open(browser);
  await connect(page);
  await quiet();
  const console = await signedIn(browser);
  app = new URL(console.page.url()).pathname.replace(/\/now$/, "");
  await console.page.goto(new URL(`${app}/connections?status=active`, console.page.url()).href);
  connection = await console.page.locator("tbody a").first().getAttribute("href");
});
after(() => browser.close());

async function accessible(page) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() =>
    window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }),
  );
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), [], page.url());
}

for (const [device, options] of [
  ["a desktop", {}],
  ["a phone in the dark", { viewport: { width: 390, height: 844 }, colorScheme: "dark" }],
]) {
  test(`every screen is accessible on ${device}, and no token is on it`, async () => {
    const { page, go } = await signedIn(browser, options);
    for (const rest of ["now", "connections", "incident", "approvals", "audit", "clients", "keys", "webhooks", "upstreams"]) {
      await go(`${app}/${rest}`);
      await accessible(page);
    }
    await go(connection);
    await accessible(page);
    assert.doesNotMatch(await page.content(), /accessToken|access-sandbox/);
    await page.getByRole("link", { name: /usr_|user|ada|demo/i }).first().waitFor();
    await go("/operators");
    await accessible(page);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    assert.equal(wide, false, "the page scrolls sideways");
  });
}

test("among ten thousand connections one is found by its user's name, and the list goes on", async () => {
  const { page, go } = await signedIn(browser);
  await go(`${app}/now`);
  await page.getByRole("link", { name: /^Active 10,\d{3}/ }).waitFor();
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
  const { page, go } = await signedIn(browser);
  await page.getByText("Live: this page follows what happens.").waitFor();
  await page.route("**/now/live", (route) => route.abort());
  await go(`${app}/now`);
  await page.getByText("Contact lost.").waitFor({ timeout: 30_000 });
  await page.unroute("**/now/live");
  await page.getByText("Live: this page follows what happens.").waitFor({ timeout: 30_000 });
});

test("the chain is verified in the browser, and a checkpoint that was kept is compared", async () => {
  const { page, go } = await signedIn(browser);
  await go(`${app}/audit`);
  const kept = await page.getByLabel("Checkpoint of this moment").inputValue();
  await page.getByLabel("A checkpoint that you kept").fill(kept);
  await page.getByRole("button", { name: "Verify every link" }).click();
  await page.getByText(/Every link holds: \d+.*The checkpoint of link \d+ agrees\./).waitFor();
});

test("a link that was changed on its way is found in the browser", async () => {
  const { page, go } = await signedIn(browser);
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

test("a connection's life shows each row's link, and an incident ends it after its dry run", async () => {
  const { page, go } = await signedIn(browser);
  await go(connection);
  await page.getByText(/link \d+ holds/).first().waitFor();
  await go(`${app}/incident`);
  await page.getByRole("link", { name: "Begin an incident…" }).click();
  await page.getByLabel("every connection of this app").check();
  await page.getByRole("button", { name: "Count them" }).click();
  await accessible(page);
  await page.getByLabel("Reason").fill("laptop with a client secret lost");
  await page.getByRole("button", { name: /^Revoke [\d,]+ connections$/ }).click();
  await page.getByText("Live at the bank").waitFor();
  await accessible(page);
});
assert.ok(demo);
