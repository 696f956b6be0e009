//! Just enough SDP (RFC 8866, RFC 8829): a client's offers, its answers, and what a server's descriptions say.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, SocketAddrV4};

use crate::media::{Codec, VideoCodec};
use crate::source::ExtensionIds;
use crate::stun::Credentials;

pub const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
pub const ABSOLUTE_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
pub const TRANSPORT_SEQUENCE: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// Ids in our own offers.
const OFFERED: [(u8, &str); 4] = [(1, MID), (2, ABSOLUTE_SEND_TIME), (3, TRANSPORT_SEQUENCE), (4, RID)];

pub const OPUS: u8 = 111;
pub const VIDEO: u8 = 96;
pub const VIDEO_REPAIR: u8 = 97;

/// One m-line of a description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    pub kind: String,
    pub is_rejected: bool,
    pub formats: Vec<u8>,
    pub mid: String,
    /// `sendrecv` when nothing is said.
    pub direction: String,
    /// Without `a=`, in order.
    pub attributes: Vec<String>,
}

impl Section {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.attributes.iter().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    /// The codec of a payload type, in lower case.
    fn codec(&self, payload_type: u8) -> Option<String> {
        let line = self.values("rtpmap").find_map(|line| line.strip_prefix(&format!("{payload_type} ")))?;
        Some(line.split('/').next()?.to_ascii_lowercase())
    }

    fn extension(&self, uri: &str) -> Option<u8> {
        self.values("extmap").find_map(|line| {
            let (id, rest) = line.split_once(' ')?;
            (rest.split(' ').next()? == uri).then(|| id.split('/').next()?.parse().ok())?
        })
    }

    pub fn extensions(&self) -> ExtensionIds {
        ExtensionIds {
            mid: self.extension(MID),
            rid: self.extension(RID),
            absolute_send_time: self.extension(ABSOLUTE_SEND_TIME),
            transport_sequence: self.extension(TRANSPORT_SEQUENCE),
        }
    }

    /// The first format that is a codec and, when there is one, its repair format.
    pub fn payload(&self) -> Option<(u8, Option<u8>)> {
        let is_repair = |it: &u8| self.codec(*it).as_deref() == Some("rtx");
        let payload_type = *self.formats.iter().find(|it| !is_repair(it) && self.codec(**it).is_some())?;
        let repair = self.formats.iter().find(|it| {
            let repairs =
                |line: &str| line.strip_prefix(&format!("{it} apt=")) == Some(&payload_type.to_string());
            is_repair(it) && self.values("fmtp").any(repairs)
        });
        Some((payload_type, repair.copied()))
    }

    /// The encodings that an answer takes of those that were offered.
    pub fn encodings(&self) -> Vec<String> {
        let list = self.values("simulcast").find_map(|line| line.strip_prefix("recv "));
        let list = list.and_then(|list| list.split(' ').next()).unwrap_or_default();
        let first = |it: &str| it.split(',').next().unwrap_or_default().trim_start_matches('~').to_owned();
        list.split(';').map(first).filter(|rid| !rid.is_empty()).collect()
    }
}

/// What a received payload type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub is_audio: bool,
    pub is_repair: bool,
    pub with_nack: bool,
}

/// A description, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub credentials: Credentials,
    pub fingerprint: String,
    /// `active`, `passive` or `actpass`.
    pub setup: String,
    pub is_lite: bool,
    pub candidates: Vec<SocketAddr>,
    pub sections: Vec<Section>,
}

impl Description {
    /// # Errors
    /// What is missing, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut fragment, mut password, mut fingerprint, mut setup) = (None, None, None, None);
        let (mut is_lite, mut candidates, mut sections) = (false, Vec::new(), Vec::<Section>::new());
        for line in text.lines().map(str::trim_end) {
            if let Some(media) = line.strip_prefix("m=") {
                let mut words = media.split(' ');
                let kind = words.next().unwrap_or_default().to_owned();
                let is_rejected = words.next() == Some("0");
                let formats = words.skip(1).filter_map(|word| word.parse().ok()).collect();
                let direction = "sendrecv".to_owned();
                sections.push(Section { kind, is_rejected, formats, direction, ..Section::default() });
                continue;
            }
            let Some(attribute) = line.strip_prefix("a=") else { continue };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            match name {
                "ice-lite" => is_lite = true,
                "ice-ufrag" => _ = fragment.get_or_insert(value),
                "ice-pwd" => _ = password.get_or_insert(value),
                "setup" => _ = setup.get_or_insert(value),
                "fingerprint" => {
                    if let Some((kind, value)) = value.split_once(' ')
                        && kind.eq_ignore_ascii_case("sha-256")
                    {
                        fingerprint.get_or_insert(value);
                    }
                }
                "candidate" => candidates.extend(candidate(value)),
                _ => {}
            }
            let Some(section) = sections.last_mut() else { continue };
            match name {
                "mid" => section.mid = value.to_owned(),
                "sendrecv" | "sendonly" | "recvonly" | "inactive" => section.direction = name.to_owned(),
                // Alive in spite of port 0 (RFC 9143, section 6).
                "bundle-only" => section.is_rejected = false,
                _ => section.attributes.push(attribute.to_owned()),
            }
        }
        candidates.dedup();
        let need = |value: Option<&str>, what: &str| {
            value.map(str::to_owned).ok_or_else(|| format!("the description has no {what}"))
        };
        if sections.is_empty() {
            return Err("the description has no m-line".to_owned());
        }
        Ok(Self {
            credentials: Credentials {
                fragment: need(fragment, "ice-ufrag")?,
                password: need(password, "ice-pwd")?,
            },
            fingerprint: need(fingerprint, "sha-256 fingerprint")?,
            setup: setup.unwrap_or("actpass").to_owned(),
            is_lite,
            candidates,
            sections,
        })
    }

    /// Payload types of the m-lines that the server sends on.
    pub fn received(&self) -> HashMap<u8, Received> {
        let mut all = HashMap::new();
        for section in self.sections.iter().filter(|section| section.direction.starts_with("send")) {
            for payload_type in &section.formats {
                let Some(codec) = section.codec(*payload_type) else { continue };
                let with_nack = section.values("rtcp-fb").any(|line| line == format!("{payload_type} nack"));
                let is_audio = section.kind == "audio";
                let is_repair = codec == "rtx";
                all.insert(*payload_type, Received { is_audio, is_repair, with_nack });
            }
        }
        all
    }

    /// Which SSRC each repair SSRC repairs.
    pub fn repairs(&self) -> HashMap<u32, u32> {
        let lines = self.sections.iter().flat_map(|section| section.values("ssrc-group"));
        lines
            .filter_map(|line| {
                let mut words = line.strip_prefix("FID ")?.split(' ').map(str::parse);
                let (media, repair) = (words.next()?.ok()?, words.next()?.ok()?);
                Some((repair, media))
            })
            .collect()
    }
}

/// A UDP candidate with a plain IPv4 address.
fn candidate(value: &str) -> Option<SocketAddr> {
    let words: Vec<&str> = value.split(' ').collect();
    let is_udp = words.get(2)?.eq_ignore_ascii_case("udp");
    let address: SocketAddrV4 = format!("{}:{}", words.get(4)?, words.get(5)?).parse().ok()?;
    is_udp.then_some(address.into())
}

/// A stream that an offer describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    pub mid: String,
    pub codec: Codec,
    pub ssrc: u32,
    pub repair_ssrc: u32,
    /// Simulcast encodings; empty for a single one.
    pub rids: Vec<&'static str>,
    /// Whether the m-line sends; otherwise it only receives.
    pub sends: bool,
}

/// What all descriptions of one client share.
#[derive(Debug, Clone)]
pub struct Local {
    pub credentials: Credentials,
    pub fingerprint: String,
    pub address: SocketAddrV4,
    pub version: u64,
}

impl Local {
    fn start(&self, mids: &[&str]) -> String {
        let mut out = format!(
            "v=0\r\no=- 4611731400430051336 {} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
             a=msid-semantic: WMS *\r\n",
            self.version,
            mids.join(" ")
        );
        out.reserve(4_096);
        out
    }

    fn transport(&self, out: &mut String, mid: &str, setup: &str) {
        let Credentials { fragment, password } = &self.credentials;
        let _ = write!(
            out,
            "c=IN IP4 {ip}\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
             a=candidate:1 1 udp 2130706431 {ip} {port} typ host\r\na=end-of-candidates\r\n\
             a=ice-ufrag:{fragment}\r\na=ice-pwd:{password}\r\na=fingerprint:sha-256 {print}\r\na=setup:{setup}\r\n\
             a=mid:{mid}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n",
            ip = self.address.ip(),
            port = self.address.port(),
            print = self.fingerprint,
        );
    }

    /// An offer of these m-lines.
    pub fn offer(&self, lines: &[Offered]) -> String {
        let mids: Vec<&str> = lines.iter().map(|line| line.mid.as_str()).collect();
        let mut out = self.start(&mids);
        for line in lines {
            self.offer_line(&mut out, line);
        }
        out
    }

    fn offer_line(&self, out: &mut String, line: &Offered) {
        let (kind, formats) = match line.codec {
            Codec::Opus => ("audio", format!("{OPUS}")),
            Codec::Video(_) => ("video", format!("{VIDEO} {VIDEO_REPAIR}")),
        };
        let _ = write!(out, "m={kind} 9 UDP/TLS/RTP/SAVPF {formats}\r\n");
        self.transport(out, &line.mid, "actpass");
        let direction = if line.sends { "sendonly" } else { "recvonly" };
        let _ = write!(out, "a={direction}\r\n");
        for (id, uri) in OFFERED {
            // Encodings are told apart only where there are several.
            if uri != RID || !line.rids.is_empty() {
                let _ = write!(out, "a=extmap:{id} {uri}\r\n");
            }
        }
        let _ = match line.codec {
            Codec::Opus => write!(
                out,
                "a=rtpmap:{OPUS} opus/48000/2\r\na=rtcp-fb:{OPUS} transport-cc\r\n\
                 a=fmtp:{OPUS} minptime=10;useinbandfec=1\r\n"
            ),
            Codec::Video(codec) => {
                let (name, parameters) = match codec {
                    VideoCodec::Vp8 => ("VP8", String::new()),
                    VideoCodec::H264 => (
                        "H264",
                        format!(
                            "a=fmtp:{VIDEO} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n"
                        ),
                    ),
                };
                write!(
                    out,
                    "a=rtpmap:{VIDEO} {name}/90000\r\n{parameters}a=rtcp-fb:{VIDEO} transport-cc\r\n\
                     a=rtcp-fb:{VIDEO} ccm fir\r\na=rtcp-fb:{VIDEO} nack\r\na=rtcp-fb:{VIDEO} nack pli\r\n\
                     a=rtpmap:{VIDEO_REPAIR} rtx/90000\r\na=fmtp:{VIDEO_REPAIR} apt={VIDEO}\r\n"
                )
            }
        };
        if !line.sends {
            return;
        }
        let track = format!("load {kind}-{}", line.mid);
        let _ = write!(out, "a=msid:{track}\r\n");
        if !line.rids.is_empty() {
            for rid in &line.rids {
                let _ = write!(out, "a=rid:{rid} send\r\n");
            }
            let _ = write!(out, "a=simulcast:send {}\r\n", line.rids.join(";"));
            return;
        }
        let mut ssrcs = vec![line.ssrc];
        if line.codec != Codec::Opus {
            ssrcs.push(line.repair_ssrc);
            let _ = write!(out, "a=ssrc-group:FID {} {}\r\n", line.ssrc, line.repair_ssrc);
        }
        for ssrc in ssrcs {
            let _ = write!(out, "a=ssrc:{ssrc} cname:load\r\na=ssrc:{ssrc} msid:{track}\r\n");
        }
    }

    /// The answer that accepts everything in `offer`. `sending` are the m-lines of an earlier offer of ours.
    pub fn answer(&self, offer: &Description, sending: &[Offered]) -> String {
        let alive = offer.sections.iter().filter(|section| !section.is_rejected);
        let mids: Vec<&str> = alive.map(|section| section.mid.as_str()).collect();
        let mut out = self.start(&mids);
        for section in &offer.sections {
            let formats: Vec<String> = section.formats.iter().map(u8::to_string).collect();
            let port = if section.is_rejected { 0 } else { 9 };
            let _ = write!(out, "m={} {port} UDP/TLS/RTP/SAVPF {}\r\n", section.kind, formats.join(" "));
            if section.is_rejected {
                let _ = write!(out, "c=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:{}\r\n", section.mid);
                continue;
            }
            self.transport(&mut out, &section.mid, "active");
            let ours = sending.iter().find(|line| line.mid == section.mid && line.sends);
            let direction = match (section.direction.as_str(), ours) {
                ("sendonly" | "sendrecv", _) => "recvonly",
                ("recvonly", Some(_)) => "sendonly",
                _ => "inactive",
            };
            let _ = write!(out, "a={direction}\r\n");
            for line in &section.attributes {
                let name = line.split(':').next().unwrap_or_default();
                // A receiver here gives no transport-wide feedback and no bandwidth estimate.
                let kept = match name {
                    "rtpmap" | "fmtp" => true,
                    "rtcp-fb" => {
                        ours.is_some() || !(line.ends_with("transport-cc") || line.ends_with("goog-remb"))
                    }
                    "extmap" => ours.is_some() || !line.contains(TRANSPORT_SEQUENCE),
                    _ => false,
                };
                if kept {
                    let _ = write!(out, "a={line}\r\n");
                }
            }
            if let Some(line) = ours {
                let _ = write!(out, "a=msid:load {}-{}\r\n", section.kind, section.mid);
                let _ = write!(out, "a=ssrc:{} cname:load\r\n", line.ssrc);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Local {
        Local {
            credentials: Credentials { fragment: "frag".into(), password: "password".into() },
            fingerprint: "AA:BB".into(),
            address: "127.0.0.1:5000".parse().unwrap(),
            version: 1,
        }
    }

    fn lines(rids: &[&'static str]) -> [Offered; 2] {
        let line = |mid: &str, codec, ssrc, rids: &[&'static str]| Offered {
            mid: mid.into(),
            codec,
            ssrc,
            repair_ssrc: ssrc + 1,
            rids: rids.to_vec(),
            sends: true,
        };
        [line("0", Codec::Opus, 10, &[]), line("1", Codec::Video(VideoCodec::H264), 20, rids)]
    }

    #[test]
    fn an_offer_is_read_back() {
        let read = Description::parse(&local().offer(&lines(&[]))).unwrap();
        assert_eq!(read.credentials, local().credentials);
        assert_eq!(
            (read.fingerprint.as_str(), read.setup.as_str(), read.is_lite),
            ("AA:BB", "actpass", false)
        );
        assert_eq!(read.candidates, [SocketAddr::from(local().address)]);
        assert_eq!(read.sections[0].payload(), Some((OPUS, None)));
        assert_eq!(read.sections[1].payload(), Some((VIDEO, Some(VIDEO_REPAIR))));
        assert_eq!(read.sections[1].extensions().transport_sequence, Some(3));
        assert_eq!(read.repairs(), HashMap::from([(21, 20)]));
        let received = read.received();
        assert!(
            received[&VIDEO].with_nack && !received[&VIDEO].is_repair && received[&VIDEO_REPAIR].is_repair
        );
        assert!(received[&OPUS].is_audio && !received[&OPUS].with_nack);
    }

    #[test]
    fn another_implementation_reads_offers_and_answers() {
        use rtc::peer_connection::sdp::RTCSessionDescription;
        let offer = local().offer(&lines(&["q", "f"]));
        RTCSessionDescription::offer(offer.clone()).unwrap();
        let answer = local().answer(&Description::parse(&offer).unwrap(), &[]);
        RTCSessionDescription::answer(answer.clone()).unwrap();
        let read = Description::parse(&answer).unwrap();
        assert_eq!(read.setup, "active");
        assert!(read.sections.iter().all(|section| section.direction == "recvonly"));
        assert_eq!(read.sections[1].extensions().transport_sequence, None);
        assert!(!answer.contains("transport-cc"));
    }

    #[test]
    fn a_rejected_line_stays_rejected_and_ours_goes_on_sending() {
        let mut offer = Description::parse(&local().offer(&lines(&[]))).unwrap();
        offer.sections[0].is_rejected = true;
        offer.sections[1].direction = "recvonly".into();
        let answer = local().answer(&offer, &lines(&[]));
        let read = Description::parse(&answer).unwrap();
        assert!(read.sections[0].is_rejected);
        assert_eq!(read.sections[1].direction, "sendonly");
        assert!(answer.contains("a=group:BUNDLE 1\r\n"), "{answer}");
    }

    #[test]
    fn the_encodings_that_an_answer_takes() {
        let section = |line: &str| Section { attributes: vec![line.into()], ..Section::default() };
        assert_eq!(section("simulcast:recv q;~h;f,g").encodings(), ["q", "h", "f"]);
        assert!(section("rid:q recv").encodings().is_empty());
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(Description::parse("").unwrap_err().contains("m-line"));
        assert!(Description::parse("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n").unwrap_err().contains("ice-ufrag"));
    }
}
