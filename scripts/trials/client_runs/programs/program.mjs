// What the programs of the trial's JavaScript libraries have in common. A program has a function
// for each column, which prints what the server said, for a stream each piece on a line.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { env } = process;
export const OPENAI = env.CLIENT_OPENAI;
export const ANTHROPIC = env.CLIENT_ANTHROPIC;
export const OLLAMA = env.CLIENT_OLLAMA;
export const MODEL = env.CLIENT_MODEL;
export const KEY = "none";
export const HELLO = "TASK hello";
export const ADD = "TASK add: add 1 and 2, add 3 to that, then 2, with the tool";
export const LOOK = "TASK look: what is in the image?";
export const FAIL = "TASK fail";
export const SLOW = "TASK slow";
export const TURNS_MAX = 8;
export const DESCRIPTION = "Adds two integers.";
export const PARAMETERS = {
  type: "object",
  properties: { a: { type: "integer" }, b: { type: "integer" } },
  required: ["a", "b"],
};

const packages = createRequire(join(env.CLIENT_PACKAGES, "package.json"));

/** Imports a package of the trial's cache. */
export const load = (name) => import(pathToFileURL(packages.resolve(name)));

export const image = () => readFileSync(env.CLIENT_IMAGE);
export const imageUrl = () => `data:image/png;base64,${image().toString("base64")}`;

/** Prints a piece of text on a line, as it came. */
export const show = (text) =>
  console.log(typeof text === "string" ? text.replace(/\n$/, "") : JSON.stringify(text));

/** Calls `ask`, which must throw, and prints the error. */
export async function fails(ask) {
  try {
    show(["no error", await ask()]);
  } catch (error) {
    const status = error.status ?? error.statusCode ?? error.status_code;
    show(`${error.constructor.name} ${status}: ${error.message}`);
  }
}

/** Ends the program at once: the client is gone, and with it its connections. */
export function left() {
  console.log("left");
  process.exit(0);
}

/** Calls the function of the column that the command line names. */
export const main = (columns) => columns[process.argv[2]]();
