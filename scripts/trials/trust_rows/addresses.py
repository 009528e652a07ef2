"""Whose request it is: addresses behind proxies."""

from trials.process import request
from trials.trust_rows import CHAT, Backend, body_of, chat_with, gateway_over, named, need, row

LIMITS = """\
global_requests_per_minute = 0
per_ip_requests_per_minute = 6
burst_size = 5
trust_proxy_headers = true
"""


@row(
    12,
    "requests from 100 addresses of one IPv6 /64, 5 at once are allowed: admitted",
    before="100",
    bound=10,
    unit="",
)
def addresses_of_one_network(options):
    with gateway_over(options, Backend(named(["m"])), limits=LIMITS) as gateway:

        def is_admitted(number):
            headers = {"X-Forwarded-For": f"2001:db8:1:2:{number:x}:{number:x}::1"}
            return request(gateway.port, "POST", CHAT, chat_with("m"), headers)[0] == 200

        admitted = sum(is_admitted(number) for number in range(1, 101))
        need(admitted, "no request was admitted")
        return admitted


PAGES = [
    *("/internal/ui", "/internal/ui/", "/internal/ui/assets/app.js", "/version"),
    *(
        "/internal/" + name
        for name in (
            "status",
            "status/endpoints",
            "status/models",
            "stats/models",
            "stats/sticky",
            "stats/translators",
            "process",
            "metrics",
        )
    ),
]
FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Real-IP": "203.0.113.9",
    "X-Forwarded-Host": "gateway.example",
    "Forwarded": "for=203.0.113.9",
}


@row(
    20,
    "48 requests for operators' pages through a proxy on this host: pages that strangers get",
    before="48",
    bound=0,
    unit="",
)
def forwarded_strangers(options):
    backend, gated = Backend(named(["m"])), "[dashboard]\ngate_internal_api = true\n"
    with gateway_over(options, backend, more=gated) as gateway:
        body_of(gateway, "/internal/ui/")
        return sum(
            request(gateway.port, "GET", path, headers={name: value})[0] < 400
            for path in PAGES
            for name, value in FORWARDED.items()
        )
