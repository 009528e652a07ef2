"""The columns with LangChain's chat models, one for each API."""

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from program import (
    ADD,
    ANTHROPIC,
    API,
    FAIL,
    HELLO,
    KEY,
    LOOK,
    MODEL,
    OLLAMA,
    OPENAI,
    SECONDS_MAX,
    SLOW,
    TURNS_MAX,
    fails,
    image_base64,
    left,
    main,
    show,
)


def model():
    if API == "ollama":
        from langchain_ollama import ChatOllama

        return ChatOllama(model=MODEL, base_url=OLLAMA, client_kwargs={"timeout": SECONDS_MAX})
    if API == "anthropic":
        from langchain_anthropic import ChatAnthropic

        # Its own default would let a small real model talk for minutes.
        return ChatAnthropic(
            model=MODEL,
            base_url=ANTHROPIC,
            api_key=KEY,
            max_retries=0,
            timeout=SECONDS_MAX,
            max_tokens=64,
        )
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=MODEL, base_url=OPENAI, api_key=KEY, max_retries=0, timeout=SECONDS_MAX)


@tool
def add(a: int, b: int) -> int:
    """Adds two integers."""
    return a + b


def text_of(message):
    return message.text if isinstance(message.text, str) else message.text()


def chat():
    show(text_of(model().invoke(HELLO)))


def stream():
    for chunk in model().stream(HELLO):
        if text_of(chunk):
            show(text_of(chunk))


def tools():
    messages = [HumanMessage(ADD)]
    bound = model().bind_tools([add])
    for _ in range(TURNS_MAX):
        message = bound.invoke(messages)
        messages.append(message)
        if not message.tool_calls:
            return show(text_of(message))
        for call in message.tool_calls:
            content = str(add.invoke(call["args"]))
            messages.append(ToolMessage(content, tool_call_id=call["id"]))
    return None


def images():
    parts = [
        {"type": "text", "text": LOOK},
        {"type": "image", "base64": image_base64(), "mime_type": "image/png"},
    ]
    show(text_of(model().invoke([HumanMessage(content=parts)])))


def error():
    fails(lambda: model().invoke(FAIL))


def cancel():
    for chunk in model().stream(SLOW):
        if text_of(chunk):
            left()


if __name__ == "__main__":
    main(globals())
