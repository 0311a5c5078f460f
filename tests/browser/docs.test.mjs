// `/docs` as a reader uses it: "Try it out" calls the operation that it stands at. Run by scripts/test-browser.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "./browser.mjs";

const api = process.env.API_URL;

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

async function token() {
  const { STRONGROOM_BOOTSTRAP_CLIENT_ID: id, STRONGROOM_BOOTSTRAP_CLIENT_SECRET: secret } = process.env;
  const answer = await fetch(`${api}/oauth2/token`, {
    method: "POST",
    headers: { authorization: `Basic ${btoa(`${id}:${secret}`)}` },
    body: new URLSearchParams({ grant_type: "client_credentials" }),
  });
  return (await answer.json()).access_token;
}

test("an operation that is tried out is called by its own path, and answers", async () => {
  const bearer = await token();
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  // The page's own way of authorizing asks for the client's secret; here the token is put in on the way.
  const called = [];
  await page.route(`${api}/v1/**`, (route) => {
    called.push(new URL(route.request().url()).pathname);
    route.continue({ headers: { ...route.request().headers(), authorization: `Bearer ${bearer}` } });
  });
  await page.goto(`${api}/docs/`);
  // Once, these three had one id, and each of them called the last.
  const tried = [
    ["Connections", "listConnections", "/v1/connections"],
    ["Administration", "listClients", "/v1/admin/clients"],
    ["Administration", "listAuditEvents", "/v1/admin/audit-events"],
  ];
  for (const [tag, operation, path] of tried) {
    const block = page.locator(`#operations-${tag}-${operation}`);
    await block.locator(".opblock-summary-control").click();
    await block.getByRole("button", { name: "Try it out" }).click();
    // Optional parameters are tried with their examples; empty ones are left out.
    for (const input of await block.locator(".parameters input[type=text]").all()) {
      await input.fill("");
    }
    await block.getByRole("button", { name: "Execute" }).click();
    const status = block.locator(".live-responses-table .response-col_status").last();
    await status.waitFor();
    assert.equal(called.at(-1), path, operation);
    assert.match(await status.textContent(), /^200/, operation);
    await block.locator(".opblock-summary-control").click();
  }
  await page.close();
});
