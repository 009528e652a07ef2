"""The refusals of docs/contract/access.md#8.2: how each is provoked and what SDKs must make of it.

Each refusal has a key of its own for each call, so that no call meets what another has used.
"""

import re
from dataclasses import dataclass, replace

from trials.client_runs import scripted

# Only the guarded servers list these; they refuse the gateway's credentials. There is one for each
# call, because refusals count as failures of an endpoint.
GUARDED = "guarded"
# Responses are streamed; only the openai packages have them. Two more calls are for one row each:
# "admin", and "nameless", which names no model.
CALLS = ("chat", "stream", "responses")
# The example of RFC 7515, A.3: its signature is good, and it expired in 2011.
TOKEN = (
    "eyJhbGciOiJFUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)
TOKEN_KEYS = {
    "keys": [
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }
    ]
}
# A limit of this many a minute admits one each two seconds. The pause must be long enough for a
# request to follow a reset of the limit, and short enough to wait for.
PER_MINUTE = 30
TOKENS_PER_MINUTE = 600
TOKENS_PER_DAY = 1000
OUTPUT = 40

# The class by status, as each package documents it.
STATUSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
    502: "InternalServerError",
    503: "InternalServerError",
}
EXCEPTIONS = {
    "openai": STATUSES,
    # A subclass of InternalServerError.
    "anthropic": STATUSES | {503: "ServiceUnavailableError"},
    "ollama": dict.fromkeys(STATUSES, "ResponseError"),
}
# `error.type`, on the Messages routes by status.
MESSAGES_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    502: "api_error",
    503: "api_error",
}


@dataclass(frozen=True)
class Refusal:
    """One row: what is sent, and what must come of it."""

    name: str
    status: int
    code: str
    type: str
    # A pattern for the message. NAME stands for the key's name in quotes, MODEL for the model's.
    message: str
    # Fields of the key's entry in the configuration.
    key: str = ""
    # What is sent in place of the key.
    credential: str = ""
    # The gateway: "main", or "closed", which cannot reach its issuer and counts wrong keys.
    gateway: str = "main"
    # How each call is prepared: a method of `Stage` in `trials.refusals`.
    prepare: str = ""
    calls: tuple = CALLS
    model: str = scripted.MODEL
    tokens: int = OUTPUT
    # How often the package may try again; two is the default of all that do.
    retries: int = 2
    # When the request would pass, if that is far away: a method of `Stage` that gives the seconds.
    until: str = ""
    # The statuses of all responses to one call of a package that tries again; else `status` alone.
    statuses: tuple = ()
    # Whether the row is about the second request, which packages that never try again do not send.
    is_retried: bool = False

    @property
    def slug(self):
        """Part of the names of keys."""
        return re.sub("[^a-z]+", "-", self.name)

    def seen(self, tries_again):
        """The statuses of all responses that a package gets for one call."""
        return self.statuses if self.statuses and tries_again else (self.status,)


def again(row, *statuses, **more):
    """The same refusal met by a package that tries again: the statuses of what it gets."""
    name = f"{row.name}, retried"
    more = {"calls": ("chat",), "retries": len(statuses) - 1, **more}
    return replace(row, name=name, statuses=statuses, is_retried=True, **more)


SECONDS = r"Try again in \d+ s\."
LIMITED = "rate_limit_exceeded"
# Messages that show a body as JSON escape the quotation marks.
# Ollama's own words are on its routes.
ABSENT = r"""(no endpoint has the model \\?"MODEL\\?"|model 'MODEL' not found)"""
NEEDED = r"this request needs about \d+, \d+ are left"

UNKNOWN = Refusal(
    "unknown key",
    401,
    "INVALID_API_KEY",
    "unauthorized",
    r"The API key is not valid\.",
    credential="sk-nobody-has-this-key",
)
TOO_MANY = replace(
    UNKNOWN,
    name="too many refused",
    status=429,
    code="TOO_MANY_INVALID_KEYS",
    type=LIMITED,
    message=rf"Too many invalid API keys came from this address\. {SECONDS}",
    gateway="closed",
    prepare="spend_wrong_keys",
    retries=0,
)
UNCHECKED = Refusal(
    "tokens unchecked",
    503,
    "TOKEN_CHECK_UNAVAILABLE",
    "service_unavailable",
    r"The token cannot be checked now: the issuer's keys could not be fetched\.",
    credential=TOKEN,
    gateway="closed",
    retries=0,
    until="seconds_of_fetch",
)
REQUESTS = Refusal(
    "requests a minute",
    429,
    "REQUEST_LIMIT_EXCEEDED",
    LIMITED,
    rf"The API key NAME may send {PER_MINUTE} requests a minute\. {SECONDS}",
    key=f"requests_per_minute = {PER_MINUTE}",
    prepare="spend_requests",
    retries=0,
)
TOKENS = Refusal(
    "tokens a minute",
    429,
    "TOKEN_LIMIT_EXCEEDED",
    LIMITED,
    rf"The API key NAME may use {TOKENS_PER_MINUTE} tokens a minute; {NEEDED}\. {SECONDS}",
    key=f"tokens_per_minute = {TOKENS_PER_MINUTE}",
    prepare="spend_tokens",
    tokens=TOKENS_PER_MINUTE,
    retries=0,
)


def quota(span):
    """A quota that begins anew at midnight. Packages may try again, and must not: they would wait
    for hours."""
    until = r"until \d{4}-\d\d-\d\dT00:00:00Z"
    return Refusal(
        f"tokens a {span}",
        429,
        "QUOTA_EXCEEDED",
        LIMITED,
        rf"The API key NAME may use {TOKENS_PER_DAY} tokens a {span}; {NEEDED} {until}\.",
        key=f"tokens_per_{span} = {TOKENS_PER_DAY}",
        prepare="spend_tokens",
        tokens=TOKENS_PER_DAY,
        until=f"seconds_of_{span}",
    )


REFUSALS = [
    # This one begins: the pause between two attempts to fetch the issuer's keys grows.
    again(UNCHECKED, 503, 503, until=""),
    Refusal(
        "no key",
        401,
        "MISSING_API_KEY",
        "unauthorized",
        r"No API key was sent\. Use the header Authorization: Bearer KEY, "
        r"x-api-key: KEY or api-key: KEY\.",
        # One of `access.placeholders`: packages send something.
        credential="EMPTY",
    ),
    UNKNOWN,
    Refusal(
        "expired key",
        401,
        "API_KEY_EXPIRED",
        "unauthorized",
        r"The API key NAME expired at 2026-01-31T00:00:00Z\.",
        key='expires = "2026-01-31T00:00:00Z"',
    ),
    Refusal(
        "disabled key",
        401,
        "API_KEY_DISABLED",
        "unauthorized",
        r"The API key NAME is disabled\.",
        key="enabled = false",
    ),
    Refusal(
        "token refused",
        401,
        "INVALID_TOKEN",
        "unauthorized",
        r"The token is not valid: expired\.",
        credential=TOKEN,
    ),
    TOO_MANY,
    again(TOO_MANY, 429, 401, code=UNKNOWN.code, type=UNKNOWN.type, message=UNKNOWN.message),
    Refusal(
        "not an admin",
        403,
        "ADMIN_REQUIRED",
        "forbidden",
        r"The API key NAME may not use this route: it needs admin\.",
        calls=("admin",),
    ),
    Refusal(
        "no model named",
        403,
        "MODEL_REQUIRED",
        "forbidden",
        r"The API key NAME may use certain models only, and the request names none\.",
        key=f'models = ["{scripted.MODEL}"]',
        calls=("nameless",),
    ),
    Refusal(
        "hidden model",
        404,
        "MODEL_NOT_FOUND",
        "not_found",
        ABSENT,
        key=f'models = ["{scripted.MODEL}"]',
        model=GUARDED,
    ),
    # Nothing tells the one above from it.
    Refusal("unknown model", 404, "MODEL_NOT_FOUND", "not_found", ABSENT, model="nowhere"),
    Refusal(
        "long prompt",
        400,
        "PROMPT_TOO_LONG",
        "bad_request",
        r"prompt is too long: about \d+ tokens, the API key NAME may send 5",
        key="max_prompt_tokens = 5",
    ),
    Refusal(
        "long output",
        400,
        "OUTPUT_TOO_LONG",
        "bad_request",
        rf"(max_tokens|max_output_tokens|(options\.)?num_predict) is {OUTPUT}, "
        r"the API key NAME may ask for 5",
        key='max_output_tokens = 5\noutput_limit = "refuse"',
    ),
    REQUESTS,
    again(REQUESTS, 429, 200),
    # A retry meets it again, one second later.
    Refusal(
        "concurrent",
        429,
        "CONCURRENCY_LIMIT_EXCEEDED",
        LIMITED,
        r"The API key NAME may have 1 requests in progress at a time\.",
        key="concurrent = 1",
        prepare="hold_request",
        statuses=(429, 429, 429),
    ),
    TOKENS,
    again(TOKENS, 429, 200),
    quota("day"),
    quota("month"),
    Refusal(
        "gateway's credentials",
        502,
        "ENDPOINT_AUTH_FAILED",
        "bad_gateway",
        r"The endpoint guarded-\w+ refused the gateway's credentials\.",
        model=GUARDED,
        statuses=(502, 502, 502),
    ),
    # At the end the pause is longer than the smallest Retry-After.
    UNCHECKED,
]
