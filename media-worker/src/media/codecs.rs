//! Which codecs and header extensions are negotiated, and under which numbers.
//!
//! A publishing m-line is answered with exactly one codec, the client's first that is known here, so a
//! track's codec is known as soon as it is negotiated. Payload types must mean the same in every m-line
//! of a bundle (RFC 9143, section 9.1), so what a client once called a codec is what it is called in
//! every later offer to that client.

use std::collections::HashMap;

use sfu::{Codec, Extension, ExtensionIds};

use super::sdp::{Direction, Format, Media};

/// One codec with its payload types as one client knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub codec: Codec,
    pub payload_type: u8,
    pub repair_type: Option<u8>,
    /// The `a=fmtp` value.
    pub parameters: String,
}

impl Payload {
    /// The formats to write into an m-line.
    pub fn formats(&self) -> Vec<Format> {
        let clock_rate = self.codec.clock_rate();
        let mut formats = vec![Format {
            payload_type: self.payload_type,
            name: name(self.codec).to_string(),
            clock_rate,
            parameters: self.parameters.clone(),
        }];
        if let Some(payload_type) = self.repair_type {
            let parameters = format!("apt={}", self.payload_type);
            formats.push(Format { payload_type, name: "rtx".to_string(), clock_rate, parameters });
        }
        formats
    }
}

const fn name(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "opus",
        Codec::Vp8 => "VP8",
        Codec::Vp9 => "VP9",
        Codec::H264 => "H264",
        Codec::Av1 => "AV1",
    }
}

/// What is said for a codec when the client has not named it: payload types as Chromium numbers them.
fn default_payload(codec: Codec) -> Payload {
    let (payload_type, repair_type, parameters) = match codec {
        Codec::Opus => (111, None, "minptime=10;useinbandfec=1"),
        Codec::Vp8 => (96, Some(97), ""),
        Codec::Vp9 => (98, Some(99), "profile-id=0"),
        Codec::H264 => {
            (108, Some(109), "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f")
        }
        Codec::Av1 => (45, Some(46), "level-idx=5;profile=0;tier=0"),
    };
    Payload { codec, payload_type, repair_type, parameters: parameters.to_string() }
}

/// The feedback that the server sends for what it receives.
pub const VIDEO_RECEIVE_FEEDBACK: &[&str] = &["transport-cc", "ccm fir", "nack", "nack pli"];
pub const AUDIO_RECEIVE_FEEDBACK: &[&str] = &["transport-cc", "nack"];
/// The feedback that the server acts on for what it sends.
pub const VIDEO_SEND_FEEDBACK: &[&str] = &["transport-cc", "goog-remb", "ccm fir", "nack", "nack pli"];
pub const AUDIO_SEND_FEEDBACK: &[&str] = &["transport-cc", "nack"];

/// The codecs of an m-line that are known here, in the client's order, each with its repair format.
pub fn known(media: &Media) -> Vec<Payload> {
    media.formats.iter().filter_map(|format| payload(media, format)).collect()
}

fn payload(media: &Media, format: &Format) -> Option<Payload> {
    let parameter = |name: &str| {
        format.parameters.split(';').find_map(|it| {
            let (key, value) = it.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let is =
        |name: &str, clock_rate| format.name.eq_ignore_ascii_case(name) && format.clock_rate == clock_rate;
    let codec = if media.is_audio() {
        is("opus", 48_000).then_some(Codec::Opus)?
    } else if !media.is_video() {
        return None;
    } else if is("VP8", 90_000) {
        Codec::Vp8
    } else if is("VP9", 90_000) && parameter("profile-id").is_none_or(|it| it == "0") {
        Codec::Vp9
    } else if is("AV1", 90_000) && parameter("profile").is_none_or(|it| it == "0") {
        Codec::Av1
    } else if is("H264", 90_000)
        // Without the parameter a sender says that it needs no more than everybody takes (RFC 6184, section 8.1), or does not
        // know yet what it will need: GStreamer offers so before its encoder has begun. Such a receiver takes too little.
        && parameter("packetization-mode").map_or(media.direction == Direction::SendOnly, |it| it == "1")
        // Baseline and constrained baseline: what every browser decodes, and what an absent parameter means (RFC 6184,
        // section 8.1).
        && parameter("profile-level-id").is_none_or(|it| it.starts_with("42"))
    {
        Codec::H264
    } else {
        return None;
    };
    let repairs = format!("apt={}", format.payload_type);
    let repair_type = media
        .formats
        .iter()
        .find(|it| {
            it.name.eq_ignore_ascii_case("rtx") && it.parameters.split(';').any(|it| it.trim() == repairs)
        })
        .map(|it| it.payload_type);
    Some(Payload {
        codec,
        payload_type: format.payload_type,
        repair_type,
        parameters: format.parameters.clone(),
    })
}

/// The URIs under which extensions are negotiated.
const URIS: [(Extension, &str); 9] = [
    (Extension::Mid, "urn:ietf:params:rtp-hdrext:sdes:mid"),
    (Extension::StreamId, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"),
    (Extension::RepairedStreamId, "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"),
    (
        Extension::TransportSequence,
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    ),
    (Extension::AbsoluteSendTime, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"),
    (Extension::AudioLevel, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
    (Extension::VideoOrientation, "urn:3gpp:video-orientation"),
    (Extension::PlayoutDelay, "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"),
    (
        Extension::DependencyDescriptor,
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
    ),
];

pub fn uri(extension: Extension) -> &'static str {
    URIS[extension as usize].1
}

/// The extensions that are forwarded with a codec. For VP8 and its kind the dependency descriptor is left out, because
/// receivers take it for layers that are not there.
pub fn extensions_for(codec: Codec) -> &'static [Extension] {
    match codec {
        Codec::Opus => &[
            Extension::Mid,
            Extension::TransportSequence,
            Extension::AbsoluteSendTime,
            Extension::AudioLevel,
        ],
        Codec::Vp8 | Codec::Vp9 | Codec::H264 => &[
            Extension::Mid,
            Extension::TransportSequence,
            Extension::AbsoluteSendTime,
            Extension::VideoOrientation,
            Extension::PlayoutDelay,
        ],
        Codec::Av1 => &[
            Extension::Mid,
            Extension::TransportSequence,
            Extension::AbsoluteSendTime,
            Extension::VideoOrientation,
            Extension::PlayoutDelay,
            Extension::DependencyDescriptor,
        ],
    }
}

/// The ids of those extensions of an m-line that are known and mean something for its codec; with those that tell
/// encodings apart when it has several. Of video the dependency descriptor is always welcome: it says what is a keyframe
/// and a layer where the picture itself is encrypted end to end.
pub fn extension_ids(media: &Media, codec: Codec) -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    let encodings: &[Extension] =
        if media.encodings.is_empty() { &[] } else { &[Extension::StreamId, Extension::RepairedStreamId] };
    let described: &[Extension] = if codec.is_video() { &[Extension::DependencyDescriptor] } else { &[] };
    for extension in extensions_for(codec).iter().chain(encodings).chain(described) {
        if let Some((id, _)) = media.extensions.iter().find(|(_, known)| known == uri(*extension)) {
            ids.set(*extension, *id);
        }
    }
    ids
}

/// The same for what is sent to a client on an m-line of its own: what is passed on with that codec, and the number for
/// transport-wide feedback.
pub fn sent_extension_ids(media: &Media, codec: Codec) -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    for extension in extensions_for(codec).iter().filter(|it| is_sent(**it)) {
        if let Some((id, _)) = media.extensions.iter().find(|(_, known)| known == uri(*extension)) {
            ids.set(*extension, *id);
        }
    }
    ids
}

fn is_sent(extension: Extension) -> bool {
    extension.is_end_to_end() || extension == Extension::TransportSequence
}

/// What numbers one client uses, learned from its descriptions and completed by the server's choices.
#[derive(Debug, Default, Clone)]
pub struct Numbering {
    payloads: HashMap<Codec, Payload>,
    payload_types: Vec<u8>,
    extensions: ExtensionIds,
    extension_ids: Vec<u8>,
}

impl Numbering {
    /// Learns from a client's m-line.
    pub fn learn(&mut self, media: &Media) {
        for format in &media.formats {
            if !self.payload_types.contains(&format.payload_type) {
                self.payload_types.push(format.payload_type);
            }
        }
        for payload in known(media) {
            self.payloads.entry(payload.codec).or_insert(payload);
        }
        for (id, known) in &media.extensions {
            if !self.extension_ids.contains(id) {
                self.extension_ids.push(*id);
            }
            if let Some((extension, _)) = URIS.iter().find(|(_, uri)| uri == known) {
                self.extensions.set(*extension, *id);
            }
        }
    }

    /// How to call a codec in an offer to this client. `None` when no payload type is left.
    pub fn payload(&mut self, codec: Codec) -> Option<Payload> {
        if let Some(payload) = self.payloads.get(&codec) {
            return Some(payload.clone());
        }
        let mut payload = default_payload(codec);
        payload.payload_type = self.free_payload_type(payload.payload_type)?;
        payload.repair_type = match payload.repair_type {
            Some(wanted) => Some(self.free_payload_type(wanted)?),
            None => None,
        };
        self.payloads.insert(codec, payload.clone());
        Some(payload)
    }

    fn free_payload_type(&mut self, wanted: u8) -> Option<u8> {
        // The dynamic range, then what else RTP with RTCP multiplexing leaves free (RFC 5761, 4).
        let free = std::iter::once(wanted).chain(96..=127).chain(35..=63);
        let found = free.into_iter().find(|it| !self.payload_types.contains(it))?;
        self.payload_types.push(found);
        Some(found)
    }

    /// The extensions to offer with a codec: those that are passed on, and the number for transport-wide feedback. One
    /// for which no id is left stays out.
    pub fn extensions(&mut self, codec: Codec) -> ExtensionIds {
        let mut ids = ExtensionIds::default();
        for extension in extensions_for(codec).iter().filter(|it| is_sent(**it)) {
            if self.extensions.id(*extension).is_none()
                && let Some(id) = (1..=sfu::extension::MAX_ID).find(|id| !self.extension_ids.contains(id))
            {
                self.extension_ids.push(id);
                self.extensions.set(*extension, id);
            }
            if let Some(id) = self.extensions.id(*extension) {
                ids.set(*extension, id);
            }
        }
        ids
    }
}

/// The extensions to write into an m-line.
pub fn extension_lines(ids: &ExtensionIds) -> Vec<(u8, &'static str)> {
    Extension::ALL.into_iter().filter_map(|extension| Some((ids.id(extension)?, uri(extension)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(lines: &[(u8, &str, &str)]) -> Media {
        Media {
            kind: "video".into(),
            protocol: String::new(),
            formats_text: String::new(),
            is_rejected: false,
            mid: "0".into(),
            direction: Direction::SendOnly,
            formats: lines
                .iter()
                .map(|(payload_type, name, parameters)| Format {
                    payload_type: *payload_type,
                    name: name.to_string(),
                    clock_rate: 90_000,
                    parameters: parameters.to_string(),
                })
                .collect(),
            extensions: vec![(4, uri(Extension::Mid).into()), (5, uri(Extension::PlayoutDelay).into())],
            sources: Vec::new(),
            repairs: Vec::new(),
            simulcast_sources: Vec::new(),
            encodings: Vec::new(),
            sctp_port: None,
            max_message_size: None,
        }
    }

    #[test]
    fn each_uri_stands_at_its_extension() {
        for extension in Extension::ALL {
            assert_eq!(URIS[extension as usize].0, extension);
        }
    }

    #[test]
    fn the_clients_order_decides_and_unknown_profiles_are_passed_over() {
        let media = video(&[
            (98, "VP9", "profile-id=2"),
            (102, "H264", "packetization-mode=0;profile-level-id=42001f"),
            (104, "H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640c1f"),
            (106, "H264", "level-asymmetry-allowed=1; packetization-mode=1; profile-level-id=42e01f"),
            (107, "rtx", "apt=106"),
            (96, "VP8", ""),
        ]);
        let found: Vec<_> =
            known(&media).into_iter().map(|it| (it.codec, it.payload_type, it.repair_type)).collect();
        assert_eq!(found, [(Codec::H264, 106, Some(107)), (Codec::Vp8, 96, None)]);
    }

    #[test]
    fn h264_without_a_profile_is_baseline() {
        let media = video(&[(96, "H264", "packetization-mode=1;sprop-parameter-sets=Z0LADA==,aM48gA==")]);
        let found: Vec<_> = known(&media).into_iter().map(|it| (it.codec, it.payload_type)).collect();
        assert_eq!(found, [(Codec::H264, 96)]);
    }

    #[test]
    fn h264_without_a_packetization_mode_is_taken_of_who_only_sends() {
        let mut media = video(&[(102, "H264", "")]);
        assert_eq!(known(&media).len(), 1);
        for direction in [Direction::RecvOnly, Direction::SendRecv] {
            media.direction = direction;
            assert_eq!(known(&media).len(), 0, "{direction:?}");
        }
    }

    #[test]
    fn a_client_is_always_called_by_its_own_numbers_and_others_do_not_collide() {
        let mut numbering = Numbering::default();
        numbering.learn(&video(&[
            (45, "VP8", ""),
            (46, "rtx", "apt=45"),
            (108, "red", ""),
            (96, "ulpfec", ""),
        ]));
        let vp8 = numbering.payload(Codec::Vp8).unwrap();
        assert_eq!((vp8.payload_type, vp8.repair_type), (45, Some(46)));
        let mut used = vec![45, 46, 108, 96];
        for codec in [Codec::Vp9, Codec::H264, Codec::Av1, Codec::Opus] {
            let payload = numbering.payload(codec).unwrap();
            assert_eq!(numbering.payload(codec).unwrap(), payload, "and it stays so");
            for it in std::iter::once(payload.payload_type).chain(payload.repair_type) {
                assert!(!used.contains(&it), "{it} is taken");
                used.push(it);
            }
        }
        let ids = numbering.extensions(Codec::Av1);
        assert_eq!(ids.id(Extension::PlayoutDelay), Some(5));
        assert_eq!(ids.id(Extension::Mid), None, "hop by hop");
        assert!(ids.id(Extension::DependencyDescriptor).is_some_and(|id| id != 4 && id != 5));
    }

    #[test]
    fn without_a_free_payload_type_there_is_none() {
        let mut numbering = Numbering::default();
        let all: Vec<_> = (35..=127).map(|it| (it, "x", "")).collect();
        numbering.learn(&video(&all));
        assert_eq!(numbering.payload(Codec::Vp9), None);
    }
}
