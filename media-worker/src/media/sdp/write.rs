//! Writes the server's descriptions: offers and answers differ only in what the caller puts in.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::{DATA_FORMAT, DATA_KIND, DATA_PROTOCOL, Direction, Format, Setup};
use crate::media::transport::ice::Credentials;
use crate::media::transport::sctp;

/// An m-line that the server describes.
pub struct Section<'a> {
    pub mid: &'a str,
    pub body: Body<'a>,
}

pub enum Body<'a> {
    /// Port 0 (RFC 8829, section 5.3.1).
    Rejected {
        kind: &'a str,
        protocol: &'a str,
        formats: &'a str,
    },
    Media(Media<'a>),
    /// Data channels (RFC 8841).
    Data,
}

/// A live m-line.
pub struct Media<'a> {
    pub kind: &'a str,
    pub direction: Direction,
    pub formats: &'a [Format],
    /// `rtcp-fb` values for each format that is not a repair format.
    pub feedback: &'a [&'a str],
    pub extensions: Vec<(u8, &'a str)>,
    pub source: Option<Source>,
    /// What the client may send at most, in bit/s.
    pub max_bitrate: Option<u64>,
    /// The encodings that the server takes at once (RFC 8853); empty without simulcast.
    pub encodings: &'a [String],
}

/// What the server sends on an m-line.
pub struct Source {
    pub stream_id: String,
    pub track_id: String,
    pub ssrc: u32,
    pub repair_ssrc: Option<u32>,
}

/// What all m-lines share.
pub struct Session<'a> {
    /// `o=`: a number for the session and one that grows with each description (RFC 8829, 5.2.1).
    pub id: u64,
    pub version: u64,
    pub credentials: &'a Credentials,
    pub fingerprint: &'a str,
    pub setup: Setup,
    /// The server's, from [`candidates`].
    pub candidates: &'a [String],
}

/// Renders a description.
pub fn write(session: &Session<'_>, sections: &[Section<'_>]) -> String {
    let mut out = String::with_capacity(512 + sections.len() * 1024);
    render(&mut out, session, sections).expect("writing to a String does not fail");
    out
}

fn render(out: &mut String, session: &Session<'_>, sections: &[Section<'_>]) -> std::fmt::Result {
    write!(out, "v=0\r\no=- {} {} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n", session.id, session.version)?;
    let live = || sections.iter().filter(|section| !matches!(section.body, Body::Rejected { .. }));
    if live().next().is_some() {
        write!(out, "a=group:BUNDLE")?;
        for section in live() {
            write!(out, " {}", section.mid)?;
        }
        write!(out, "\r\n")?;
    }
    write!(out, "a=extmap-allow-mixed\r\na=msid-semantic: WMS *\r\na=ice-lite\r\n")?;
    let mut first = true;
    for section in sections {
        match &section.body {
            Body::Rejected { kind, protocol, formats } => {
                write!(out, "m={kind} 0 {protocol} {formats}\r\nc=IN IP4 0.0.0.0\r\n")?;
                write!(out, "a=inactive\r\na=mid:{}\r\n", section.mid)?;
            }
            Body::Media(media) => {
                render_media(out, session, section.mid, media, std::mem::take(&mut first))?;
            }
            Body::Data => render_data(out, session, section.mid, std::mem::take(&mut first))?,
        }
    }
    Ok(())
}

fn render_media(
    out: &mut String,
    session: &Session<'_>,
    mid: &str,
    media: &Media<'_>,
    with_candidates: bool,
) -> std::fmt::Result {
    write!(out, "m={} 9 UDP/TLS/RTP/SAVPF", media.kind)?;
    for format in media.formats {
        write!(out, " {}", format.payload_type)?;
    }
    write!(out, "\r\nc=IN IP4 0.0.0.0\r\n")?;
    if let Some(bitrate) = media.max_bitrate {
        // Some know only the one in kbit/s with all headers (RFC 8866, section 5.8), some the one without (RFC 3890).
        write!(out, "b=AS:{}\r\nb=TIAS:{bitrate}\r\n", bitrate.div_ceil(1000))?;
    }
    write!(out, "a=rtcp:9 IN IP4 0.0.0.0\r\n")?;
    render_transport(out, session, mid, with_candidates)?;
    for (id, uri) in &media.extensions {
        write!(out, "a=extmap:{id} {uri}\r\n")?;
    }
    write!(out, "a={}\r\n", media.direction.as_str())?;
    if let Some(source) = &media.source {
        write!(out, "a=msid:{} {}\r\n", source.stream_id, source.track_id)?;
    }
    write!(out, "a=rtcp-mux\r\na=rtcp-rsize\r\n")?;
    for format in media.formats {
        let Format { payload_type, name, clock_rate, parameters } = format;
        let channels = if media.kind == "audio" { "/2" } else { "" };
        write!(out, "a=rtpmap:{payload_type} {name}/{clock_rate}{channels}\r\n")?;
        if !name.eq_ignore_ascii_case("rtx") {
            for feedback in media.feedback {
                write!(out, "a=rtcp-fb:{payload_type} {feedback}\r\n")?;
            }
        }
        if !parameters.is_empty() {
            write!(out, "a=fmtp:{payload_type} {parameters}\r\n")?;
        }
    }
    for encoding in media.encodings {
        write!(out, "a=rid:{encoding} recv\r\n")?;
    }
    if !media.encodings.is_empty() {
        write!(out, "a=simulcast:recv {}\r\n", media.encodings.join(";"))?;
    }
    if let Some(source) = &media.source {
        let Source { stream_id, track_id, ssrc, repair_ssrc } = source;
        if let Some(repair) = repair_ssrc {
            write!(out, "a=ssrc-group:FID {ssrc} {repair}\r\n")?;
        }
        for ssrc in std::iter::once(ssrc).chain(repair_ssrc) {
            write!(out, "a=ssrc:{ssrc} cname:{stream_id}\r\na=ssrc:{ssrc} msid:{stream_id} {track_id}\r\n")?;
        }
    }
    Ok(())
}

fn render_transport(
    out: &mut String,
    session: &Session<'_>,
    mid: &str,
    with_candidates: bool,
) -> std::fmt::Result {
    if with_candidates {
        for candidate in session.candidates {
            write!(out, "a={candidate}\r\n")?;
        }
        write!(out, "a=end-of-candidates\r\n")?;
    }
    let Credentials { fragment, password } = session.credentials;
    write!(out, "a=ice-ufrag:{fragment}\r\na=ice-pwd:{password}\r\na=ice-options:trickle\r\n")?;
    write!(out, "a=fingerprint:sha-256 {}\r\na=setup:{}\r\n", session.fingerprint, session.setup.as_str())?;
    write!(out, "a=mid:{mid}\r\n")
}

fn render_data(
    out: &mut String,
    session: &Session<'_>,
    mid: &str,
    with_candidates: bool,
) -> std::fmt::Result {
    write!(out, "m={DATA_KIND} 9 {DATA_PROTOCOL} {DATA_FORMAT}\r\nc=IN IP4 0.0.0.0\r\n")?;
    render_transport(out, session, mid, with_candidates)?;
    write!(out, "a=sctp-port:{}\r\na=max-message-size:{}\r\n", sctp::PORT, sctp::MAX_MESSAGE)
}

/// Host candidates (RFC 8839, section 5.1), without `a=`: each address over UDP, and with `tcp_port` over TCP to whoever
/// connects (RFC 6544, section 4.5). Earlier ones have the higher priority, and UDP a higher one than TCP.
pub fn candidates(addresses: &[SocketAddr], tcp_port: Option<u16>) -> Vec<String> {
    let udp = addresses.iter().enumerate().map(|(index, address)| {
        // RFC 8445, section 5.1.2: type preference 126, local preference, component 1.
        let priority = (126 << 24) + (local_preference(index, 65_535) << 8) + 255;
        format!("candidate:{} 1 udp {priority} {} {} typ host", index + 1, address.ip(), address.port())
    });
    let tcp = tcp_port.into_iter().flat_map(|port| {
        addresses.iter().enumerate().map(move |(index, address)| {
            // RFC 6544, section 4.2: a direction preference of 4 for passive ones above the other preference; and a type
            // preference below that of every UDP candidate, relayed ones apart.
            let priority = (90 << 24) + (((4 << 13) + local_preference(index, 8_191)) << 8) + 255;
            let foundation = addresses.len() + index + 1;
            format!(
                "candidate:{foundation} 1 tcp {priority} {} {port} typ host tcptype passive",
                address.ip()
            )
        })
    });
    udp.chain(tcp).collect()
}

fn local_preference(index: usize, highest: u32) -> u32 {
    highest - u32::try_from(index).map_or(highest, |index| index.min(highest))
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let credentials = Credentials::generate(0);
        let fingerprint = vec!["AB"; 32].join(":");
        let session = Session {
            id: 7,
            version: 1,
            credentials: &credentials,
            fingerprint: &fingerprint,
            setup: Setup::Passive,
            candidates: &candidates(&["192.0.2.1:40000".parse().unwrap()], Some(443)),
        };
        let formats = [
            Format { payload_type: 96, name: "VP8".into(), clock_rate: 90_000, parameters: String::new() },
            Format { payload_type: 97, name: "rtx".into(), clock_rate: 90_000, parameters: "apt=96".into() },
        ];
        let source = Source { stream_id: "s".into(), track_id: "t".into(), ssrc: 5, repair_ssrc: Some(6) };
        let text = write(
            &session,
            &[
                Section {
                    mid: "d",
                    body: Body::Rejected {
                        kind: "application",
                        protocol: "UDP/DTLS/SCTP",
                        formats: "webrtc-datachannel",
                    },
                },
                Section {
                    mid: "v",
                    body: Body::Media(Media {
                        kind: "video",
                        direction: Direction::SendOnly,
                        formats: &formats,
                        feedback: &["nack"],
                        extensions: vec![(3, "urn:x")],
                        source: Some(source),
                        max_bitrate: Some(1_500_001),
                        encodings: &[],
                    }),
                },
                Section { mid: "c", body: Body::Data },
            ],
        );
        let read = parse(&text, 3).unwrap();
        assert_eq!(read.credentials, credentials);
        assert!(read.media[0].is_rejected);
        assert_eq!(read.media[1].formats, formats);
        assert_eq!(read.media[1].repairs, [(5, 6)]);
        assert_eq!(read.media[1].direction, Direction::SendOnly);
        assert!(text.contains("a=candidate:1 1 udp 2130706431 192.0.2.1 40000 typ host\r\n"));
        // 90 · 2^24 + (4 · 2^13 + 8191) · 2^8 + 255
        assert!(text.contains("a=candidate:2 1 tcp 1520435199 192.0.2.1 443 typ host tcptype passive\r\n"));
        assert!(text.contains("a=group:BUNDLE v c\r\n"));
        assert!(
            text.contains("\r\nc=IN IP4 0.0.0.0\r\nb=AS:1501\r\nb=TIAS:1500001\r\na=rtcp:9"),
            "bandwidth before attributes"
        );
        assert!(read.media[2].is_data() && !read.media[2].is_rejected);
        assert_eq!(read.media[2].max_message_size, Some(65_536));
    }
}
