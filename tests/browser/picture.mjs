// Takes the picture of the demo for the README: an active connection with all its steps done.
import { connect, launch, open } from "./browser.mjs";

const [path, colorScheme = "light"] = process.argv.slice(2);
const browser = await launch();
const { page, quiet } = await open(browser, {
  viewport: { width: 1280, height: 1040 },
  colorScheme,
  locale: "en-GB",
  reducedMotion: "reduce",
});
await connect(page, /Quince/);
await page.getByRole("button", { name: "Delink", exact: true }).click();
await page.locator("#pill.delinked").waitFor();
await connect(page);
await page.locator("#events").getByText("connection.activated").waitFor();
await page.mouse.move(0, 0);
await page.evaluate(() => document.activeElement.blur());
await page.screenshot({ path });
await quiet();
await browser.close();
