// The columns with the JavaScript package `ollama`.

import {
  ADD, DESCRIPTION, FAIL, fails, HELLO, image, left, load, LOOK, MODEL, main, OLLAMA, PARAMETERS,
  SLOW, show, TURNS_MAX,
} from "./program.mjs";

const { Ollama } = await load("ollama");
const client = new Ollama({ host: OLLAMA });
const tools = [
  { type: "function", function: { name: "add", description: DESCRIPTION, parameters: PARAMETERS } },
];
const chat = (content, more = {}) =>
  client.chat({ model: MODEL, messages: [{ role: "user", content }], ...more });

await main({
  async models() {
    show((await client.list()).models.map((model) => model.model));
    await client.show({ model: MODEL });
  },
  async chat() {
    show((await chat(HELLO)).message.content);
  },
  async stream() {
    for await (const piece of await chat(HELLO, { stream: true })) {
      if (piece.message.content) show(piece.message.content);
    }
  },
  async tools() {
    const messages = [{ role: "user", content: ADD }];
    for (let turn = 0; turn < TURNS_MAX; turn++) {
      const { message } = await client.chat({ model: MODEL, messages, tools });
      messages.push(message);
      if (!message.tool_calls?.length) return show(message.content);
      for (const call of message.tool_calls) {
        const { a, b } = call.function.arguments;
        messages.push({ role: "tool", tool_name: call.function.name, content: String(a + b) });
      }
    }
  },
  async images() {
    const message = { role: "user", content: LOOK, images: [new Uint8Array(image())] };
    show((await client.chat({ model: MODEL, messages: [message] })).message.content);
  },
  error: () => fails(() => chat(FAIL)),
  async cancel() {
    for await (const piece of await chat(SLOW, { stream: true })) {
      if (piece.message.content) left();
    }
  },
});
