"""A WHIP publisher on FFmpeg's own muxer, through PyAV, whose wheels bring FFmpeg 8.

    ffmpeg.py publish URL TOKEN COLOUR HERTZ     a picture of that colour (RRGGBB) and that tone; H.264 and Opus
"""

import datetime
import pathlib
import sys
import tempfile

import av
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import one_offer
import source


def certificate(folder):
    """Writes one and its key. FFmpeg 8 with GnuTLS, as in PyAV's wheels, makes one by itself too, but announces another
    fingerprint than that one's, and no server may accept it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "encoder")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(9))
    files = pathlib.Path(folder, "certificate.pem"), pathlib.Path(folder, "key.pem")
    files[0].write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    return {"cert_file": str(files[0]), "key_file": str(files[1])}


def main(_action, url, token, colour, hertz, *_):
    folder = tempfile.TemporaryDirectory()
    options = {"authorization": token, "handshake_timeout": "20000"} | certificate(folder.name)
    output = av.open(url, "w", format="whip", options=options)
    video = output.add_stream("libx264", rate=source.FRAMES, options=source.H264)
    source.set_up(video.codec_context)
    audio = output.add_stream("libopus", rate=source.RATE, layout="stereo")
    for packet in source.packets(video, audio, colour, hertz, one_offer.until_told()):
        output.mux(packet)
    output.close()


main(*sys.argv[1:])
