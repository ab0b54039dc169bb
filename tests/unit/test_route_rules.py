"""Routes whose URL builders are compiled late build the URLs of Werkzeug's routes."""

from werkzeug.routing import Map, Rule

from api.route_rules import RouteRule

ADDRESSES = (
    ("/jobs/<job>", {"job": "a/b"}),
    ("/pages/<int:number>", {"number": 7, "width": "80"}),
    ("/files/<path:name>", {"name": "a/b c"}),
)


def test_urls_are_those_of_werkzeug() -> None:
    for pattern, values in ADDRESSES:
        built = [
            Map([rule(pattern, endpoint="x")]).bind("host").build("x", values, append_unknown=unknown)
            for rule in (Rule, RouteRule)
            for unknown in (True, False)
        ]
        assert built[:2] == built[2:]
        assert "/" in built[0]
