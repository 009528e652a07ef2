// Starts the machine's own Chromium; playwright-core comes from the folder that run.sh names.

import { createRequire } from "node:module";

const folder = process.env.UI_TOOLS ?? import.meta.dirname;
const { chromium } = createRequire(`${folder}/`)("playwright-core");

export const browser = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
