"""What a figure's HTML consists of."""

from html.parser import HTMLParser


class Elements(HTMLParser):
    """All elements of a page as (tag, attributes), in order."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, wanted: str) -> list[dict]:
        return [attributes for tag, attributes in self.found if tag == wanted]
