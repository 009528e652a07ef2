"""Secrets in everything that can be read of a gateway.

Keys of every form are sent to every kind of route, in every place where clients put them. Then each
of them, its hash, and each credential of an endpoint is looked for in the log (at level debug), the
pages, the responses, the requests that endpoints got, the files of the state store, and what the
commands print.

Contract: docs/contract/access.md#3, docs/contract/access.md#8.2, docs/contract/access.md#16
"""

import base64
import hashlib
import http.client
import json
import signal
import time
import zlib
from dataclasses import dataclass, field

from trials.access_rows import ROOT, hash_of, keyed_gateway, replace, row, run_olla
from trials.access_rows.asks import CHAT, EMBEDDINGS, MESSAGES, OLLAMA, RESPONSES, Act, Ask, Usage
from trials.access_rows.origin import World
from trials.access_rows.tokens import Issuer
from trials.process import wait_until

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Of the requests: not secret, and found where the log and the endpoints have them.
AGENT = "control/0.58209749"
PLACES = ("log", "pages", "responses", "endpoints", "store", "commands")
HEADERS = ("Authorization", "x-api-key", "api-key")
PAGES = [
    "health",
    "ready",
    "status",
    "status/endpoints",
    "status/models",
    "status/models?detailed=true&group=family",
    "stats/models",
    "stats/requests",
    "stats/latency",
    "stats/sticky",
    "stats/translators",
    "process",
    "metrics",
    "keys",
    "keys/valid",
    "keys/stored",
    "policies",
    "usage",
    "usage?format=csv",
    "ui/",
    "ui/login",
    "nothing",
]
GETS = ["/olla/key", "/v1/models", "/olla/models", "/nothing", "/internal/status", "/internal/keys"]
POSTS = [CHAT, EMBEDDINGS, MESSAGES, OLLAMA, RESPONSES, "/olla/anthropic/v1/messages/count_tokens"]


def base62(number, length):
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits = DIGITS[digit] + digits
    return digits


def made(word):
    """A secret in the gateway's own form, from a word."""
    text = base62(int.from_bytes(hashlib.sha256(word.encode()).digest(), "big"), 43)
    return f"olla-{text}{base62(zlib.crc32(text.encode()), 6)}"


@dataclass
class Plant:
    """A secret, and where it may be seen."""

    name: str
    secret: str
    allowed: set = field(default_factory=set)
    # Where it is only shown: nobody promises anything of it there.
    shown: set = field(default_factory=set)

    def forms(self):
        """What must not be found: the secret, its hash, and parts that give it away."""
        digest = hashlib.sha256(self.secret.encode()).hexdigest()
        forms = {self.secret, digest, base64.b64encode(self.secret.encode()).decode().rstrip("=")}
        if self.secret.startswith("eyJ") and self.secret.count(".") == 2:
            # Without the head, which many tokens share.
            forms |= {part for part in self.secret.split(".")[1:] if len(part) > 16}
        return [form.encode() for form in forms]


class Garden:
    """All secrets, and what was collected."""

    def __init__(self, gateway, world, issuer):
        self.gateway, self.world, self.issuer = gateway, world, issuer
        self.plants = {}
        self.seen = {place: [] for place in PLACES}
        self.count = 0

    def plant(self, name, secret, allowed=(), shown=()):
        self.plants[name] = Plant(name, secret, set(allowed), set(shown))
        return secret

    def ask(self, method, path, headers, body=None, keep=True, timeout=10):
        """A request whose response is looked through: status, headers and body of it."""
        self.count += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=timeout)
        try:
            connection.putrequest(method, path)
            for name, value in [("User-Agent", AGENT), *headers]:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Type", "application/json")
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            data = response.read()
            head = b"\r\n".join(f"{n}: {v}".encode("latin-1") for n, v in response.getheaders())
            if keep:
                self.seen["responses"].append(head + b"\r\n" + data)
            return response.status, dict(response.getheaders()), data
        finally:
            connection.close()

    def body(self, path):
        number = self.world.next_number()
        acts = [Act("whole", usage=Usage(5, 3))]
        if number % 5 == 0:
            acts = [Act("status", status=(401, 500, 429)[number % 3])] * 3
        fields = path.replace("/count_tokens", "")
        ask = Ask(number, "", "m", fields, acts, translated=True)
        self.world.asks[number] = ask
        return ask.body

    def everywhere(self, headers, query=""):
        """One request with these headers to every kind of route."""
        for path in GETS:
            self.ask("GET", path + query, headers)
        for path in POSTS:
            self.ask("POST", path + query, headers, self.body(path))
        self.ask("DELETE", f"/internal/keys/nobody{query}", headers)
        self.ask("OPTIONS", CHAT + query, headers)
        self.ask("POST", "/internal/keys" + query, headers, b'{"name":')


def credential(header, secret):
    return (header, f"Bearer {secret}" if header == "Authorization" else secret)


def endpoints(garden):
    """Endpoints with a credential of each type."""
    world = garden.world
    bearer = garden.plant("token of an endpoint", "ep-token-51f0a3b2c4", ["e0"])
    key = garden.plant("key of an endpoint", "ep-key-77aa01bd55", ["e1"])
    password = garden.plant("password of an endpoint", "ep-password-1c9d03", ["e2"])
    header = garden.plant("header of an endpoint", "ep-header-90d2ee41", ["e3"])
    basic = base64.b64encode(f"olla:{password}".encode()).decode()
    garden.plant("basic credential of an endpoint", basic, ["e2"])
    auths = [
        f'auth = {{ type = "bearer", token = "{bearer}" }}\n',
        f'auth = {{ type = "api_key", key = "{key}", header = "X-Own-Key" }}\n',
        f'auth = {{ type = "basic", username = "olla", password = "{password}" }}\n',
        f'headers = {{ "X-Tenant" = "{header}" }}\n',
    ]
    for number, auth in enumerate(auths):
        origin = world.origin(f"e{number}", ["m"], more=f'dialects = ["openai-chat"]\n{auth}')
        # An endpoint that sends credentials back.
        origin.said = (
            f"Authorization: Bearer {bearer}\r\nX-Own-Key: {key}\r\nX-Api-Key: {key}\r\n"
            f"X-Tenant: {header}\r\nSet-Cookie: session={bearer}\r\nX-Auth-Token: {bearer}\r\n"
        )
    # What one endpoint sends back of another's header is not known to be a credential.
    for name in ("key of an endpoint", "header of an endpoint"):
        garden.plants[name].shown.add("responses")


def key_entries(garden):
    """Keys of the configuration and of a file."""
    plant, directory = garden.plant, garden.gateway.processes.directory
    own = {
        "valid": plant("valid", made("valid")),
        "brought": plant("brought along", "sk-brought-5566778899aabb"),
        "late": plant("expired", made("late")),
        "off": plant("disabled", made("off")),
    }
    more = {"late": 'expires = "2026-01-31T00:00:00Z"', "off": "enabled = false"}
    text = ""
    for name, secret in own.items():
        text += (
            f'[[access.keys]]\nname = "{name}"\nhash = "{hash_of(secret)}"\n{more.get(name, "")}\n'
        )
    (directory / "one.key").write_text(plant("of a key file", "sk-of-a-file-0011223344"))
    text += '[[access.keys]]\nname = "filed"\nkey_file = "one.key"\n'
    text += '[[access.keys]]\nname = "variable"\nkey = "${TRIAL_KEY}"\n'
    garden.gateway.environment["TRIAL_KEY"] = plant("of a variable", "sk-of-a-variable-998877")
    listed = plant("of the keys file", made("listed"))
    entry = f'[[keys]]\nname = "listed"\nhash = "{hash_of(listed)}"\n'
    (directory / "keys.toml").write_text(entry)
    return text


def wrong_credentials(garden):
    """Credentials that are not valid, one of each form."""
    plant, issuer = garden.plant, garden.issuer
    last = made("checksum")
    last = last[:-1] + ("0" if last[-1] != "0" else "1")
    return [
        plant("unknown, own form", made("unknown")),
        plant("unknown, other form", "sk-nobody-has-this-0123456789"),
        plant("wrong checksum", last),
        plant("short", "sk-7f3e"),
        plant("of 300 bytes", "sk-long-" + "q7" * 146),
        plant("of 9,000 bytes", "sk-larger-" + "z9" * 4495),
        plant("not of ASCII", "sk-bytes-\xe9\xff-0123456789"),
        plant("a hash as key", hash_of("sk-hash-as-key-0123")),
        plant("token, expired", issuer.token("old", exp=int(time.time()) - 9000)),
        plant("token, bad signature", issuer.token("forged")[:-6] + "AAAAAA"),
        plant("token, alg none", issuer.token("none", head={"alg": "none"})),
        plant("token, unknown key", issuer.token("kid", head={"kid": "two"})),
        plant("token, wrong audience", issuer.token("aud", aud="other")),
        plant("token, no policy", issuer.token("policy", olla_policy="nowhere")),
        plant("token, not JSON", "eyJhbGciOiJ.eyJub3QganNvbi1hdC1hbGw.c2lnbmF0dXJl"),
    ]


def send_credentials(garden):
    plants = garden.plants
    live = ["valid", "brought along", "of a key file", "of a variable", "of the keys file", "root"]
    tokens = [garden.plant("token, valid", garden.issuer.token("person"))]
    good = [plants[name].secret for name in live] + tokens
    bad = wrong_credentials(garden) + [plants[name].secret for name in ("expired", "disabled")]
    for secret in good + bad:
        for header in HEADERS:
            garden.everywhere([credential(header, secret)])
    # Of two credentials the first that is live counts; the other goes nowhere either.
    for secret in bad:
        garden.everywhere([credential("Authorization", secret), ("x-api-key", good[0])])
    password = garden.plant("password of a client", "basic-password-31415926")
    basic = base64.b64encode(f"client:{password}".encode()).decode()
    garden.plant("basic credential of a client", basic)
    garden.everywhere([("Authorization", f"Basic {basic}")])
    garden.everywhere([("Authorization", f"Basic {basic}"), ("api-key", good[0])])
    cookie = garden.plant("in a cookie", "sk-in-a-cookie-27182818")
    garden.everywhere([("Cookie", f"key={cookie}; token={cookie}"), ("x-api-key", good[0])])
    garden.everywhere([("Cookie", f"olla_session={cookie}")])
    proxy = garden.plant("for a proxy", "sk-for-a-proxy-16180339")
    garden.everywhere([("Proxy-Authorization", f"Bearer {proxy}"), ("x-api-key", good[0])])
    head = [credential("Authorization", good[0])]
    for name in ("key", "api_key", "token", "access_token", "password", "API_KEY", "%6bey"):
        secret = garden.plant(f"in the query, {name}", made(f"query {name}"), shown=["endpoints"])
        garden.everywhere(head, f"?{name}={secret}")
        garden.everywhere([], f"?a=1&{name}={secret}")
    # The log shows what else stands in an address.
    free = ["log", "endpoints", "responses", "pages"]
    secret = garden.plant("in the query, another name", made("other"), shown=free)
    garden.everywhere(head, f"?q={secret}")
    secret = garden.plant("in the path", made("path"), shown=free)
    for path in (f"/v1/{secret}", f"/olla/proxy/v1/x/{secret}", f"/internal/{secret}"):
        garden.ask("GET", path, head)
        garden.ask("POST", path, head, garden.body(CHAT))


def use_admin(garden):
    """The admin API, and the dashboard's login."""
    admin = [credential("Authorization", ROOT)]
    own = hash_of(garden.plant("stored, own hash", "sk-stored-by-hash-0123"))
    for body in ({"name": "stored"}, {"name": "hashed", "hash": own}, {"name": "graced"}):
        _, _, data = garden.ask("POST", "/internal/keys", admin, json.dumps(body).encode(), False)
        page = json.loads(data)
        garden.seen["responses"].append(data.replace(page.get("key", "-").encode(), b""))
        if "key" in page:
            garden.plant(f"made for {body['name']}", page["key"])
            garden.everywhere([credential("x-api-key", page["key"])])
    path = "/internal/keys/graced/rotate"
    _, _, data = garden.ask("POST", path, admin, b'{"grace":"1h"}', False)
    garden.everywhere([credential("x-api-key", garden.plant("rotated", json.loads(data)["key"]))])
    clear = garden.plant("in clear to the admin API", "sk-in-clear-0123456789")
    for body in (
        {"name": "a", "key": clear},
        {"name": "a", "hash": clear},
        {"name": "a", "hash": f"sha256:{clear}"},
        {"name": "a", clear: 1},
        {"name": "a", "policy": clear},
        {"name": "hashed2", "hash": own},
    ):
        # What was sent as the name of a field or policy may be said.
        keep = body.get("policy") != clear and clear not in body
        garden.ask("POST", "/internal/keys", admin, json.dumps(body).encode(), keep)
    garden.ask("PATCH", "/internal/keys/stored", admin, json.dumps({"hash": clear}).encode())
    login(garden)


def login(garden):
    wrong = garden.plant("at the login, unknown", made("login"))
    for secret in (wrong, garden.plants["valid"].secret, garden.plants["token, valid"].secret):
        garden.ask("POST", "/internal/ui/login", [], json.dumps({"key": secret}).encode())
    garden.ask("POST", "/internal/ui/login", [], wrong.encode())
    body = json.dumps({"key": ROOT}).encode()
    _, head, data = garden.ask("POST", "/internal/ui/login", [], body, False)
    garden.seen["responses"].append(data)
    session = head["Set-Cookie"].split(";")[0].split("=", 1)[1]
    cookie = [("Cookie", f"olla_session={garden.plant('session', session)}")]
    garden.everywhere(cookie)
    garden.everywhere([*cookie, ("X-Olla-Dashboard", "1")])
    garden.everywhere([*cookie, ("X-Olla-Dashboard", "1"), ("Origin", "http://elsewhere.test")])
    dashboard = [*cookie, ("X-Olla-Dashboard", "1")]
    garden.ask("POST", "/internal/ui/logout", dashboard, b"")


def wrong_files(garden, config):
    """Files with mistakes in them, in reloads, in the keys file and in commands."""
    gateway, directory = garden.gateway, garden.gateway.processes.directory
    clear = garden.plant("in clear in a file", "sk-clear-in-a-file-0123456789")
    digest = hash_of(garden.plant("of a broken line", "sk-of-a-broken-line-01234"))
    for place, text in enumerate(
        (
            f'[[KEYS]]\nname = "x"\nkey = "{clear}"\n',
            f'[[KEYS]]\nname = "x"\nhash = "{digest}\n',
            f'[[KEYS]]\nname = "x"\nhash = {digest}\n',
            f'[[KEYS]]\nname = "x"\nhash = "{digest}0"\n',
            f'[[KEYS]]\nname = "x"\nhash = "{digest}"\nkey = "{clear}"\n',
            f'[[KEYS]]\nname = "x"\nhash = "{digest}"\n[[KEYS]]\nname = "y"\nhash = "{digest}"\n',
            f'[[KEYS]]\nname = "x"\nsecret = "{clear}"\nhash = "{digest}"\npolicy = "none"\n',
        )
    ):
        lines = gateway.log_text().count("\n")
        replace(directory / "keys.toml", text.replace("KEYS", "keys"))
        wait_until(
            "the keys file was not read", lambda n=lines: gateway.log_text().count("\n") > n, 8, 0.2
        )
        bad = directory / f"bad{place}.toml"
        bad.write_text(config + text.replace("KEYS", "access.keys"))
        garden.seen["commands"].append(output(garden, "check", "-c", bad))
        reload_done(gateway, bad.read_text())
    replace(directory / "keys.toml", "")
    reload_done(gateway, config)


def reload_done(gateway, config):
    """Has a configuration read, and waits for the outcome, whatever it is."""

    def count():
        page = gateway.metrics()
        names = [name for name in page if name.startswith("olla_config_reloads_total")]
        return sum(page[name] for name in names)

    before = count()
    gateway.reload(config)
    wait_until("no reload", lambda: count() > before, 8, 0.1)


def output(garden, *arguments):
    status, out, err = run_olla(garden.gateway, *arguments)
    return f"{status}\n{out}\n{err}".encode()


def collect(garden, store):
    """Reads everything that can be read."""
    gateway, seen = garden.gateway, garden.seen
    admin = [credential("Authorization", ROOT)]
    for page in PAGES:
        status, head, data = garden.ask("GET", f"/internal/{page}", admin, keep=False)
        seen["pages"].append(f"{page} {status} {head}".encode() + data)
    url = ["--url", gateway.url]
    for command in (
        ["key", "list", *url],
        ["key", "list", "--json", *url],
        ["key", "show", "stored", "--json", *url],
        ["usage", *url],
        ["usage", "--csv", *url],
        ["usage", "--store", store],
        ["state", "check", store],
        ["status", *url],
        ["models", *url],
    ):
        seen["commands"].append(output(garden, *command))
    gateway.process.send_signal(signal.SIGTERM)
    gateway.process.wait(20)
    seen["log"] = gateway.log_text().encode().splitlines()
    seen["store"] = [path.read_bytes() for path in store.parent.glob("state.db*")]
    garden.seen["endpoints"] = garden.world.kept


def look(garden, shown):
    found, remarks = [], []
    for plant in garden.plants.values():
        forms = plant.forms()
        for place, pieces in garden.seen.items():
            if place == "endpoints":
                pieces = [text for name, text in pieces if name not in plant.allowed]
            hits = sum(any(form in piece for form in forms) for piece in pieces)
            if hits and place in plant.shown:
                remarks.append((f"{plant.name}: in {place}", str(hits)))
            elif hits:
                piece = next(one for one in pieces if any(form in one for form in forms))
                at = min(piece.find(form) for form in forms if form in piece)
                text = piece[max(0, at - 60) : at + 40]
                found.append(f"{plant.name}: {hits} times in {place}: {text!r}")
    for place in PLACES:
        pieces = len(garden.seen[place])
        bad = sum(f"times in {place}:" in one for one in found)
        count = len(garden.plants)
        shown.add(f"{place} ({pieces} pieces): secrets of {count} that are in it", bad, 0)
        shown.holds(f"{place}: there is something to look through", pieces)
    controls = [any(AGENT.encode() in line for line in garden.seen["log"])]
    controls.append(any(AGENT.encode() in text for _, text in garden.seen["endpoints"]))
    controls.append(any(b'"stored"' in page for page in garden.seen["pages"]))
    shown.holds("what is no secret is found in log, requests and pages", all(controls))
    shown.failures += [f"secrets: {what}" for what in found]
    for what, hits in remarks:
        shown.remark(f"without a promise: {what}", hits)


@row(place=5, seconds_max=150)
def secrets(options, shown):
    with World() as world, keyed_gateway(options) as gateway:
        directory = gateway.processes.directory
        gateway.processes.bin = gateway.bin = options.bin
        world.kept = []
        garden = Garden(gateway, world, Issuer(directory))
        garden.plant("root", ROOT)
        endpoints(garden)
        store = directory / "state.db"
        config = gateway.configure(
            world.origins,
            '[access]\nenabled = true\nkeys_file = "keys.toml"\nmax_refused_per_minute = 3000\n'
            + "[access.policies.person]\n"
            + garden.issuer.config("person")
            + f'[state]\npath = "{store}"\n'
            + "[server.cors]\nenabled = true\n"
            + '[proxy.sticky_sessions]\nenabled = true\nkey_sources = ["auth_header"]\n'
            + key_entries(garden),
            level="debug",
        )
        gateway.begin(config)
        send_credentials(garden)
        use_admin(garden)
        wrong_files(garden, config)
        collect(garden, store)
        look(garden, shown)
        shown.remark("requests sent", str(garden.count))
