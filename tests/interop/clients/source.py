"""A picture of one colour and a tone, encoded at the pace they are shown and heard: what publishers on encoders of their own send."""

import array
import fractions
import math
import time

import av

RATE = 48000
SAMPLES = 960
FRAMES = 25
# What both a muxer's streams and encoders on their own take.
H264 = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
WIDTH, HEIGHT = 320, 240


def set_up(video):
    """What the encoder is to make; a keyframe every two seconds is for who comes later."""
    video.width, video.height, video.pix_fmt, video.bit_rate = WIDTH, HEIGHT, "yuv420p", 300_000
    video.gop_size = 2 * FRAMES


def packets(video, audio, colour, hertz, ended):
    """Gives encoded packets of both, each when it is due, until told to end. The colour is RRGGBB."""
    picture = av.VideoFrame(WIDTH, HEIGHT, "rgb24")
    picture.planes[0].update(bytes.fromhex(colour) * (WIDTH * HEIGHT))
    picture = picture.reformat(format="yuv420p")
    started = time.monotonic()
    frames = samples = 0
    while not ended.is_set():
        now = time.monotonic() - started
        if frames / FRAMES <= now:
            picture.pts, picture.time_base = frames, fractions.Fraction(1, FRAMES)
            frames += 1
            yield from video.encode(picture)
        elif samples / RATE <= now:
            tone = [int(12000 * math.sin(2 * math.pi * float(hertz) * at / RATE)) for at in range(samples, samples + SAMPLES)]
            frame = av.AudioFrame(format="s16", layout="stereo", samples=SAMPLES)
            frame.planes[0].update(array.array("h", [it for it in tone for _ in range(2)]).tobytes())
            frame.pts, frame.sample_rate, frame.time_base = samples, RATE, fractions.Fraction(1, RATE)
            samples += SAMPLES
            yield from audio.encode(frame)
        else:
            time.sleep(0.002)
