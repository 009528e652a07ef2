// The columns with Vercel's AI SDK; the second argument names the provider of its API.

import {
  ADD, ANTHROPIC, DESCRIPTION, FAIL, fails, HELLO, image, KEY, left, load, LOOK, MODEL, main,
  OPENAI, PARAMETERS, SLOW, show, TURNS_MAX,
} from "./program.mjs";

const ai = await load("ai");

async function model() {
  const kind = process.argv[3];
  if (kind === "anthropic") {
    const { createAnthropic } = await load("@ai-sdk/anthropic");
    return createAnthropic({ baseURL: `${ANTHROPIC}/v1`, apiKey: KEY })(MODEL);
  }
  if (kind === "responses") {
    const { createOpenAI } = await load("@ai-sdk/openai");
    return createOpenAI({ baseURL: OPENAI, apiKey: KEY }).responses(MODEL);
  }
  const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
  return createOpenAICompatible({ name: "olla", baseURL: OPENAI, apiKey: KEY })(MODEL);
}

// Its own default for Anthropic would let a small real model talk for minutes.
const base = { model: await model(), maxRetries: 0, maxOutputTokens: 64 };
const generate = (more) => ai.generateText({ ...base, ...more });
const add = ai.tool({
  description: DESCRIPTION,
  inputSchema: ai.jsonSchema(PARAMETERS),
  execute: ({ a, b }) => String(a + b),
});

await main({
  async chat() {
    show((await generate({ prompt: HELLO })).text);
  },
  async stream() {
    for await (const text of ai.streamText({ ...base, prompt: HELLO }).textStream) show(text);
  },
  async tools() {
    const stopWhen = (ai.isStepCount ?? ai.stepCountIs)(TURNS_MAX);
    show((await generate({ prompt: ADD, tools: { add }, stopWhen })).text);
  },
  async images() {
    const content = [
      { type: "text", text: LOOK },
      { type: "image", image: image(), mediaType: "image/png" },
    ];
    show((await generate({ messages: [{ role: "user", content }] })).text);
  },
  error: () => fails(() => generate({ prompt: FAIL })),
  async cancel() {
    for await (const _ of ai.streamText({ ...base, prompt: SLOW }).textStream) left();
  },
});
