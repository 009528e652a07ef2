// The columns with the JavaScript package `@anthropic-ai/sdk`.

import {
  ADD, ANTHROPIC, DESCRIPTION, FAIL, fails, HELLO, image, KEY, left, load, LOOK, MODEL, main,
  PARAMETERS, SLOW, show, TURNS_MAX,
} from "./program.mjs";

const { default: Anthropic } = await load("@anthropic-ai/sdk");
const client = new Anthropic({ baseURL: ANTHROPIC, apiKey: KEY, maxRetries: 0 });
const tools = [{ name: "add", description: DESCRIPTION, input_schema: PARAMETERS }];
const body = (content) => ({
  model: MODEL,
  max_tokens: 200,
  system: "Follow the script.",
  messages: [{ role: "user", content }],
});
const textOf = (message) =>
  message.content.filter((block) => block.type === "text").map((block) => block.text).join("");

await main({
  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    show(names);
  },
  async chat() {
    show(textOf(await client.messages.create(body(HELLO))));
  },
  async stream() {
    const stream = client.messages.stream(body(HELLO)).on("text", show);
    await stream.finalMessage();
  },
  async tools() {
    const request = body(ADD);
    for (let turn = 0; turn < TURNS_MAX; turn++) {
      const message = await client.messages.create({ ...request, tools });
      request.messages.push({ role: "assistant", content: message.content });
      const uses = message.content.filter((block) => block.type === "tool_use");
      if (!uses.length) return show(textOf(message));
      const results = uses.map(({ id, input: { a, b } }) => ({
        type: "tool_result",
        tool_use_id: id,
        content: String(a + b),
      }));
      request.messages.push({ role: "user", content: results });
    }
  },
  async images() {
    const source = { type: "base64", media_type: "image/png", data: image().toString("base64") };
    const parts = [{ type: "image", source }, { type: "text", text: LOOK }];
    show(textOf(await client.messages.create(body(parts))));
  },
  error: () => fails(() => client.messages.create(body(FAIL))),
  async cancel() {
    await client.messages.stream(body(SLOW)).on("text", left).finalMessage();
  },
});
