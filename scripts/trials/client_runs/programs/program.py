"""What the programs of the trial's libraries have in common.

A program has a function for each column. It prints what the server said, for a stream each piece on
a line of its own, and for an error its class, status and message.
"""

import base64
import os
import sys

OPENAI = os.environ["CLIENT_OPENAI"]
ANTHROPIC = os.environ["CLIENT_ANTHROPIC"]
OLLAMA = os.environ["CLIENT_OLLAMA"]
MODEL = os.environ["CLIENT_MODEL"]
API = os.environ["CLIENT_API"]
KEY = "none"
SECONDS_MAX = 30

HELLO = "TASK hello"
THINK = "TASK think"
ADD = "TASK add: add 1 and 2, add 3 to that, then 2, with the tool"
LOOK = "TASK look: what is in the image?"
FAIL = "TASK fail"
SLOW = "TASK slow"
TURNS_MAX = 8
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
DESCRIPTION = "Adds two integers."


def image_base64():
    with open(os.environ["CLIENT_IMAGE"], "rb") as file:
        return base64.b64encode(file.read()).decode()


def image_url():
    return f"data:image/png;base64,{image_base64()}"


def show(text):
    """Prints a piece of text on a line, as it came."""
    print(text, flush=True)


def show_error(error):
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    print(f"{type(error).__name__} {status}: {error}", flush=True)


def fails(ask):
    """Calls `ask`, which must raise, and prints the error."""
    try:
        print("no error:", ask())
    except Exception as error:
        show_error(error)


def left():
    """Ends the program at once: the client is gone, and with it its connections."""
    print("left", flush=True)
    os._exit(0)


def main(columns):
    columns[sys.argv[1]]()
