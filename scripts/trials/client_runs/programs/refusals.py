"""What the packages `openai`, `anthropic` and `ollama` make of refusals.

The argument is the API. Each line of standard input is a call as a JSON object, and gets a line of
standard output: the exception or the text, and the responses that the package got for it.
"""

import json
import sys
import time

CALL_SECONDS_MAX = 60


class Attempts:
    """The responses that one client got, by a hook that its HTTP library offers."""

    def __init__(self):
        self.seen = []
        self.hooks = {"response": [self.keep]}

    def keep(self, response):
        headers = response.headers
        self.seen.append(
            {
                "status": response.status_code,
                "retry_after": headers.get("retry-after"),
                "should_retry": headers.get("x-should-retry"),
                "at": time.monotonic(),
            }
        )


def openai_calls(call, hooks):
    import openai

    client = openai.OpenAI(
        base_url=f"{call['url']}/v1",
        api_key=call["key"],
        max_retries=call["retries"],
        http_client=openai.DefaultHttpxClient(event_hooks=hooks, timeout=CALL_SECONDS_MAX),
    )
    model, words, tokens = call["model"], call["words"], call["tokens"]
    body = {"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": tokens}

    def responses():
        events = client.responses.create(
            model=model, input=words, max_output_tokens=tokens, stream=True
        )
        return [event.type for event in events][-1]

    return {
        "chat": lambda: client.chat.completions.create(**body).choices[0].message.content,
        "stream": lambda: len(list(client.chat.completions.create(**body, stream=True))),
        "responses": responses,
        "admin": lambda: client.get(f"{call['url']}/internal/status", cast_to=object),
        "nameless": lambda: list(client.files.list()),
    }


def anthropic_calls(call, hooks):
    import anthropic

    client = anthropic.Anthropic(
        base_url=call["url"],
        api_key=call["key"],
        max_retries=call["retries"],
        http_client=anthropic.DefaultHttpxClient(event_hooks=hooks, timeout=CALL_SECONDS_MAX),
    )
    body = {
        "model": call["model"],
        "messages": [{"role": "user", "content": call["words"]}],
        "max_tokens": call["tokens"],
    }

    def stream():
        with client.messages.stream(**body) as events:
            return events.get_final_text()

    return {
        "chat": lambda: client.messages.create(**body).content[0].text,
        "stream": stream,
        "admin": lambda: client.get(f"{call['url']}/internal/status", cast_to=object),
        "nameless": lambda: list(client.beta.skills.list()),
    }


def ollama_calls(call, hooks):
    import ollama

    client = ollama.Client(
        host=call["url"],
        headers={"Authorization": f"Bearer {call['key']}"},
        event_hooks=hooks,
        timeout=CALL_SECONDS_MAX,
    )
    body = {
        "messages": [{"role": "user", "content": call["words"]}],
        "options": {"num_predict": call["tokens"]},
    }
    model = call["model"]
    return {
        "chat": lambda: client.chat(model, **body).message.content,
        "stream": lambda: len(list(client.chat(model, **body, stream=True))),
        "admin": lambda: str(client.delete(model)),
    }


APIS = {"openai": openai_calls, "anthropic": anthropic_calls, "ollama": ollama_calls}


def fields(error):
    """`type` and `code` of the error object, where the package keeps the response's body."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    return {name: inner.get(name) for name in ("type", "code")} if inner else {}


def outcome(make_calls, call):
    attempts = Attempts()
    try:
        result = {"passed": str(make_calls(call, attempts.hooks)[call["call"]]())}
    except Exception as error:
        result = {
            "exception": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "message": str(error),
            **fields(error),
        }
    return result | {"attempts": attempts.seen}


def main():
    for line in sys.stdin:
        print(json.dumps(outcome(APIS[sys.argv[1]], json.loads(line))), flush=True)


main()
