// Opens mistaken.rnn in VS Code at an address, prints what it shows: see `run` beside this file.
const { chromium } = require("playwright-core");

const [address, picture] = process.argv.slice(2);
const wanted = ["no function is called tahn", "did you mean tanh?", "state h needs a time"];

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.BROWSER, args: ["--no-sandbox"] });
  const page = await browser.newPage({ viewport: { width: 1000, height: 560 } });
  const texts = async (of) => (await page.locator(of).allInnerTexts()).join("\n");
  await page.goto(address);
  await page.waitForSelector(".monaco-workbench");
  await page.waitForTimeout(5000);
  await page.keyboard.press("Control+P");
  await page.waitForTimeout(1000);
  await page.keyboard.type("mistaken.rnn");
  await page.waitForTimeout(1500);
  await page.keyboard.press("Enter");
  await page.waitForSelector(".squiggly-error").catch(() => {});
  await page.keyboard.press("Control+Shift+M");
  await page.waitForTimeout(2000);
  const mistakes = await texts(".markers-panel");
  await page.screenshot({ path: picture, clip: { x: 298, y: 35, width: 702, height: 465 } });
  console.log(`mistakes:\n${mistakes}\n\nmessages: ${await texts(".notification-toast")}`);

  await page.keyboard.press("Control+1");
  await page.keyboard.press("Control+Home");
  for (let line = 1; line < 11; line++) await page.keyboard.press("ArrowDown");
  for (let column = 1; column < 8; column++) await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Control+.");
  await page.waitForTimeout(2000);
  const mends = await texts(".action-widget");
  await page.keyboard.press("Escape");
  console.log(`mends: ${mends}`);
  await browser.close();
  process.exit(wanted.every((text) => mistakes.includes(text)) && mends.includes("write tanh") ? 0 : 1);
})();
