"""For schemathesis: bodies that are text of a kind of their own."""

import schemathesis


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def text(_context, value):
    """What is made up for a string, as it is."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")
