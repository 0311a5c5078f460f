// The example in examples/web, as a user goes through it, once with each of its backends. Run by scripts/test-examples,
// beside a `strongroom dev` that answers 202 after one second.
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import axe from "axe-core";
import { launch, open } from "./browser.mjs";

const { SANDBOX_URL: sandbox, EXAMPLES: examples } = process.env;

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

const control = async (path, body = {}, method = "POST") => {
  const answer = await fetch(`${sandbox}/sandbox/${path}`, { method, ...(method === "POST" && { body: JSON.stringify(body) }) });
  assert.ok(answer.ok, `${path}: ${answer.status}`);
  return answer.json().catch(() => null);
};

const fault = (path, effect, more = {}) => control("faults", { path, effect, times: 1, ...more });

// The two bank links, by what the user does in them and what the sandbox calls what.
const DAPI = {
  name: "Dapi",
  bank: "Saltmarsh Mutual",
  async logIn(popup) {
    await popup.getByRole("button", { name: /Saltmarsh/ }).click();
    await popup.getByRole("button", { name: "Log in" }).click();
    await popup.getByLabel("Six-digit code").fill("123456");
    await popup.getByRole("button", { name: "Confirm" }).click();
  },
};
const PLAID = {
  name: "Plaid",
  bank: "Tartan Bank",
  async logIn(popup) {
    await popup.getByRole("button", { name: /Tartan/ }).click();
    await popup.getByRole("button", { name: "Log in" }).click();
    await popup.getByRole("heading", { name: "Choose accounts" }).waitFor();
    await popup.getByRole("button", { name: "Continue" }).click();
  },
};

// Clicks a button that opens the bank link, and goes through it.
async function link(page, { name, logIn }, button = `Connect through ${name}`) {
  const opening = page.waitForEvent("popup");
  await page.getByRole("button", { name: button }).click();
  const popup = await opening;
  await logIn(popup);
  // It would close by itself a moment later.
  await popup.getByRole("heading", { name: /Your bank is connected|repaired/ }).waitFor();
  await popup.close();
}

const card = (page, { bank }) => page.getByRole("article", { name: bank });
const said = (page, text) => page.getByRole("status").getByText(text).waitFor();
const pill = (page, bank, text) => card(page, bank).locator(".pill").getByText(text, { exact: true }).waitFor();

async function disconnect(page, bank) {
  await card(page, bank).getByRole("button", { name: "Disconnect" }).click();
  await card(page, bank).getByRole("button", { name: "Yes, disconnect" }).click();
  await card(page, bank).waitFor({ state: "detached" });
}

for (const [kind, url] of Object.entries(JSON.parse(examples))) {
  // The backend's API, as the page calls it.
  const api = async (method, path, { user = "ada", body } = {}) => {
    const headers = { cookie: user ? `example_user=${user}` : "", ...(body && { "content-type": "application/json" }) };
    const answer = await fetch(`${url}/api${path}`, { method, headers, ...(body && { body }) });
    return { status: answer.status, headers: answer.headers, json: await answer.json() };
  };
  const list = async (user) => (await api("GET", "/connections", { user })).json.connections;
  const active = async (provider) => (await list()).find(({ bank, status }) => bank === provider && status === "active");

  async function signedIn(options) {
    const opened = await open(browser, options, url);
    await opened.page.getByRole("button", { name: "ada" }).click();
    await opened.page.getByRole("heading", { name: "Your banks" }).waitFor();
    await opened.page.getByText("No bank is connected yet.").waitFor();
    return opened;
  }

  describe(`the example with its backend in ${kind}`, () => {
    beforeEach(async () => {
      await control("faults", undefined, "DELETE");
      for (const user of ["ada", "grace"]) {
        for (const { bank, id, status } of await list(user)) {
          if (["active", "pending"].includes(status)) await api("POST", `/${bank}/connections/${id}/delink`, { user });
        }
      }
    });

    for (const bank of [DAPI, PLAID]) {
      test(`a bank is connected, read and disconnected, ${bank.name}`, async () => {
        const { page, quiet } = await signedIn();
        await link(page, bank);
        await said(page, "Your bank is connected.");
        await pill(page, bank, "Connected");
        const account = card(page, bank).getByRole("listitem").first();
        await account.getByText(/\d\.\d\d$/).waitFor();
        await account.getByRole("button").click();
        await account.locator("tbody tr").first().waitFor();
        const all = account.getByRole("button", { name: /^Show all \d+$/ });
        assert.equal(await account.locator("tbody tr").count(), 10);
        await all.click();
        assert.ok((await account.locator("tbody tr").count()) > 10);
        await disconnect(page, bank);
        await page.getByText("No bank is connected yet.").waitFor();
        await page.getByText(/^Earlier/).click();
        await page.getByText(/Disconnected\. Your bank has confirmed it\./).first().waitFor();
        await quiet();
      });
    }

    test("the page sees no secret but its connect session, and no other server", async () => {
      const { page, quiet } = await signedIn();
      const hosts = new Set();
      const bearers = new Set();
      const answers = [];
      page.on("request", (request) => {
        const { origin, pathname } = new URL(request.url());
        hosts.add(origin);
        const bearer = request.headers().authorization;
        if (bearer) bearers.add(`${pathname} ${bearer.slice(0, 10)}`);
      });
      page.on("response", (response) => {
        if (response.url().startsWith(url)) answers.push(response.text().catch(() => ""));
      });
      for (const bank of [DAPI, PLAID]) {
        await link(page, bank);
        await pill(page, bank, "Connected");
      }
      assert.deepEqual([...bearers], ["/v1/connections Bearer cs_"]);
      assert.equal(hosts.size, 2, [...hosts].join());
      assert.doesNotMatch((await Promise.all(answers)).join(), /eyJ|access-sandbox|client_?secret|accessCode|userSecret/i);
      assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length), 0);
      await quiet();
    });

    test("202: a slow bank is told, and the page may be reloaded meanwhile", async () => {
      const { page, context } = await signedIn();
      await fault("auth/ExchangeToken", { status: { code: 503, body: "slow" } }, { when: "before" });
      await link(page, DAPI);
      await said(page, "Your bank takes its time.");
      await page.getByText("Connecting", { exact: true }).waitFor();
      await page.reload();
      await pill(page, DAPI, "Connected");
      await context.close();
    });

    test("422: a refused code is told, and the next link works", async () => {
      const { page, context } = await signedIn();
      await fault("auth/ExchangeToken", { refuse: { type: "INVALID_ACCESS_CODE", msg: "no", status: 400 } });
      await link(page, DAPI);
      await said(page, "The bank did not accept the connection.");
      await link(page, DAPI);
      await pill(page, DAPI, "Connected");
      await context.close();
    });

    test("409: an answer that was lost at the bank is told, and the next link works", async () => {
      const { page, quiet } = await signedIn();
      await fault("auth/ExchangeToken", "drop", { when: "after" });
      await link(page, DAPI);
      await said(page, "The bank’s answer was lost on its way.");
      await link(page, DAPI);
      await pill(page, DAPI, "Connected");
      await quiet();
    });

    test("attention at Dapi: the login is connected once more, or the user says that it works", async () => {
      const { page, context } = await signedIn();
      await link(page, DAPI);
      await pill(page, DAPI, "Connected");
      const first = await active("dapi");
      const refuse = { refuse: { type: "INVALID_CREDENTIALS", msg: "no", status: 401 } };
      // The bank's name is not known before the accounts are read.
      const needy = { bank: "Bank at Dapi" };
      await fault("data/accounts/get", refuse);
      await page.reload();
      await pill(page, needy, "Needs you");
      await page.getByRole("button", { name: "My bank says it works again" }).click();
      await pill(page, DAPI, "Connected");
      assert.equal((await active("dapi")).id, first.id);

      await fault("data/accounts/get", refuse);
      await page.reload();
      await pill(page, needy, "Needs you");
      const { status, json } = await api("GET", `/dapi/connections/${first.id}/accounts`);
      assert.deepEqual([status, json], [409, { code: "connection_needs_attention" }]);
      await link(page, DAPI, "Log in again");
      await pill(page, DAPI, "Connected");
      assert.notEqual((await active("dapi")).id, first.id);
      assert.equal((await list()).find(({ id }) => id === first.id).status, "invalidated");
      await context.close();
    });

    test("attention at Plaid: Link repairs the login that is there", async () => {
      const { page, context } = await signedIn();
      await link(page, PLAID);
      await pill(page, PLAID, "Connected");
      const { id } = await active("plaid");
      const { items } = await control("plaid/items?limit=1", undefined, "GET");
      await control(`plaid/items/${items[0].itemID}/require-login`);
      await page.reload();
      await pill(page, PLAID, "Needs you");
      await link(page, { ...PLAID, logIn: (popup) => popup.getByRole("button", { name: "Log in" }).click() }, "Log in again");
      await pill(page, PLAID, "Connected");
      await card(page, PLAID).getByRole("listitem").first().waitFor();
      assert.equal((await active("plaid")).id, id);
      await context.close();
    });

    test("a disconnection that the bank has not confirmed yet is told as one", async () => {
      const { page, quiet } = await signedIn();
      await link(page, DAPI);
      await pill(page, DAPI, "Connected");
      const { id } = await active("dapi");
      await fault("users/DelinkUser", { status: { code: 503, body: "later" } }, { times: 2 });
      await disconnect(page, DAPI);
      await page.getByText(/^Earlier/).click();
      await page.getByText("Your bank has yet to confirm it.").first().waitFor();
      const { status, json } = await api("GET", `/dapi/connections/${id}/accounts`);
      assert.deepEqual([status, json], [409, { code: "connection_not_active" }]);
      await quiet();
    });

    test("another user sees, reads and ends nothing of it", async () => {
      const { page, quiet } = await signedIn();
      await link(page, DAPI);
      await pill(page, DAPI, "Connected");
      const { id } = await active("dapi");
      for (const [method, path] of [
        ["GET", "accounts"],
        ["GET", "transactions?account=1"],
        ["DELETE", "attention"],
        ["POST", "delink"],
      ]) {
        const refused = [];
        for (const user of ["grace", null]) refused.push((await api(method, `/dapi/connections/${id}/${path}`, { user })).status);
        assert.deepEqual(refused, [404, 401], path);
      }
      await page.getByLabel("User").selectOption("grace");
      await page.getByText("No bank is connected yet.").waitFor();
      assert.equal(await page.getByRole("status").getByText("Your bank is connected.").count(), 0);
      await page.getByLabel("User").selectOption("ada");
      await pill(page, DAPI, "Connected");
      await quiet();
    });

    test("requests that make no sense are refused, each with its code", async () => {
      for (const [method, path, body, status, code] of [
        ["POST", "/login", "no json", 400, "invalid_request"],
        ["POST", "/login", "{}", 400, "invalid_request"],
        ["POST", "/login", '{"user": "eve"}', 400, "invalid_request"],
        ["GET", "/dapi/connections/unknown/accounts", undefined, 404, "not_found"],
        ["GET", "/other/connections/unknown/accounts", undefined, 404, "not_found"],
        ["POST", "/other/connect-sessions", undefined, 404, "not_found"],
        ["GET", "/nothing", undefined, 404, "not_found"],
      ]) {
        const answer = await api(method, path, { body });
        assert.deepEqual([answer.status, answer.json.code], [status, code], `${method} ${path}`);
        assert.equal(answer.headers.get("cache-control"), "no-store", path);
      }
    });

    // What follows is the page's own, whichever backend there is.
    if (kind !== Object.keys(JSON.parse(examples))[0]) return;

    test("every other refusal has words of its own", async () => {
      const { page, context } = await signedIn();
      for (const [status, code, text] of [
        [410, "code_expired", "the bank’s permission ran out"],
        [409, "code_orphaned", "answer was lost"],
        [409, "connection_of_another_user", "connected to another user"],
        [409, "code_already_received", "made by another user"],
        [422, "connect_failed", "did not let you in"],
        [400, "invalid_request", "not your fault"],
      ]) {
        const headers = { "access-control-allow-origin": "*", "content-type": "application/problem+json" };
        await page.route(/\/v1\/connections$/, (route) =>
          route.request().method() === "POST"
            ? route.fulfill({ status, headers, body: JSON.stringify({ type: `/problems/${code}`, title: code, status, code }) })
            : route.fallback(),
        );
        await link(page, DAPI);
        await said(page, text);
        await page.unroute(/\/v1\/connections$/);
      }
      await context.close();
    });

    test("a user who leaves the bank link, or fails in it, connects nothing", async () => {
      const { page, quiet } = await signedIn();
      const opening = page.waitForEvent("popup");
      await page.getByRole("button", { name: "Connect through Dapi" }).click();
      const popup = await opening;
      await said(page, "Waiting for you to log in at your bank…");
      await popup.getByRole("button", { name: /Saltmarsh/ }).click();
      await popup.getByLabel("User name").fill("denied");
      await popup.getByRole("button", { name: "Log in" }).click();
      await popup.getByRole("heading", { name: "The bank refused the login" }).waitFor();
      await popup.close();
      await page.getByText("Waiting for you").waitFor({ state: "detached" });
      assert.equal((await list()).filter(({ status }) => status === "active").length, 0);
      await quiet();
    });

    test("what was disconnected elsewhere leaves the page when it is used", async () => {
      const { page, context } = await signedIn();
      await link(page, DAPI);
      const account = card(page, DAPI).getByRole("listitem").first();
      await account.waitFor();
      await api("POST", `/dapi/connections/${(await active("dapi")).id}/delink`);
      await account.getByRole("button").click();
      await page.getByText("No bank is connected yet.").waitFor();
      await context.close();
    });

    test("a busy bank is asked again when the answer said so, and a backend that is gone is told", async () => {
      const { page, context } = await signedIn();
      await page.route(/\/accounts$/, (route) => route.fulfill({ status: 429, json: { code: "too_many_requests", retryAfter: 1 } }), {
        times: 1,
      });
      await link(page, DAPI);
      await page.getByRole("alert").getByText("Your bank is busy.").waitFor();
      await card(page, DAPI).getByRole("listitem").first().waitFor();
      await context.setOffline(true);
      await card(page, DAPI).getByRole("listitem").first().getByRole("button").click();
      await page.getByRole("alert").getByText("There is no connection to Tally").waitFor();
      await context.setOffline(false);
      await page.getByRole("button", { name: "Try again" }).click();
      await card(page, DAPI).locator("tbody tr").first().waitFor();
      await context.close();
    });

    for (const colorScheme of ["light", "dark"]) {
      test(`a phone, a screen reader and weak eyes get all of it, ${colorScheme}`, async () => {
        const viewport = { width: 320, height: 640 };
        const { page, context } = await signedIn({ colorScheme, viewport, hasTouch: true, reducedMotion: "reduce" });
        await link(page, DAPI);
        await card(page, DAPI).getByRole("listitem").first().getByRole("button").click();
        await card(page, DAPI).locator("tbody tr").first().waitFor();
        await link(page, PLAID);
        await pill(page, PLAID, "Connected");
        const { items } = await control("plaid/items?limit=1", undefined, "GET");
        await control(`plaid/items/${items[0].itemID}/require-login`);
        await page.reload();
        await pill(page, PLAID, "Needs you");
        await card(page, DAPI).getByRole("button", { name: "Disconnect" }).click();
        const [wide, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(wide <= window, `${wide} in ${window}`);
        await page.evaluate(axe.source);
        const { violations } = await page.evaluate(() =>
          window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }),
        );
        assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`), []);
        await context.close();
      });
    }

    test("the keyboard alone leads through connecting, reading and disconnecting", async () => {
      const { page, quiet } = await signedIn();
      const focused = () => page.evaluate(() => document.activeElement.textContent);
      const tabTo = async (text) => {
        for (let presses = 0; !text.test(await focused()); presses += 1) {
          assert.ok(presses < 30, `Tab does not lead to ${text}`);
          await page.keyboard.press("Tab");
        }
      };
      await tabTo(/^Connect through Dapi/);
      const opening = page.waitForEvent("popup");
      await page.keyboard.press("Enter");
      await DAPI.logIn(await opening);
      await card(page, DAPI).getByRole("listitem").first().waitFor();
      await tabTo(/^Everyday account/);
      await page.keyboard.press("Enter");
      await card(page, DAPI).locator("tbody tr").first().waitFor();
      await tabTo(/^Disconnect$/);
      await page.keyboard.press("Enter");
      await tabTo(/^Yes, disconnect/);
      await page.keyboard.press("Enter");
      await page.getByText("No bank is connected yet.").waitFor();
      await quiet();
    });
  });
}
