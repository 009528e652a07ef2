"""How the scripted server edits a file with the tools of an agent.

The file has one wrong word. An agent's own tools are told by their names and parameters; each plan
reads the file, corrects it and reads it again: three calls in a row.
"""

import json

WRONG = "wrold"
RIGHT = "world"
BEFORE = f"Hello {WRONG}.\n"
AFTER = f"Hello {RIGHT}.\n"
DONE = "The file is corrected."


def prompt(path):
    return f"TASK edit: correct the misspelt word in the file {path}"


def tools(body):
    """Names and parameters of the functions that a request offers."""
    found = {}
    for tool in body.get("tools") or []:
        function = tool.get("function") or {}
        found[function.get("name", "")] = (function.get("parameters") or {}).get("properties", {})
    return found


def tool_names(body):
    return list(tools(body))


def steps(body, path):
    """The calls in their order, each with its arguments; none without known tools."""
    offered = tools(body)
    for plan in PLANS:
        calls = plan(offered, path)
        if calls:
            return calls
    return []


def with_editor(names, read_key, path_key, old_key, new_key, more=None):
    """A plan of a tool that reads and one that replaces a text."""
    read_names, edit_names = names

    def plan(offered, path):
        read = next((name for name in read_names if read_key in offered.get(name, {})), None)
        edit = next((name for name in edit_names if old_key in offered.get(name, {})), None)
        if not read or not edit:
            return []
        change = {path_key: path, old_key: WRONG, new_key: RIGHT, **(more or {})}
        return [(read, {read_key: path}), (edit, change), (read, {read_key: path})]

    return plan


def with_shell(offered, path):
    """Commands of a shell, whatever the tool calls its parameter."""
    commands = [f"cat {path}", f"sed -i s/{WRONG}/{RIGHT}/ {path}", f"cat {path}"]
    for name, parameters in offered.items():
        key = next((key for key in ("cmd", "command", "commands") if key in parameters), None)
        if key is None or name in ("write_stdin",):
            continue
        kind = parameters[key].get("type")
        made = []
        for command in commands:
            value = command
            if kind == "array":
                value = ["bash", "-lc", command] if key == "command" else [command]
            arguments = {key: value}
            if "description" in parameters:
                arguments["description"] = "Corrects a word"
            if "requires_approval" in parameters:
                arguments["requires_approval"] = False
            made.append((name, arguments))
        return made
    return []


def with_patch(offered, path):
    """Codex: a shell, and apply_patch as a function whose one parameter is the patch."""
    shell = with_shell(
        {name: each for name, each in offered.items() if name != "apply_patch"}, path
    )
    if "input" not in offered.get("apply_patch", {}) or not shell:
        return []
    patch = "\n".join(
        [
            "*** Begin Patch",
            f"*** Update File: {path}",
            "@@",
            f"-{BEFORE.strip()}",
            f"+{AFTER.strip()}",
            "*** End Patch",
            "",
        ]
    )
    return [shell[0], ("apply_patch", {"input": patch}), shell[2]]


PLANS = [
    with_patch,
    # Claude Code
    with_editor((["Read"], ["Edit"]), "file_path", "file_path", "old_string", "new_string"),
    # opencode
    with_editor((["read"], ["edit"]), "filePath", "filePath", "oldString", "newString"),
    # Copilot CLI
    with_editor((["view"], ["edit"]), "path", "path", "old_str", "new_str"),
    with_shell,
]


def as_text(path):
    """For agents without tools, such as aider: a block that replaces a line."""
    name = path.rsplit("/", 1)[-1]
    head, middle, tail = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
    lines = [name, "```", head, BEFORE.strip(), middle, AFTER.strip(), tail, "```", ""]
    return "\n".join(lines)


def shown(body):
    """The tools of a request in one line, for what a failed run prints."""
    return json.dumps({name: sorted(parameters) for name, parameters in tools(body).items()})
