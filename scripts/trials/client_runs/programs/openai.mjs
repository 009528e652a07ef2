// The columns with the JavaScript package `openai` and chat completions.

import {
  ADD, DESCRIPTION, FAIL, fails, HELLO, imageUrl, KEY, left, load, LOOK, MODEL, main, OPENAI,
  PARAMETERS, SLOW, show, TURNS_MAX,
} from "./program.mjs";

const { default: OpenAI } = await load("openai");
const client = new OpenAI({ baseURL: OPENAI, apiKey: KEY, maxRetries: 0 });
const tools = [
  { type: "function", function: { name: "add", description: DESCRIPTION, parameters: PARAMETERS } },
];
const create = (content, more = {}) =>
  client.chat.completions.create({
    model: MODEL,
    messages: [{ role: "user", content }],
    ...more,
  });

await main({
  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    show(names);
  },
  async chat() {
    show((await create(HELLO)).choices[0].message.content);
  },
  async stream() {
    for await (const chunk of await create(HELLO, { stream: true })) {
      const text = chunk.choices[0]?.delta.content;
      if (text) show(text);
    }
  },
  async tools() {
    const messages = [{ role: "user", content: ADD }];
    for (let turn = 0; turn < TURNS_MAX; turn++) {
      const made = await client.chat.completions.create({ model: MODEL, messages, tools });
      const { message } = made.choices[0];
      messages.push(message);
      if (!message.tool_calls?.length) return show(message.content);
      for (const call of message.tool_calls) {
        const { a, b } = JSON.parse(call.function.arguments);
        messages.push({ role: "tool", tool_call_id: call.id, content: String(a + b) });
      }
    }
  },
  async images() {
    const parts = [
      { type: "text", text: LOOK },
      { type: "image_url", image_url: { url: imageUrl() } },
    ];
    show((await create(parts)).choices[0].message.content);
  },
  error: () => fails(() => create(FAIL)),
  async cancel() {
    for await (const chunk of await create(SLOW, { stream: true })) {
      if (chunk.choices[0]?.delta.content) left();
    }
  },
});
