//! Reads a client's SDP. Tolerant of what does not matter here, strict about what does.

use std::collections::HashSet;

use super::{Description, Direction, Format, Media, Setup};
use crate::media::MediaError;
use crate::media::transport::dtls::Fingerprint;
use crate::media::transport::ice::Credentials;

/// Bounds for what one m-line may list; more is ignored.
const MAX_FORMATS: usize = 128;
const MAX_EXTENSIONS: usize = 32;
const MAX_SOURCES: usize = 32;
const MAX_ENCODINGS: usize = 8;

fn invalid(why: impl Into<String>) -> MediaError {
    MediaError::InvalidSdp(why.into())
}

/// What may stand at session level or in an m-line, for the bundle that all m-lines share.
#[derive(Default)]
struct Transport<'a> {
    fragment: Option<&'a str>,
    password: Option<&'a str>,
    fingerprint: Option<&'a str>,
    setup: Option<&'a str>,
}

impl<'a> Transport<'a> {
    fn read(&mut self, name: &str, value: &'a str) {
        let field = match name {
            "ice-ufrag" => &mut self.fragment,
            "ice-pwd" => &mut self.password,
            "fingerprint" => &mut self.fingerprint,
            "setup" => &mut self.setup,
            _ => return,
        };
        field.get_or_insert(value);
    }
}

/// Reads a description of at most `max_media` m-lines.
///
/// # Errors
/// `LimitExceeded` for too many bytes or m-lines, `InvalidSdp` with the reason for everything else.
pub fn parse(text: &str, max_media: usize) -> Result<Description, MediaError> {
    if text.len() > super::MAX_SDP {
        return Err(MediaError::LimitExceeded("sdp size"));
    }
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    if lines.next() != Some("v=0") {
        return Err(invalid("it does not start with v=0"));
    }
    let (mut transport, mut session_direction, mut bundle) =
        (Transport::default(), Direction::SendRecv, None);
    let mut media: Vec<Media> = Vec::new();
    let mut directions: Vec<Option<Direction>> = Vec::new();
    let mut bundle_only: HashSet<usize> = HashSet::new();
    for line in lines {
        let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
            return Err(invalid("a line is not of the form x=value"));
        };
        if kind == "m" {
            if media.len() >= max_media {
                return Err(MediaError::LimitExceeded("m-lines"));
            }
            media.push(media_line(value)?);
            directions.push(None);
        }
        if kind != "a" {
            continue;
        }
        let (name, value) = value.split_once(':').unwrap_or((value, ""));
        transport.read(name, value);
        let direction = direction(name);
        match (media.last_mut(), direction) {
            (None, Some(direction)) => session_direction = direction,
            (Some(_), Some(direction)) => {
                *directions.last_mut().expect("one for each m-line") = Some(direction)
            }
            (None, None) => {
                if let Some(mids) = (name == "group").then(|| value.strip_prefix("BUNDLE")).flatten() {
                    bundle = Some(mids.split_ascii_whitespace().collect::<HashSet<_>>());
                }
            }
            (Some(_), None) if name == "bundle-only" => {
                bundle_only.insert(media.len() - 1);
            }
            (Some(last), None) => attribute(last, name, value),
        }
    }
    if media.is_empty() {
        return Err(invalid("there is no m-line"));
    }
    let mut mids = HashSet::new();
    for (index, line) in media.iter_mut().enumerate() {
        line.direction = directions[index].unwrap_or(session_direction);
        // A bundle-only m-line has port 0 and is alive (RFC 9143, section 6).
        line.is_rejected &= !bundle_only.contains(&index);
        if line.mid.is_empty() || line.mid.len() > 64 || !line.mid.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(invalid("an m-line has no usable mid"));
        }
        if !mids.insert(line.mid.clone()) {
            return Err(invalid("two m-lines have the same mid"));
        }
    }
    let alive = || media.iter().filter(|line| !line.is_rejected);
    let bundled = alive().all(|line| bundle.as_ref().is_some_and(|mids| mids.contains(line.mid.as_str())));
    if alive().count() > 1 && !bundled {
        return Err(invalid("all m-lines must be in one BUNDLE group"));
    }
    let (credentials, fingerprint, setup) = validate(&transport)?;
    Ok(Description { credentials, fingerprint, setup, media })
}

fn media_line(value: &str) -> Result<Media, MediaError> {
    let mut words = value.splitn(4, ' ');
    let mut word = || words.next().ok_or_else(|| invalid("an m-line is incomplete"));
    let (kind, port, protocol) = (word()?, word()?, word()?);
    let formats_text = words.next().unwrap_or_default();
    let token =
        |text: &str| !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !token(kind) || !token(protocol) {
        return Err(invalid("an m-line is incomplete"));
    }
    let port: u16 = port
        .split('/')
        .next()
        .and_then(|port| port.parse().ok())
        .ok_or_else(|| invalid("an m-line has no port"))?;
    Ok(Media {
        kind: kind.to_string(),
        protocol: protocol.to_string(),
        formats_text: formats_text
            .chars()
            .filter(|char| char.is_ascii_graphic() || *char == ' ')
            .take(512)
            .collect(),
        is_rejected: port == 0,
        mid: String::new(),
        direction: Direction::SendRecv,
        formats: Vec::new(),
        extensions: Vec::new(),
        sources: Vec::new(),
        repairs: Vec::new(),
        simulcast_sources: Vec::new(),
        encodings: Vec::new(),
        sctp_port: None,
        max_message_size: None,
    })
}

fn direction(name: &str) -> Option<Direction> {
    match name {
        "sendrecv" => Some(Direction::SendRecv),
        "sendonly" => Some(Direction::SendOnly),
        "recvonly" => Some(Direction::RecvOnly),
        "inactive" => Some(Direction::Inactive),
        _ => None,
    }
}

fn attribute(media: &mut Media, name: &str, value: &str) {
    match name {
        "mid" => media.mid = value.to_string(),
        "rtpmap" if media.formats.len() < MAX_FORMATS => {
            if let Some(format) = rtpmap(value) {
                media.formats.push(format);
            }
        }
        "fmtp" => {
            if let Some((payload_type, parameters)) = value.split_once(' ')
                && let Ok(payload_type) = payload_type.parse::<u8>()
                && let Some(format) = media.formats.iter_mut().find(|it| it.payload_type == payload_type)
            {
                format.parameters = parameters.to_string();
            }
        }
        "extmap" if media.extensions.len() < MAX_EXTENSIONS => {
            let mut words = value.split(' ');
            let id = words.next().and_then(|id| id.split('/').next()).and_then(|id| id.parse().ok());
            if let (Some(id), Some(uri)) = (id, words.next()) {
                media.extensions.push((id, uri.to_string()));
            }
        }
        "ssrc" if media.sources.len() < MAX_SOURCES => {
            if let Some(Ok(ssrc)) = value.split(' ').next().map(str::parse)
                && !media.sources.contains(&ssrc)
            {
                media.sources.push(ssrc);
            }
        }
        "ssrc-group" if media.repairs.len() < MAX_SOURCES => {
            let mut words = value.split(' ');
            let semantics = words.next();
            let mut sources = words.map_while(|word| word.parse::<u32>().ok());
            if semantics == Some("FID")
                && let (Some(source), Some(repair)) = (sources.next(), sources.next())
            {
                media.repairs.push((source, repair));
            } else if semantics == Some("SIM") {
                media.simulcast_sources = sources.take(MAX_ENCODINGS).collect();
            }
        }
        "simulcast" => media.encodings = encodings(value),
        "sctp-port" => media.sctp_port = value.parse().ok(),
        "max-message-size" => media.max_message_size = value.parse().ok(),
        _ => {}
    }
}

/// The `send` list of `a=simulcast` (RFC 8853, section 5.1): of alternatives the first, paused or not.
fn encodings(value: &str) -> Vec<String> {
    let mut words = value.split(' ');
    let Some(list) = words.find(|word| *word == "send").and_then(|_| words.next()) else { return Vec::new() };
    let first = |encoding: &str| {
        let id = encoding.split(',').next()?.trim_start_matches('~');
        // RFC 8851, section 10.
        let is_id = !id.is_empty() && id.len() <= 16 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_id.then(|| id.to_string())
    };
    list.split(';').filter_map(first).take(MAX_ENCODINGS).collect()
}

fn rtpmap(value: &str) -> Option<Format> {
    let (payload_type, encoding) = value.split_once(' ')?;
    let payload_type: u8 = payload_type.parse().ok().filter(|it| *it < 128)?;
    let mut parts = encoding.split('/');
    let name = parts.next()?.to_string();
    let clock_rate = parts.next()?.trim().parse().ok()?;
    Some(Format { payload_type, name, clock_rate, parameters: String::new() })
}

/// One side's ICE credentials (RFC 8839, section 5.4).
///
/// # Errors
/// `InvalidSdp` when one is missing or malformed.
pub fn credentials(fragment: Option<&str>, password: Option<&str>) -> Result<Credentials, MediaError> {
    let ice = |value: Option<&str>, length: std::ops::RangeInclusive<usize>, what: &str| {
        let value = value.ok_or_else(|| invalid(format!("there is no {what}")))?;
        let valid = length.contains(&value.len())
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte));
        if valid { Ok(value.to_string()) } else { Err(invalid(format!("the {what} is malformed"))) }
    };
    Ok(Credentials {
        fragment: ice(fragment, 4..=256, "ice-ufrag")?,
        password: ice(password, 22..=256, "ice-pwd")?,
    })
}

/// The above, and RFC 8122, section 5.
fn validate(transport: &Transport<'_>) -> Result<(Credentials, Fingerprint, Setup), MediaError> {
    let credentials = credentials(transport.fragment, transport.password)?;
    let fingerprint = transport.fingerprint.ok_or_else(|| invalid("there is no fingerprint"))?;
    let (algorithm, value) = fingerprint.split_once(' ').unwrap_or((fingerprint, ""));
    if !algorithm.eq_ignore_ascii_case("sha-256") {
        return Err(invalid("the fingerprint is not sha-256"));
    }
    let hex = |byte: &str| byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
    if value.split(':').count() != 32 || !value.split(':').all(hex) {
        return Err(invalid("the fingerprint is malformed"));
    }
    let setup = match transport.setup {
        None | Some("actpass") => Setup::ActPass,
        Some("active") => Setup::Active,
        Some("passive") => Setup::Passive,
        Some(_) => return Err(invalid("the setup attribute is unknown")),
    };
    Ok((credentials, Fingerprint(value.to_ascii_uppercase()), setup))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::sdp::MAX_CLIENT_MEDIA;

    const HEAD: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n";
    const TRANSPORT: &str = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijkl\r\na=setup:actpass\r\n\
        a=fingerprint:sha-256 \
        00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n";
    const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\n\
        a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=extmap:3/sendonly urn:x\r\na=ssrc-group:FID 11 12\r\n\
        a=ssrc:11 cname:c\r\na=ssrc:11 msid:s t\r\na=ssrc:12 cname:c\r\n";
    const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n";

    fn refused(text: &str) -> String {
        parse(text, MAX_CLIENT_MEDIA).unwrap_err().to_string()
    }

    #[test]
    fn reads_what_matters() {
        let description = parse(&[HEAD, TRANSPORT, AUDIO, VIDEO].concat(), 2).unwrap();
        assert_eq!(description.credentials.fragment, "abcd");
        assert!(description.fingerprint.0.ends_with(":AA:BB:CC:DD:EE:FF"));
        let [audio, video] = &description.media[..] else { panic!("two m-lines") };
        assert_eq!(
            (audio.mid.as_str(), audio.direction, audio.is_rejected),
            ("0", Direction::SendRecv, false)
        );
        assert_eq!((video.mid.as_str(), video.direction), ("1", Direction::SendOnly));
        assert_eq!((&video.sources[..], &video.repairs[..]), (&[11, 12][..], &[(11, 12)][..]));
        assert!(video.simulcast_sources.is_empty());
        assert_eq!(video.extensions, [(3, "urn:x".to_string())]);
        assert_eq!(video.formats[1].parameters, "apt=96");
    }

    #[test]
    fn refuses_with_the_reason() {
        let with = |media: &str| [HEAD, TRANSPORT, media].concat();
        for (sdp, reason) in [
            (String::new(), "v=0"),
            ("hello".to_string(), "v=0"),
            ([HEAD, TRANSPORT].concat(), "no m-line"),
            ([HEAD, AUDIO].concat(), "no ice-ufrag"),
            (
                with(AUDIO).replace("a=ice-pwd:0123456789abcdefghijkl", "a=ice-pwd:short"),
                "ice-pwd is malformed",
            ),
            (with(AUDIO).replace("sha-256", "md5"), "not sha-256"),
            (with(AUDIO).replace("00:11:", ""), "fingerprint is malformed"),
            (with(AUDIO).replace("a=mid:0\r\n", ""), "mid"),
            (with(&[AUDIO, AUDIO].concat()), "same mid"),
            (with(&[AUDIO, VIDEO].concat()).replace("BUNDLE 0 1", "BUNDLE 0"), "BUNDLE"),
            (with("m=audio\r\n"), "incomplete"),
            (with("m=audio x UDP/TLS/RTP/SAVPF 111\r\n"), "port"),
            (with(AUDIO) + "nonsense\r\n", "x=value"),
        ] {
            let message = refused(&sdp);
            assert!(message.contains(reason), "{message:?} should say {reason:?}");
        }
    }

    #[test]
    fn too_many_m_lines_and_too_many_bytes_are_over_the_limit() {
        let many = HEAD.to_string() + TRANSPORT + &AUDIO.repeat(1000);
        assert_eq!(parse(&many, MAX_CLIENT_MEDIA), Err(MediaError::LimitExceeded("m-lines")));
        let long = HEAD.to_string() + &"a=x\r\n".repeat(100_000);
        assert_eq!(parse(&long, MAX_CLIENT_MEDIA), Err(MediaError::LimitExceeded("sdp size")));
    }

    #[test]
    fn reads_the_encodings_that_would_be_sent() {
        assert_eq!(encodings("send h;~m,x;l recv a"), ["h", "m", "l"]);
        assert_eq!(encodings("recv a;b send c"), ["c"]);
        assert!(
            encodings("recv a").is_empty()
                && encodings("send").is_empty()
                && encodings("send ;.;").is_empty()
        );
    }

    #[test]
    fn reads_data_channels() {
        let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:1\r\na=sctp-port:5000\r\n\
            a=max-message-size:262144\r\n";
        let with = |data: &str| parse(&[HEAD, TRANSPORT, AUDIO, data].concat(), 2).unwrap().media;
        let media = with(data);
        assert!(media[1].is_data() && !media[0].is_data());
        assert_eq!(media[1].max_message_size, Some(262_144));
        for (good, bad) in
            [("port:5000", "port:5001"), ("UDP/", "TCP/"), ("a=sctp-port:5000", "a=sctpmap:5000")]
        {
            assert!(!with(&data.replace(good, bad))[1].is_data(), "{bad}");
        }
    }

    #[test]
    fn reads_a_simulcast_group_of_ssrcs() {
        let grouped = VIDEO.to_string() + "a=ssrc-group:SIM 11 13 15\r\na=ssrc-group:FID 13 14\r\n";
        let description = parse(&[HEAD, TRANSPORT, AUDIO, &grouped].concat(), 2).unwrap();
        assert_eq!(description.media[1].simulcast_sources, [11, 13, 15]);
        assert_eq!(description.media[1].repairs, [(11, 12), (13, 14)]);
    }

    #[test]
    fn a_bundle_only_m_line_is_alive_and_a_plain_port_0_is_not() {
        let rejected = AUDIO.replace("audio 9", "audio 0");
        assert!(parse(&[HEAD, TRANSPORT, &rejected].concat(), 9).unwrap().media[0].is_rejected);
        let alive = rejected + "a=bundle-only\r\n";
        assert!(!parse(&[HEAD, TRANSPORT, &alive].concat(), 9).unwrap().media[0].is_rejected);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            let _ = parse(&text, MAX_CLIENT_MEDIA);
        }

        #[test]
        fn no_mutation_of_a_good_description_panics(at in 0usize..900, with in "\\PC{0,8}", cut in 0usize..20) {
            let good = [HEAD, TRANSPORT, AUDIO, VIDEO].concat();
            let at = at.min(good.len());
            let end = (at + cut).min(good.len());
            let _ = parse(&[&good[..at], &with, &good[end..]].concat(), MAX_CLIENT_MEDIA);
        }
    }
}
