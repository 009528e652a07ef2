"""Tests the dashboard in Debian's Chromium, against a mock and in front of the real gateway.

With a URL only the dashboard of that running gateway is tested. Chromium, Node and npm are
installed when they are missing and you are root; playwright-core is installed below target/.
"""

from trials.dashboard import UI, node


def add_arguments(parser):
    text = "of a running gateway, such as http://gateway:40114"
    parser.add_argument("url", nargs="?", metavar="URL", help=text)


def run(options):
    tests = [UI / "dashboard.test.mjs"]
    if options.url:
        return node("--test", *tests, URL_UNDER_TEST=options.url.rstrip("/"))
    return node("--test", *tests, UI / "gateway.test.mjs")
