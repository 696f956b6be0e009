"""WHIP and WHEP with clients that are not ours: GStreamer, aiortc, FFmpeg and libdatachannel (what OBS is built on), with what they
decode looked at.

Run by tests/run interop, which installs them. Each test starts the binary and real client processes on loopback.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import unittest
import urllib.request
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "tests/interop/clients"
BINARY = os.environ["SWITCHYARD_BIN"]
# Debian's Python has GStreamer's bindings; the other one has aiortc and PyAV.
GSTREAMER = [os.environ.get("SWITCHYARD_DEBIAN_PYTHON", "/usr/bin/python3"), CLIENTS / "gstreamer.py"]
AIORTC = [sys.executable, CLIENTS / "aiortc_client.py"]
FFMPEG = [sys.executable, CLIENTS / "ffmpeg.py"]
LIBDATACHANNEL = ["node", CLIENTS / "libdatachannel.js"]
SECRET = "a-secret-of-the-interop-tests"
PATIENCE = 40 * float(os.environ.get("SWITCHYARD_TEST_PATIENCE", "1"))
RED, BLUE, GREEN = "c02020", "2020c0", "20c020"


def token(session, **more):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    grants = {"room": session, "roomJoin": True, "roomCreate": True}
    claims = {"iss": "key", "exp": int(time.time()) + 600, "video": grants} | more
    text = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(claims)
    tag = hmac.new(SECRET.encode(), text, hashlib.sha256).digest()
    return (text + b"." + base64.urlsafe_b64encode(tag).rstrip(b"=")).decode()


class Client:
    """One client process. What it tells is kept; it ends when its standard input does."""

    def __init__(self, command, *arguments):
        self.name = f"{command[1].stem} {arguments[0]}"
        self.state, self.lines = {}, []
        pipe = subprocess.PIPE
        command = [str(part) for part in [*command, *arguments]]
        environment = os.environ | {"INTEROP_PYTHON": sys.executable}
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("{"):
                self.state = json.loads(line)

    def until(self, what, is_so):
        until = time.monotonic() + PATIENCE
        while not is_so(self.state):
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{self.name}: not {what}: {self.state}\n{''.join(self.lines[-40:])}")
            time.sleep(0.05)

    def end(self):
        """Lets it say goodbye."""
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"{self.name} does not end\n{''.join(self.lines[-40:])}") from None
        self.reader.join()
        self.process.stdout.close()
        return self.process.returncode


def is_near(colour, wanted):
    wanted = bytes.fromhex(wanted)
    return colour is not None and all(abs(one - other) < 40 for one, other in zip(colour, wanted))


def shows(colour, more_than=0):
    return lambda state: state.get("frames", 0) > more_than and is_near(state["colour"], colour)


def sounds(hertz):
    return lambda state: state.get("hertz") is not None and abs(state["hertz"] - hertz) < hertz / 20


class Interop(unittest.TestCase):
    def setUp(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}
        arguments = ["--listen", "127.0.0.1:0", "--media-address", "127.0.0.1", "--media-port", "0"]
        arguments += ["--api-keys", f"key:{SECRET}"]
        logs = ROOT / "target/test-logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.log = open(logs / f"interop-{self._testMethodName}.log", "w")
        self.addCleanup(self.log.close)
        self.server = subprocess.Popen(
            [BINARY, *arguments], stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment
        )
        self.addCleanup(self.stop)
        prefix = "switchyard: listening on "
        line = next(line for line in self.server.stdout if line.startswith(prefix))
        self.drain = threading.Thread(target=self.server.stdout.read, daemon=True)
        self.drain.start()
        self.base = line.removeprefix(prefix).strip()
        # Not there yet: whoever comes first creates it.
        self.session = f"ses_{uuid.uuid4()}"

    def stop(self):
        self.server.terminate()
        self.server.wait(PATIENCE)
        self.drain.join(PATIENCE)
        self.server.stdout.close()

    def client(self, command, action, *arguments, query="", **claims):
        kind = "whip" if action == "publish" else "whep"
        url = f"{self.base}/v1/{kind}/{self.session}{query}"
        client = Client(command, action, url, token(self.session, **claims), *arguments)
        self.addCleanup(client.end)
        return client

    def participants(self):
        credentials = base64.b64encode(f"key:{SECRET}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        request = urllib.request.Request(f"{self.base}/v1/sessions/{self.session}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["participants"]

    def one_way(self, publisher, player, codec):
        """A colour and a tone from one to the other; whoever watches is there first."""
        player = self.client(player, "watch")
        publisher = self.client(publisher, "publish", RED, 440, codec)
        player.until("the colour", shows(RED, more_than=10))
        player.until("the tone", sounds(440))
        self.assertEqual(publisher.end(), 0, publisher.lines)
        self.assertEqual(player.end(), 0, player.lines)
        self.assertEqual(self.participants(), [], "both have said goodbye")

    def test_gstreamer_to_aiortc_vp8(self):
        self.one_way(GSTREAMER, AIORTC, "VP8")

    def test_gstreamer_to_aiortc_h264(self):
        self.one_way(GSTREAMER, AIORTC, "H264")

    def test_aiortc_to_gstreamer_vp8(self):
        self.one_way(AIORTC, GSTREAMER, "VP8")

    def test_aiortc_to_gstreamer_h264(self):
        self.one_way(AIORTC, GSTREAMER, "H264")

    def test_ffmpeg_to_aiortc(self):
        self.one_way(FFMPEG, AIORTC, "H264")

    def test_ffmpeg_to_gstreamer(self):
        self.one_way(FFMPEG, GSTREAMER, "H264")

    def test_libdatachannel_to_aiortc(self):
        self.one_way(LIBDATACHANNEL, AIORTC, "H264")

    def test_libdatachannel_to_gstreamer(self):
        self.one_way(LIBDATACHANNEL, GSTREAMER, "H264")

    def test_a_player_of_the_room_goes_from_one_publisher_to_another(self):
        players = [self.client(command, "watch") for command in [GSTREAMER, AIORTC]]
        first = self.client(GSTREAMER, "publish", RED, 440, "VP8")
        for player in players:
            player.until("the first colour", shows(RED, more_than=10))
        second = self.client(AIORTC, "publish", BLUE, 880, "VP8")
        self.assertEqual(first.end(), 0, first.lines)
        for player in players:
            player.until("the second colour", shows(BLUE))
            player.until("the second tone", sounds(880))
        # Another codec on the same line. Where the machine is busy webrtcbin's decoders sometimes stand still over that, sound too.
        gstreamer, aiortc = players
        self.assertEqual(gstreamer.end(), 0, gstreamer.lines)
        third = self.client(GSTREAMER, "publish", GREEN, 660, "H264")
        self.assertEqual(second.end(), 0, second.lines)
        aiortc.until("the third tone", sounds(660))
        aiortc.until("the third colour", shows(GREEN))
        self.assertEqual(third.end(), 0, third.lines)


if __name__ == "__main__":
    result = unittest.main(verbosity=2, exit=False).result
    failures = len(result.failures) + len(result.errors)
    # The line that tests/run counts.
    print(f"# pass {result.testsRun - failures}")
    print(f"# fail {failures}")
    sys.exit(0 if failures == 0 else 1)
