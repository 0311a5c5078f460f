// Takes the pictures of the console for its documents: Now, a connection's life, and an incident under way.
import { connect, launch, open } from "./browser.mjs";
import { signIn } from "./console.mjs";

const [folder] = process.argv.slice(2);
const browser = await launch();
for (const bank of [/Saltmarsh/, /Quince/]) {
  const { page, quiet } = await open(browser);
  await connect(page, bank);
  await quiet();
}
const viewport = { width: 1280, height: 960 };
const { page, go, app } = await signIn(browser, "iris", { viewport });
await go(`${app}/connections?status=active`);
const connection = await page.locator("tbody a").first().getAttribute("href");
await go(connection);
await page.getByText(/link \d+ holds/).first().waitFor();
await page.screenshot({ path: `${folder}/console-timeline.png` });
await go(`${app}/incident`);
await page.getByRole("link", { name: "Begin an incident…" }).click();
await page.getByLabel("every connection of this app").check();
await page.getByRole("button", { name: "Count them" }).click();
await page.getByLabel("Reason").fill("laptop with a client secret lost");
await page.screenshot({ path: `${folder}/console-incident.png` });
await page.getByRole("button", { name: /^Revoke \d+ connections$/ }).click();
await page.getByText("Live at the bank").waitFor();
await go(`${app}/now`);
await page.getByText("Live: this page follows what happens.").waitFor();
await page.screenshot({ path: `${folder}/console-now.png` });
await browser.close();
