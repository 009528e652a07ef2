#!/usr/bin/env python3
"""Turns corpora of other projects into the neutral vectors beside this file.

    import.py gunicorn <requests.json> > gunicorn.txt
    import.py llhttp <checkout of nodejs/llhttp> > llhttp.txt

The first reads a JSON file of gunicorn's tests/requests: a list `cases` of `id`, `bytes` (one
character a byte), `verdict` and `note`. The second reads llhttp's test/{request,response}/*.md,
the cases that its strict mode runs through to the end. README.md describes the format and holds
the notices.
"""

import json
import pathlib
import re
import sys

ESCAPES = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", "\t": "\\t"}
LINE_WIDTH = 92


def escape(char):
    if char in ESCAPES:
        return ESCAPES[char]
    return char if " " <= char <= "~" else f"\\x{ord(char):02x}"


def emit(ident, kind, verdict, text, note=None):
    print(f"\ncase {ident}\nkind {kind}\nexpect {verdict}")
    if note:
        print(f"note {note}")
    # One line of the message is one line here; long ones go on in the next.
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        while line:
            part, line = line[:LINE_WIDTH], line[LINE_WIDTH:]
            print("| " + "".join(escape(char) for char in part))


def gunicorn(path):
    corpus = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    for case in corpus["cases"]:
        emit(case["id"], "request", case["verdict"], case["bytes"], case["note"])


def unescape(text):
    """As llhttp's test/md-test.ts does it, but with bytes instead of characters."""
    text = text.encode("utf-8").decode("latin-1")
    text = text.removesuffix("\n")
    text = re.sub(r"\\\n", "", text)
    text = text.replace("\n", "\r\n")
    for name, char in (("r", "\r"), ("n", "\n"), ("t", "\t"), ("f", "\f")):
        text = text.replace("\\" + name, char)
    text = re.sub(r"\\x([0-9a-fA-F]+)", lambda found: chr(int(found[1], 16)), text)
    return re.sub(r"\\([0-7]{1,3})", lambda found: chr(int(found[1], 8)), text)


def llhttp_verdict(log):
    """From the log of events. An error 22 is no fault: the parser stops where another protocol
    begins."""
    faults = [line for line in log if " error code=" in line and " error code=22 " not in line]
    if faults:
        return "reject"
    return "accept" if log[-1].endswith("message complete") else "open"


def llhttp(root):
    for kind in ("request", "response"):
        for path in sorted(pathlib.Path(root, "test", kind).glob("*.md")):
            text = path.read_text(encoding="utf-8")
            pattern = r"<!-- meta=(\{.*?\}) -->\s*^```http\n(.*?)^```$.*?^```log\n(.*?)^```$"
            for count, found in enumerate(re.finditer(pattern, text, re.S | re.M), 1):
                meta = json.loads(found[1])
                if meta.pop("type") != kind or meta.keys() & {"pause", "skipBody", "skip"}:
                    continue
                heading = re.findall(r"^#+ (.*)$", text[: found.start()], re.M)[-1]
                verdict = llhttp_verdict(found[3].rstrip().splitlines())
                ident = f"llhttp/{kind}/{path.stem}/{count:02}"
                emit(ident, kind, verdict, unescape(found[2]), heading)


def main():
    sources = {"gunicorn": gunicorn, "llhttp": llhttp}
    if len(sys.argv) != 3 or sys.argv[1] not in sources:
        sys.exit(__doc__)
    print(f"# Made by import.py from {sys.argv[1]}; not edited by hand. README.md has the notice.")
    sources[sys.argv[1]](sys.argv[2])


main()
