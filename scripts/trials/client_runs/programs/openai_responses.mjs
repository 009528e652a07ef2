// The columns with the JavaScript package `openai` and its Responses API.

import {
  ADD, DESCRIPTION, FAIL, fails, HELLO, imageUrl, KEY, left, load, LOOK, MODEL, main, OPENAI,
  PARAMETERS, SLOW, show, TURNS_MAX,
} from "./program.mjs";

const { default: OpenAI } = await load("openai");
const client = new OpenAI({ baseURL: OPENAI, apiKey: KEY, maxRetries: 0 });
const tools = [
  { type: "function", name: "add", description: DESCRIPTION, parameters: PARAMETERS },
];
const create = (input, more = {}) => client.responses.create({ model: MODEL, input, ...more });

await main({
  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    show(names);
  },
  async chat() {
    show((await create(HELLO)).output_text);
  },
  async stream() {
    const stream = client.responses.stream({ model: MODEL, input: HELLO });
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") show(event.delta);
    }
    const whole = await stream.finalResponse();
    if (whole.status !== "completed") show(whole);
  },
  async tools() {
    const items = [{ role: "user", content: ADD }];
    for (let turn = 0; turn < TURNS_MAX; turn++) {
      const made = await create(items, { tools, store: false });
      items.push(...made.output);
      const calls = made.output.filter((item) => item.type === "function_call");
      if (!calls.length) return show(made.output_text);
      for (const call of calls) {
        const { a, b } = JSON.parse(call.arguments);
        items.push({
          type: "function_call_output",
          call_id: call.call_id,
          output: String(a + b),
        });
      }
    }
  },
  async images() {
    const content = [
      { type: "input_text", text: LOOK },
      { type: "input_image", image_url: imageUrl(), detail: "auto" },
    ];
    show((await create([{ role: "user", content }])).output_text);
  },
  error: () => fails(() => create(FAIL)),
  async cancel() {
    for await (const event of await create(SLOW, { stream: true })) {
      if (event.type === "response.output_text.delta") left();
    }
  },
});
