"""The columns with LlamaIndex's models for OpenAI-like servers and for Ollama."""

from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from program import (
    ADD,
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
        from llama_index.llms.ollama import Ollama

        return Ollama(model=MODEL, base_url=OLLAMA, request_timeout=SECONDS_MAX)
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(
        model=MODEL,
        api_base=OPENAI,
        api_key=KEY,
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
        timeout=SECONDS_MAX,
    )


def ask(text):
    return [ChatMessage(role="user", content=text)]


def add(a: int, b: int) -> int:
    """Adds two integers."""
    return a + b


def chat():
    show(model().chat(ask(HELLO)).message.content)


def stream():
    for piece in model().stream_chat(ask(HELLO)):
        if piece.delta:
            show(piece.delta)


def tools():
    one = model()
    tool = FunctionTool.from_defaults(add)
    messages = ask(ADD)
    for _ in range(TURNS_MAX):
        response = one.chat_with_tools([tool], chat_history=messages)
        messages.append(response.message)
        calls = one.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        if not calls:
            return show(response.message.content)
        for call in calls:
            content = str(tool.call(**call.tool_kwargs))
            more = {"tool_call_id": call.tool_id, "name": call.tool_name}
            messages.append(ChatMessage(role="tool", content=content, additional_kwargs=more))
    return None


def images():
    blocks = [TextBlock(text=LOOK), ImageBlock(image=image_base64(), image_mimetype="image/png")]
    show(model().chat([ChatMessage(role="user", blocks=blocks)]).message.content)


def error():
    fails(lambda: model().chat(ask(FAIL)))


def cancel():
    for piece in model().stream_chat(ask(SLOW)):
        if piece.delta:
            left()


if __name__ == "__main__":
    main(globals())
