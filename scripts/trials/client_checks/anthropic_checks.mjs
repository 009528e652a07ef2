// The checks with the official @anthropic-ai/sdk package.
//
// node anthropic_checks.mjs FOLDER_OF_PACKAGES TARGET, where TARGET is JSON with url, model,
// backend, mode and can. Writes a line of JSON for each check: name, and remark or failure.

import { createRequire } from "node:module";

const packages = process.argv[2];
const target = JSON.parse(process.argv[3]);
const require = createRequire(`${packages}/`);
const { Anthropic } = require("@anthropic-ai/sdk");
const { betaTool } = require("@anthropic-ai/sdk/helpers/beta/json-schema");

const client = new Anthropic({
  baseURL: target.url,
  apiKey: "none",
  maxRetries: 0,
  timeout: 60_000,
});
const schema = {
  type: "object",
  properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
  required: ["city"],
};
const tool = {
  name: "get_weather",
  description: "Tells the weather of a city.",
  input_schema: schema,
};
const question = [{ role: "user", content: "Weather in Paris?" }];
const body = {
  model: target.model,
  max_tokens: 12,
  temperature: 0,
  messages: [{ role: "user", content: "Say hello." }],
};
const toolsBody = {
  model: target.model,
  max_tokens: 200,
  temperature: 0,
  tools: [tool],
  messages: question,
};
if (target.can.includes("forced tools")) {
  // A model as small as this one calls tools when it must, again and again.
  toolsBody.tool_choice = { type: "any" };
  toolsBody.stop_sequences = ["},\n", "</tool_call>"];
}

function expect(condition, message) {
  if (!condition) throw new Error(message);
}

// Checks what every message must have; returns a remark about it.
function whole(message) {
  expect(message.role === "assistant", `role is ${message.role}`);
  const text = message.content.find((block) => block.type === "text")?.text;
  expect(text, `no text in ${JSON.stringify(message.content)}`);
  expect(["end_turn", "max_tokens"].includes(message.stop_reason), message.stop_reason);
  expect(message.usage.output_tokens > 0, `usage is ${JSON.stringify(message.usage)}`);
  const { input_tokens, output_tokens } = message.usage;
  return `${JSON.stringify(text.slice(0, 24))}, ${input_tokens}+${output_tokens} tokens`;
}

function toolUse(message) {
  const use = message.content.find((block) => block.type === "tool_use");
  expect(use, `no tool use in ${JSON.stringify(message.content)}`);
  expect(message.stop_reason === "tool_use", `stopped by ${message.stop_reason}`);
  expect(use.name === "get_weather" && use.id, `got ${JSON.stringify(use)}`);
  expect(typeof use.input.city === "string", `input is ${JSON.stringify(use.input)}`);
  return use;
}

async function refusal(kind, ask) {
  try {
    await ask();
  } catch (error) {
    expect(error instanceof kind, `${error.constructor.name}: ${error.message}`);
    return error;
  }
  throw new Error("no error");
}

const checks = {
  "models.list": async () => {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    expect(names.includes(target.model), `${target.model} is not among ${names}`);
    return `${names.length} models`;
  },
  "models.retrieve": async () => {
    const model = await client.models.retrieve(target.model);
    expect(model.id === target.model, `got ${model.id}`);
    return model.display_name;
  },
  "messages.create": async () => whole(await client.messages.create(body)),
  "messages.create().withResponse()": async () => {
    const { data, response, request_id } = await client.messages.create(body).withResponse();
    const mode = response.headers.get("x-olla-mode");
    const expected = target.mode === "native" ? "passthrough" : null;
    expect(mode === expected, `X-Olla-Mode is ${mode}, not ${expected}`);
    expect(response.headers.get("x-olla-endpoint") === target.backend, "another endpoint");
    expect(request_id, "no request-id");
    return whole(data);
  },
  "messages.create({stream: true})": async () => {
    const kinds = [];
    for await (const event of await client.messages.create({ ...body, stream: true })) {
      kinds.push(event.type);
    }
    expect(kinds[0] === "message_start" && kinds.at(-1) === "message_stop", `${kinds}`);
    return `${kinds.length} events`;
  },
  "messages.stream()": async () => {
    let text = "";
    const stream = client.messages.stream(body).on("text", (piece) => (text += piece));
    const message = await stream.finalMessage();
    expect(text === message.content[0].text, `${text} is not ${message.content[0].text}`);
    return whole(message);
  },
  "messages.stream(), abort": async () => {
    const stream = client.messages.stream({ ...body, max_tokens: 400 });
    let events = 0;
    const error = await refusal(Anthropic.APIUserAbortError, async () => {
      for await (const _ of stream) if (++events === 4) stream.abort();
      await stream.done();
    });
    return `${error.constructor.name} after ${events} events`;
  },
  "beta.messages.create": async () =>
    whole(await client.beta.messages.create({ ...body, betas: ["some-beta-2026-01-01"] })),
  "messages.countTokens": async () => {
    const count = await client.messages.countTokens({ model: target.model, messages: question });
    expect(count.input_tokens > 1, JSON.stringify(count));
    return `${count.input_tokens} tokens`;
  },
  ...(target.can.includes("tools") && {
    "tool use and its result": async () => {
      const response = await client.messages.create(toolsBody);
      const use = toolUse(response);
      const result = { type: "tool_result", tool_use_id: use.id, content: "Rain." };
      const messages = [
        ...question,
        { role: "assistant", content: response.content },
        { role: "user", content: [result] },
      ];
      const next = { ...toolsBody, tool_choice: { type: "auto" }, max_tokens: 24, messages };
      const final = await client.messages.create(next);
      expect(final.content.length > 0, "no response to the tool's result");
      return `${use.name}(${JSON.stringify(use.input)}), then ${final.content[0].type}`;
    },
  }),
  ...(target.can.includes("tool stream") && {
    "messages.stream() with a tool": async () => {
      let pieces = 0;
      const stream = client.messages.stream(toolsBody).on("inputJson", () => (pieces += 1));
      const use = toolUse(await stream.finalMessage());
      expect(pieces > 0, "no inputJson event");
      return `${pieces} pieces of ${JSON.stringify(use.input)}`;
    },
    "beta.messages.toolRunner": async () => {
      const asked = [];
      const run = ({ city }) => {
        asked.push(city);
        return "Rain.";
      };
      const runnable = betaTool({ ...tool, inputSchema: schema, run });
      const request = { ...toolsBody, tools: [runnable], max_iterations: 2 };
      let responses = 0;
      for await (const _ of client.beta.messages.toolRunner(request)) responses += 1;
      expect(asked.length > 0, "the tool was not called");
      return `${responses} responses, asked for ${asked}`;
    },
  }),
  "bad request is BadRequestError": async () => {
    const ask = () => client.messages.create({ ...body, max_tokens: 0 });
    const error = await refusal(Anthropic.BadRequestError, ask);
    expect(error.error.error.type === "invalid_request_error", error.message);
    return error.error.error.message;
  },
  "unknown model is NotFoundError": async () => {
    const ask = () => client.messages.create({ ...body, model: "no-such-model" });
    const error = await refusal(Anthropic.NotFoundError, ask);
    return error.error.error.message;
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    console.log(JSON.stringify({ name, remark: await check() }));
  } catch (error) {
    console.log(JSON.stringify({ name, failure: `${error.constructor.name}: ${error.message}` }));
  }
}
