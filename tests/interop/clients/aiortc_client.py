"""A WHIP publisher and WHEP player on aiortc (PyPI).

    aiortc_client.py publish URL TOKEN COLOUR HERTZ CODEC     a picture of that colour (RRGGBB) and that tone
    aiortc_client.py watch URL TOKEN                          tells what it decodes
"""

import array
import asyncio
import fractions
import math
import sys

import aioice.ice
import av
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, VideoStreamTrack

import one_offer

# It leaves the loopback interface out by itself.
aioice.ice.get_host_addresses = lambda **_: ["127.0.0.1"]

RATE = 48000
SAMPLES = 960


class Colour(VideoStreamTrack):
    def __init__(self, colour):
        super().__init__()
        self.frame = av.VideoFrame(320, 240, "rgb24")
        pixels = bytes.fromhex(colour) * (320 * 240)
        self.frame.planes[0].update(pixels)

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        frame = self.frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = pts, time_base
        return frame


class Tone(AudioStreamTrack):
    def __init__(self, hertz):
        super().__init__()
        self.hertz, self.at, self.started = hertz, 0, None

    async def recv(self):
        loop = asyncio.get_running_loop()
        self.started = self.started or loop.time()
        await asyncio.sleep(max(0, self.started + self.at / RATE - loop.time()))
        samples = array.array("h", [])
        for number in range(self.at, self.at + SAMPLES):
            value = int(12000 * math.sin(2 * math.pi * self.hertz * number / RATE))
            samples.extend([value, value])
        frame = av.AudioFrame(format="s16", layout="stereo", samples=SAMPLES)
        frame.planes[0].update(samples.tobytes())
        frame.pts, frame.sample_rate, frame.time_base = self.at, RATE, fractions.Fraction(1, RATE)
        self.at += SAMPLES
        return frame


async def look(track, seen):
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        if track.kind == "video":
            small = frame.reformat(width=16, height=16, format="rgb24")
            plane = small.planes[0]
            rows = bytes(plane)
            # Rows may be longer than what is in them.
            seen.picture(b"".join(rows[row * plane.line_size :][: 16 * 3] for row in range(16)))
        else:
            for resampled in resampler.resample(frame):
                size = resampled.samples * 2
                seen.sound(array.array("h", bytes(resampled.planes[0])[:size]), RATE)


async def main(action, url, token, *rest):
    connection = RTCPeerConnection()
    if action == "publish":
        colour, hertz, codec = rest
        video = connection.addTransceiver(Colour(colour), direction="sendonly")
        connection.addTransceiver(Tone(float(hertz)), direction="sendonly")
        known = RTCRtpSender.getCapabilities("video").codecs
        video.setCodecPreferences([it for it in known if it.mimeType.upper() == f"VIDEO/{codec}"])
    else:
        seen = one_offer.Seen()
        connection.addTransceiver("video", direction="recvonly")
        connection.addTransceiver("audio", direction="recvonly")
        connection.on("track", lambda track: asyncio.ensure_future(look(track, seen)))
    await connection.setLocalDescription(await connection.createOffer())
    answer, resource = await asyncio.to_thread(one_offer.post, url, token, connection.localDescription.sdp)
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    ended = one_offer.until_told()
    await asyncio.to_thread(ended.wait)
    await asyncio.to_thread(one_offer.delete, resource, token)
    await connection.close()


asyncio.run(main(*sys.argv[1:]))
