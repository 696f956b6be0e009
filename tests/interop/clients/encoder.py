"""Encodes for a client that has no encoder: to standard output, until standard input ends.

    encoder.py COLOUR HERTZ     a picture of that colour (RRGGBB) and that tone; H.264 (Annex B) and Opus

Each packet is its kind (one byte, v or a), its time in microseconds (8 bytes, signed: Opus begins before 0), its length (4 bytes)
and its bytes; numbers are big-endian.
"""

import fractions
import struct
import sys

import av

import one_offer
import source


def main(colour, hertz):
    video = av.CodecContext.create("libx264", "w")
    source.set_up(video)
    video.framerate, video.time_base, video.options = source.FRAMES, fractions.Fraction(1, source.FRAMES), source.H264
    audio = av.CodecContext.create("libopus", "w")
    audio.sample_rate, audio.layout, audio.format = source.RATE, "stereo", "s16"
    audio.time_base = fractions.Fraction(1, source.RATE)
    for packet in source.packets(video, audio, colour, hertz, one_offer.until_told()):
        kind = b"v" if packet.time_base.denominator == source.FRAMES else b"a"
        data = bytes(packet)
        sys.stdout.buffer.write(kind + struct.pack(">qI", round(packet.pts * packet.time_base * 1_000_000), len(data)) + data)
        sys.stdout.buffer.flush()


main(*sys.argv[1:])
