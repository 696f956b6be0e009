"""A WHIP publisher and WHEP player on GStreamer's webrtcbin (Debian's packages; run with Debian's Python).

    gstreamer.py publish URL TOKEN COLOUR HERTZ CODEC     a picture of that colour (RRGGBB) and that tone
    gstreamer.py watch URL TOKEN                          tells what it decodes
"""

import array
import os
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

import one_offer  # noqa: E402

Gst.init(None)

VIDEO = {
    "VP8": "vp8enc deadline=1 target-bitrate=300000 keyframe-max-dist=60 ! rtpvp8pay picture-id-mode=15-bit",
    "H264": "openh264enc bitrate=300000 gop-size=60 complexity=low ! video/x-h264,profile=constrained-baseline "
    "! rtph264pay config-interval=-1 aggregate-mode=zero-latency",
}
OPUS = "application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000"
# What a player takes: each codec under a payload type of its own.
PICTURES = (
    "application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000;"
    "application/x-rtp,media=video,encoding-name=H264,payload=102,clock-rate=90000,packetization-mode=(string)1,"
    "profile-level-id=(string)42e01f"
)


def source(colour, hertz, codec):
    payload = {"VP8": 96, "H264": 102}[codec]
    return (
        "webrtcbin name=rtc bundle-policy=max-bundle "
        f"videotestsrc is-live=true pattern=solid-color foreground-color=0xff{colour} "
        "! video/x-raw,width=320,height=240,framerate=15/1 ! videoconvert ! queue "
        f"! {VIDEO[codec]} ! application/x-rtp,media=video,encoding-name={codec},payload={payload} ! rtc. "
        f"audiotestsrc is-live=true wave=sine freq={hertz} volume=0.5 ! audioconvert ! audioresample "
        f"! audio/x-raw,rate=48000,channels=2 ! queue ! opusenc ! rtpopuspay ! {OPUS} ! rtc."
    )


class Client:
    def __init__(self, action, url, token, *rest):
        self.url, self.token, self.resource = url, token, None
        self.seen = one_offer.Seen() if action == "watch" else None
        if action == "publish":
            self.pipeline = Gst.parse_launch(source(*rest))
            self.rtc = self.pipeline.get_by_name("rtc")
        else:
            self.pipeline = Gst.Pipeline.new()
            self.rtc = Gst.ElementFactory.make("webrtcbin")
            self.rtc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
            self.pipeline.add(self.rtc)
        # libnice leaves the loopback interface out by itself. The bindings believe that the agent is theirs (it comes with
        # a floating reference): it must not be let go.
        self.agent = self.rtc.get_property("ice-agent")
        self.agent.emit("add-local-ip-address", "127.0.0.1")
        self.rtc.connect("pad-added", self.on_pad)
        if action == "publish":
            index = 0
            while (transceiver := self.rtc.emit("get-transceiver", index)) is not None:
                transceiver.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
                index += 1
        self.offered = threading.Event()
        self.rtc.connect("notify::ice-gathering-state", self.on_gathering)
        if action == "publish":
            # When the encoders have said what they make.
            self.rtc.connect("on-negotiation-needed", self.on_negotiation_needed)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.on_error)
        self.pipeline.set_state(Gst.State.PLAYING)
        if action == "watch":
            direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
            for caps in [PICTURES, OPUS]:
                self.rtc.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
            self.on_negotiation_needed(self.rtc)

    def on_error(self, _bus, message):
        print(f"error: {message.parse_error()}", file=sys.stderr, flush=True)
        sys.exit(1)

    def on_negotiation_needed(self, _rtc):
        if not self.offered.is_set():
            self.offered.set()
            self.rtc.emit("create-offer", None, Gst.Promise.new_with_change_func(self.on_offer))

    def on_offer(self, promise):
        # The offer is part of the reply, which must not be let go before.
        reply = promise.get_reply()
        offer = reply.get_value("offer")
        self.rtc.emit("set-local-description", offer, Gst.Promise.new())

    def on_gathering(self, rtc, _property):
        if rtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            threading.Thread(target=self.exchange, daemon=True).start()

    def exchange(self):
        offer = self.rtc.get_property("local-description").sdp.as_text()
        answer, self.resource = one_offer.post(self.url, self.token, offer)
        _, sdp = GstSdp.SDPMessage.new_from_text(answer)
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        self.rtc.emit("set-remote-description", description, Gst.Promise.new())

    def on_pad(self, _rtc, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        decoder = Gst.ElementFactory.make("decodebin")
        decoder.connect("pad-added", self.on_decoded)
        self.pipeline.add(decoder)
        decoder.sync_state_with_parent()
        pad.link(decoder.get_static_pad("sink"))

    def on_decoded(self, _decoder, pad):
        is_video = pad.get_current_caps().get_structure(0).get_name().startswith("video")
        convert = (
            "videoconvert ! videoscale ! video/x-raw,format=RGB,width=16,height=16"
            if is_video
            else "audioconvert ! audioresample ! audio/x-raw,format=S16LE,channels=1,rate=48000"
        )
        sink = Gst.parse_bin_from_description(f"queue ! {convert} ! appsink name=out sync=false emit-signals=true", True)
        sink.get_by_name("out").connect("new-sample", self.on_picture if is_video else self.on_sound)
        self.pipeline.add(sink)
        sink.sync_state_with_parent()
        pad.link(sink.get_static_pad("sink"))

    def on_picture(self, sink):
        self.seen.picture(content(sink))
        return Gst.FlowReturn.OK

    def on_sound(self, sink):
        self.seen.sound(array.array("h", content(sink)), 48000)
        return Gst.FlowReturn.OK


def content(sink):
    buffer = sink.emit("pull-sample").get_buffer()
    return buffer.extract_dup(0, buffer.get_size())


def main():
    client = Client(*sys.argv[1:])
    loop = GLib.MainLoop()
    ended = one_offer.until_told()
    threading.Thread(target=lambda: (ended.wait(), loop.quit()), daemon=True).start()
    loop.run()
    if client.resource:
        one_offer.delete(client.resource, client.token)
    # Not back through the bindings, which would take the agent apart twice.
    os._exit(0)


main()
