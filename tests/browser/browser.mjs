// Opens the demo in headless Chromium, and keeps an eye on what the console and the content security
// policy say meanwhile.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

export const demo = process.env.DEMO_URL;

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

// A page of its own for one test, in an English browser. `quiet` fails where the console complained.
export async function open(browser, options = {}, url = demo) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 900 },
    locale: "en-GB",
    ...options,
  });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  await page.goto(url);
  const quiet = async () => {
    await context.close();
    assert.deepEqual(complaints, []);
  };
  return { page, context, quiet };
}

// Goes through Connect as a user with a mouse does.
export async function connect(page, bank = /Saltmarsh/) {
  await page.getByRole("button", { name: "Connect your bank" }).click();
  const frame = page.frameLocator("#frame");
  await frame.getByRole("button", { name: bank }).click();
  await frame.getByRole("button", { name: "Log in" }).click();
  await frame.getByLabel("Six-digit code").fill("123456");
  await frame.getByRole("button", { name: "Confirm" }).click();
  await connected(page);
}

// Waits for the end of it. Until Connect is closed the page may still show an earlier connection.
export async function connected(page) {
  await page.locator("dialog").waitFor({ state: "hidden" });
  await page.locator("#pill.active").waitFor();
}
