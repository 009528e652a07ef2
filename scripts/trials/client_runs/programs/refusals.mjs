// What the JavaScript packages `openai`, `@anthropic-ai/sdk` and `ollama` make of refusals.
//
// The argument is the API. Each line of standard input is a call as a JSON object, and gets a line
// of standard output: the exception or the text, and the responses that the package got for it.

import { createInterface } from "node:readline";

import { load } from "./program.mjs";

const PACKAGES = { openai: "openai", anthropic: "@anthropic-ai/sdk", ollama: "ollama" };
const api = process.argv[2];
const library = await load(PACKAGES[api]);

/** Reads a stream to its end; returns how many pieces it had. */
async function read(stream) {
  let count = 0;
  for await (const _ of await stream) count++;
  return count;
}

const APIS = {
  openai(call, fetch) {
    const { url, key, model, words, tokens } = call;
    const options = { baseURL: `${url}/v1`, apiKey: key, maxRetries: call.retries, fetch };
    const client = new library.OpenAI(options);
    const body = { model, messages: [{ role: "user", content: words }], max_tokens: tokens };
    const response = { model, input: words, max_output_tokens: tokens, stream: true };
    return {
      chat: async () => (await client.chat.completions.create(body)).choices[0].message.content,
      stream: () => read(client.chat.completions.create({ ...body, stream: true })),
      responses: () => read(client.responses.create(response)),
      admin: () => client.get(`${url}/internal/status`),
      nameless: () => read(client.files.list()),
    };
  },
  anthropic(call, fetch) {
    const { url, key, model, words, tokens } = call;
    const options = { baseURL: url, apiKey: key, maxRetries: call.retries, fetch };
    const client = new library.Anthropic(options);
    const body = { model, messages: [{ role: "user", content: words }], max_tokens: tokens };
    return {
      chat: async () => (await client.messages.create(body)).content[0].text,
      stream: () => client.messages.stream(body).finalText(),
      admin: () => client.get(`${url}/internal/status`),
      nameless: () => read(client.beta.skills.list()),
    };
  },
  ollama(call, fetch) {
    const { url, key, model, words, tokens } = call;
    const headers = { Authorization: `Bearer ${key}` };
    const client = new library.Ollama({ host: url, headers, fetch });
    const messages = [{ role: "user", content: words }];
    const body = { model, messages, options: { num_predict: tokens } };
    return {
      chat: async () => (await client.chat(body)).message.content,
      stream: () => read(client.chat({ ...body, stream: true })),
      admin: () => client.delete({ model }),
      nameless: async () => (await client.chat({ ...body, model: "" })).message.content,
    };
  },
};

async function outcome(call) {
  const attempts = [];
  const keep = async (...request) => {
    const response = await fetch(...request);
    attempts.push({
      status: response.status,
      retry_after: response.headers.get("retry-after"),
      should_retry: response.headers.get("x-should-retry"),
      at: performance.now() / 1000,
    });
    return response;
  };
  try {
    return { passed: String(await APIS[api](call, keep)[call.call]()), attempts };
  } catch (error) {
    // Anthropic's package keeps the whole body, OpenAI's the error object in it.
    const inner = error.error?.error ?? error.error;
    return {
      exception: error.constructor.name,
      status: error.status ?? error.status_code,
      message: error.message,
      type: inner?.type,
      code: inner?.code,
      attempts,
    };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await outcome(JSON.parse(line))));
}
