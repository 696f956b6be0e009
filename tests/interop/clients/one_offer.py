"""WHIP and WHEP as a client speaks them: POST an offer, DELETE the resource."""

import json
import sys
import threading
import time
import urllib.parse
import urllib.request


def post(url, token, offer):
    """Gives the answer and the address of the resource."""
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, offer.encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 201, response.status
        assert response.headers["Content-Type"] == "application/sdp", response.headers
        return response.read().decode(), urllib.parse.urljoin(url, response.headers["Location"])


def delete(resource, token):
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(resource, headers=headers, method="DELETE")
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200, response.status


def until_told():
    """Waits for the end of standard input: whoever started the client ends it so."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    return ended


class Seen:
    """What was decoded, told as a line of JSON every quarter of a second."""

    def __init__(self):
        self.lock = threading.Lock()
        self.frames = 0
        self.colour = None
        self.seconds = 0.0
        self.hertz = None
        threading.Thread(target=self.tell, daemon=True).start()

    def picture(self, pixels):
        """Packed RGB."""
        count = max(1, len(pixels) // 3)
        colour = [sum(pixels[channel::3]) // count for channel in range(3)]
        with self.lock:
            self.frames += 1
            self.colour = colour

    def sound(self, samples, rate):
        """Signed 16-bit samples of one channel: the tone by how often they cross zero."""
        crossings = sum((one < 0) != (other < 0) for one, other in zip(samples, samples[1:]))
        seconds = len(samples) / rate
        with self.lock:
            self.seconds += seconds
            if max(samples, default=0) > 1000:
                self.hertz = round(crossings / 2 / seconds)

    def tell(self):
        while True:
            time.sleep(0.25)
            with self.lock:
                state = {"frames": self.frames, "colour": self.colour}
                state |= {"seconds": round(self.seconds, 2), "hertz": self.hertz}
            print(json.dumps(state), flush=True)
