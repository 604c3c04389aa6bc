"""The integers a kernel reads from its block: a name in the text, a request to the runtime.

A request is a short tuple of text the runtime resolves when it binds sizes and arrays
(`runtime.bind` lists them all); the kernel sees `h_b = word(block, 7)  # stride h B`.

Non-Goals: values.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Request = tuple[str, ...]


@dataclass
class Words:
    """Requests in order of first use; the same request is one word."""

    requests: dict[Request, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    used: set[Request] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str, *request: str) -> str:
        """The identifier that holds the answer to a request."""
        self.used.add(request)
        if request not in self.requests:
            self.requests[request] = self.fresh(name)
        return self.requests[request]

    def again(self, reserved: set[str]) -> Words:
        """For a second kernel over the same block: the same words, none of them used yet."""
        return Words(dict(self.requests), reserved | set(self.requests.values()))

    def lines(self) -> list[tuple[int, str, str]]:
        """Those that are used: number, identifier, what it is."""
        rows = enumerate(self.requests.items())
        return [(n, name, " ".join(filter(None, r))) for n, (r, name) in rows if r in self.used]

    def fresh(self, name: str) -> str:
        """An identifier nobody else has."""
        clean = "".join(c if c.isalnum() else "_" for c in name)
        candidate, count = clean, self.counts.get(clean, 0)
        while candidate in self.taken:
            count += 1
            candidate = f"{clean}_{count}"
        self.taken.add(candidate)
        self.counts[clean] = count  # as far as that all are taken for good
        return candidate
