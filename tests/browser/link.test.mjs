// Link's page of the sandbox, opened as an app opens it. Run by scripts/test-browser.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import axe from "axe-core";
import { launch, open } from "./browser.mjs";

const sandbox = process.env.SANDBOX_URL;
const credentials = {
  "content-type": "application/json",
  "plaid-client-id": "sandbox-plaid-client-id",
  "plaid-secret": "sandbox-plaid-secret",
};

let browser;
let app;
let origin;
before(async () => {
  browser = await launch();
  app = createServer((_, response) => {
    response.setHeader("content-type", "text/html");
    response.end("<!doctype html><title>App</title><link rel=icon href=data:,>");
  });
  await new Promise((resolve) => app.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${app.address().port}`;
});
after(async () => {
  await browser.close();
  app.close();
});

async function plaid(path, body) {
  const options = { method: "POST", headers: credentials, body: JSON.stringify(body) };
  const response = await fetch(`${sandbox}/plaid/${path}`, options);
  return response.json();
}

async function linkToken(more) {
  const body = { user: { client_user_id: "ada" }, client_name: "Fig & Fennel", language: "en" };
  const made = await plaid("link/token/create", { ...body, country_codes: ["US"], ...more });
  return made.link_token;
}

// Opens Link in a popup of the app's page; `message` is the next one that Link sends.
async function link(token) {
  const { page, context, quiet } = await open(browser, {}, origin);
  const popup = context.waitForEvent("page");
  await page.evaluate((url) => {
    window.message = new Promise((resolve) => {
      addEventListener("message", ({ origin, data }) => resolve({ origin, ...data }));
    });
    window.open(url, "link", "width=460,height=760");
  }, `${sandbox}/plaid/link?${new URLSearchParams({ token, origin })}`);
  const message = () => page.evaluate(() => window.message);
  return { link: await popup, message, quiet };
}

async function accessible(page) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => window.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), []);
}

test("a user links two of three accounts, and the app gets what onSuccess gets", async () => {
  const { link: page, message, quiet } = await link(await linkToken({ products: ["auth"] }));
  await page.getByText("Fig & Fennel uses Link").waitFor();
  await page.getByRole("button", { name: /Tartan/ }).click();
  await page.getByRole("button", { name: "Back" }).click();
  await page.getByRole("button", { name: /Tartan/ }).click();
  await page.getByLabel("User name").fill("ada");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Choose accounts" }).waitFor();
  await page.getByLabel(/Saving/).uncheck();
  await page.getByRole("button", { name: "Continue" }).click();
  const { origin: from, source, event, result } = await message();
  assert.deepEqual([from, source, event], [sandbox, "plaid-sandbox-link", "success"]);
  assert.equal(result.metadata.institution.institution_id, "ins_109511");
  assert.deepEqual(result.metadata.accounts.map(({ subtype }) => subtype), ["checking", "credit card"]);
  const given = await plaid("item/public_token/exchange", { public_token: result.public_token });
  assert.match(given.access_token, /^access-sandbox-/);
  await page.waitForEvent("close");
  await quiet();
});

test("update mode repairs the login of the same item", async () => {
  const created = await plaid("sandbox/public_token/create", {
    institution_id: "ins_109508",
    initial_products: ["auth"],
  });
  const { access_token, item_id } = await plaid("item/public_token/exchange", created);
  await plaid("sandbox/item/reset_login", { access_token });
  const broken = await plaid("accounts/get", { access_token });
  assert.equal(broken.error_code, "ITEM_LOGIN_REQUIRED");
  const { link: page, message, quiet } = await link(await linkToken({ access_token }));
  await page.getByRole("heading", { name: "First Platypus Bank" }).waitFor();
  await page.getByRole("button", { name: "Log in" }).click();
  assert.equal((await message()).event, "success");
  const repaired = await plaid("accounts/get", { access_token });
  assert.equal(repaired.item.item_id, item_id);
  await quiet();
});

test("no account, a refused login and leaving are told", async () => {
  const { page, quiet } = await open(browser, {}, `${sandbox}/plaid/link`);
  await accessible(page);
  await page.getByRole("button", { name: /Gingham/ }).click();
  await page.getByLabel("User name").fill("denied");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "The bank refused the login" }).waitFor();
  await page.getByRole("button", { name: "Try again" }).click();
  await page.getByRole("heading", { name: /Gingham/ }).waitFor();
  await page.getByLabel("User name").fill("bea");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Choose accounts" }).waitFor();
  for (const box of await page.getByRole("checkbox").all()) await box.uncheck();
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByText("Choose at least one account.").first().waitFor();
  await accessible(page);
  await page.getByRole("checkbox").first().check();
  await page.getByRole("button", { name: "Continue" }).click();
  await page.locator("#result", { hasText: /"public_token": "public-sandbox-/ }).waitFor();
  await page.goto(`${sandbox}/plaid/link`);
  await page.keyboard.press("Escape");
  await page.getByRole("heading", { name: "Nothing was connected" }).waitFor();
  await quiet();
});
