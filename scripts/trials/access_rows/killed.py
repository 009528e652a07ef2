"""What a gateway that is killed under load has lost.

Contract: docs/contract/access.md#13
"""

import itertools
import random
import threading
import time

from trials.access_rows import access_config, keyed_gateway, row, secret_of, stored_usage
from trials.access_rows.asks import CHAT, Act, Ask, Usage
from trials.access_rows.origin import World, crowd
from trials.process import request, wait_until

ROUNDS = 3
CLIENTS = 16
LOAD_SECONDS = 4.0
LOST_SECONDS_MAX = 2
USERS = [f"user{number}" for number in range(4)]
POLICY = {"daily": "tokens_per_day = 1000000000\ntokens_per_month = 1000000000"}
# Refused keys are looked for, and they are many.
ACCESS = "max_refused_per_minute = 0\n"


class Load:
    """Requests until the gateway is gone; when each ended, and what it is charged with."""

    def __init__(self, world, seed):
        self.world, self.chance = world, random.Random(seed)
        self.ended, self.arrived = [], []
        self.is_over = False
        world.on_arrival = self.arrived.append
        world.on_end = lambda ask: self.ended.append((time.monotonic(), ask))

    async def step(self, client, number):
        usage = Usage(self.chance.randrange(1, 500), self.chance.randrange(1, 500))
        ask = Ask(
            self.world.next_number(),
            USERS[number % len(USERS)],
            "m",
            CHAT,
            [Act("whole", usage=usage)],
        )
        status, _, _ = await client.send(ask)
        return status == 200 and not self.is_over

    def tokens(self, until, name=None):
        """Tokens of the requests that ended until then."""
        asks = [ask for ended, ask in self.ended if ended <= until]
        return sum(ask.charge().tokens for ask in asks if name in (None, ask.key))

    def tokens_at_most(self, name=None):
        """Those of all that an endpoint has seen, with what was reserved for them."""
        asks = [ask for ask in self.arrived if name in (None, ask.key)]
        return sum(max(ask.charge().tokens, ask.estimate) for ask in asks)


class Keys(threading.Thread):
    """Makes, rotates and deletes keys until the gateway is gone. `secrets` has what was confirmed:
    the secret of each name, or None once it is deleted."""

    def __init__(self, gateway):
        super().__init__(daemon=True)
        self.gateway = gateway
        self.secrets, self.open = {}, ""

    def run(self):
        try:
            for number in itertools.count():
                self.open = name = f"made{number}"
                self.do("POST", "/internal/keys", {"name": name, "policy": "daily"}, 201)
                if number % 3 == 1:
                    self.do("POST", f"/internal/keys/{name}/rotate", {}, 200)
                if number % 3 == 2:
                    self.do("DELETE", f"/internal/keys/{name}", None, 204)
        except (OSError, ValueError):
            return  # The gateway is gone.

    def do(self, method, path, body, want):
        status, page = self.gateway.admin(method, path, body)
        if status != want:
            raise ValueError(f"{method} {path}: {status}")
        self.secrets[self.open] = page and page["key"]


def is_live(gateway, secret):
    headers = {"Authorization": f"Bearer {secret}"}
    return request(gateway.port, "GET", "/olla/key", headers=headers)[0] == 200


def lost_keys(gateway, keys):
    """How many keys are not as was confirmed."""
    page, names, after = None, set(), ""
    while page is None or page["next"]:
        _, page = gateway.admin("GET", f"/internal/keys?limit=1000&source=store{after}")
        names |= {one["name"] for one in page["keys"]}
        after = f"&after={page['next']}"
    lost = 0
    for name, secret in keys.secrets.items():
        # Nobody was told the outcome of the last change.
        if name != keys.open:
            lost += secret is not None and not is_live(gateway, secret)
            lost += secret is None and name in names
    return lost


def one_round(options, shown, world, number):
    with keyed_gateway(options) as gateway:
        store = gateway.processes.directory / "state.db"
        more = access_config(dict.fromkeys(USERS, "daily"), POLICY, ACCESS)
        config = gateway.configure(world.origins, f'{more}[state]\npath = "{store}"\n')
        gateway.begin(config)
        load, keys = Load(world, number), Keys(gateway)
        work = world.begin(crowd(world, gateway.port, CLIENTS, load.step))
        keys.start()
        time.sleep(LOAD_SECONDS + number * 0.37)
        killed = time.monotonic()
        gateway.process.kill()
        gateway.process.wait()
        load.is_over = True
        work.result(30)
        keys.join(15)
        _, total = stored_usage(options, store)
        ended = sorted(at for at, _ in load.ended if at <= killed)
        # The ledger has the oldest ones.
        first = ended[total["requests"]] if total["requests"] < len(ended) else killed
        where = f"round {number + 1}"
        shown.add(f"{where}: usage lost, of {len(ended)} requests", killed - first, 2, "s")
        seen = total["prompt_tokens"] + total["completion_tokens"]
        least = load.tokens(killed - LOST_SECONDS_MAX)
        shown.add(f"{where}: tokens in the ledger", seen, load.tokens_at_most(), least=least)
        gateway.begin(config)
        wrong = 0
        for name in USERS:
            used = gateway.own(name, secret_of(name))["used"]["tokens_per_day"]
            least = load.tokens(killed - LOST_SECONDS_MAX, name)
            wrong += not least <= used <= load.tokens_at_most(name)
        shown.add(f"{where}: windows of {len(USERS)} that lost more", wrong, 0)
        shown.add(f"{where}: keys lost, of {len(keys.secrets)}", lost_keys(gateway, keys), 0)


@row(place=2, seconds_max=90)
def killed(options, shown):
    with World() as world:
        world.origin("e0", ["m"])
        for number in range(ROUNDS):
            one_round(options, shown, world, number)
            wait_until("endpoints are idle", lambda: not world.asks, 10)
