"""How the command-line agents are called, each in a home folder of its own.

An agent works in a folder with one file (plans.BEFORE), without a terminal, and may use its tools
without asking. Its own requests to the internet, such as updates and telemetry, are off.
"""

import json

from trials.client_runs import plans, scripted

KEY = "none"
PROMPTS = {
    "chat": "TASK hello",
    "stream": "TASK hello",
    "error": "TASK fail",
    "cancel": "TASK slow",
}


def prompt(column, run):
    if column == "tools":
        return plans.prompt(run.folder / "greeting.txt")
    return PROMPTS[column]


def binary(client, name):
    return client.directory / "node_modules" / ".bin" / name


def claude_code(client, column, run):
    environment = {
        "ANTHROPIC_BASE_URL": run.anthropic,
        "ANTHROPIC_AUTH_TOKEN": KEY,
        "ANTHROPIC_MODEL": run.model,
        "ANTHROPIC_SMALL_FAST_MODEL": run.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": run.model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "DISABLE_AUTOUPDATER": "1",
    }
    command = [binary(client, "claude"), "-p", prompt(column, run)]
    return [*command, "--allowedTools", "Read,Edit,Bash"], environment


def codex(client, column, run):
    # Codex has no environment variables for this; the provider must not be named "openai".
    home = run.home / ".codex"
    home.mkdir(parents=True, exist_ok=True)
    model = scripted.ALIAS if client.name == "codex-patch" else run.model
    (home / "config.toml").write_text(
        f"""\
model = "{model}"
model_provider = "olla"
check_for_update_on_startup = false

[model_providers.olla]
name = "olla"
base_url = "{run.openai}"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""
    )
    # The folder is thrown away, and a sandbox inside of one may not be possible.
    free = "--dangerously-bypass-approvals-and-sandbox"
    command = [binary(client, "codex"), "exec", "--skip-git-repo-check", free]
    return [*command, prompt(column, run)], {"CODEX_HOME": str(home)}


def opencode(client, column, run):
    config = {
        "$schema": "https://opencode.ai/config.json",
        "autoupdate": False,
        "share": "disabled",
        "enabled_providers": ["olla"],
        "provider": {
            "olla": {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": run.openai, "apiKey": KEY},
                "models": {run.model: {"limit": {"context": 32768, "output": 4096}}},
            }
        },
    }
    (run.folder / "opencode.json").write_text(json.dumps(config))
    environment = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1"}
    command = [binary(client, "opencode"), "run", "--auto", "--model", f"olla/{run.model}"]
    return [*command, prompt(column, run)], environment


def copilot_cli(client, column, run):
    environment = {
        "COPILOT_OFFLINE": "true",
        "COPILOT_PROVIDER_BASE_URL": run.openai,
        "COPILOT_MODEL": run.model,
        "COPILOT_AUTO_UPDATE": "false",
    }
    command = [binary(client, "copilot"), "-p", prompt(column, run)]
    return [*command, "--allow-all-tools", "--allow-all-paths"], environment


def cline(client, column, run):
    command = [binary(client, "cline"), "--config", run.home / ".cline", "--cwd", run.folder]
    auth = [binary(client, "cline"), "auth", "--config", run.home / ".cline", "-p", "openai"]
    run.before = [[*auth, "-k", KEY, "-m", run.model, "-b", run.openai]]
    return [*command, "--retries", "1", "-P", "openai", "-m", run.model, prompt(column, run)], {}


def continue_cli(client, column, run):
    config = run.home / "continue.yaml"
    config.write_text(
        f"""\
name: olla
version: 1.0.0
schema: v1
models:
  - name: {run.model}
    provider: openai
    model: {run.model}
    apiBase: {run.openai}
    apiKey: {KEY}
    capabilities: [tool_use]
    roles: [chat, edit, apply]
"""
    )
    environment = {"CONTINUE_TELEMETRY_ENABLED": "0", "CONTINUE_CLI_ENABLE_TELEMETRY": "0"}
    command = [binary(client, "cn"), "--config", config, "--auto", "-p", prompt(column, run)]
    return command, environment


CALLS = {
    "claude-code": claude_code,
    "codex": codex,
    "codex-patch": codex,
    "opencode": opencode,
    "copilot-cli": copilot_cli,
    "cline": cline,
    "continue": continue_cli,
}


# ---- Command-line programs from PyPI ----


def llm(client, column, run):
    folder = run.home / "llm"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"ollama/{run.model}"
    if client.api == "openai":
        name = "olla"
        model = f"- model_id: {name}\n  model_name: {run.model}\n  api_base: {run.openai}\n"
        (folder / "extra-openai-models.yaml").write_text(model)
    environment = {
        "PYTHONPATH": str(client.directory),
        "LLM_USER_PATH": str(folder),
        # The plugin asks this address for its models.
        "OLLAMA_HOST": run.ollama,
    }
    command = [client.directory / "bin" / "llm"]
    if column == "models":
        return [*command, "models"], environment
    whole = ["--no-stream"] if column == "chat" else []
    key = ["--key", KEY] if client.api == "openai" else []
    return [*command, "-m", name, *key, *whole, prompt(column, run)], environment


def aider(client, column, run):
    environment = {"PYTHONPATH": str(client.directory), "OPENAI_API_KEY": KEY}
    command = [client.directory / "bin" / "aider", "--model", f"openai/{run.model}"]
    command += ["--openai-api-base", run.openai, "--yes-always", "--no-git", "--no-check-update"]
    command += ["--no-show-model-warnings", "--analytics-disable", "--no-show-release-notes"]
    command += ["--edit-format", "diff", "--map-tokens", "0", "--no-pretty", "--no-auto-lint"]
    return [*command, "--message", prompt(column, run), "greeting.txt"], environment
