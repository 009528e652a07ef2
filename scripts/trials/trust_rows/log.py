"""Secrets of requests in the log."""

import time

from trials.process import request
from trials.trust_rows import CHAT, Backend, chat_with, gateway_over, named, need, row

SECRET = "s3cr3t-value"
NAMES = ["api_key", "token", "access_token", "key", "password", "secret", "auth"]
QUERIES = [
    *(f"{name}={SECRET}" for name in NAMES),
    *(f"{name.upper()}={SECRET}" for name in NAMES),
    *(f"a=1&%{ord(name[0]):02x}{name[1:]}={SECRET}&b" for name in NAMES),
]
REFERERS = [
    *(f"https://h/?{query}" for query in QUERIES),
    f"https://h/?sig={SECRET}",
    f"https://h/?{SECRET}",
    f"https://h/x#access_token={SECRET}",
    f"https://h/#{SECRET}",
    f"https://user:{SECRET}@h/",
]


@row(
    16,
    "47 requests with secrets in query and Referer: secrets in the log",
    before="26",
    bound=0,
    unit="",
)
def secrets_in_the_log(options):
    with gateway_over(options, Backend(named(["m"])), level="debug") as gateway:
        for query in QUERIES:
            request(gateway.port, "POST", f"{CHAT}?{query}", chat_with("m"))
        for referer in REFERERS:
            request(gateway.port, "POST", CHAT, chat_with("m"), {"Referer": referer})
        # The log may be written a moment after the response.
        time.sleep(0.5)
        text = gateway.log_text()
        need(
            text.count("Access log") >= len(QUERIES) + len(REFERERS), "requests are not in the log"
        )
        return text.count(SECRET)
