//! `application/trickle-ice-sdpfrag` (RFC 8840, section 9): the part of a description that is about ICE.
//!
//! ```text
//!   a=ice-ufrag:EsAw           for all m-lines, or in one
//!   a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1
//!   m=audio 9 RTP/AVP 0        stands for the m-line with this mid
//!   a=mid:0
//!   a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host
//!   a=end-of-candidates
//! ```

use std::fmt::Write as _;

use common::message::{Candidate, IceCredentials, IceFragment};

use crate::error::{ApiError, ApiResult, Code};
use crate::service::endpoints::{MAX_CANDIDATE_LENGTH, MAX_CANDIDATES};

/// m-lines in one fragment at most.
const MAX_MEDIA: usize = 128;
/// The m-line of an answer to a fragment without any.
const PLACEHOLDER: &str = "audio 9 UDP/TLS/RTP/SAVPF 0";

/// What a fragment says.
#[derive(Debug, PartialEq, Eq)]
pub struct Fragment {
    pub ice: IceFragment,
    /// Its first m-line, without `m=`.
    pub media: Option<String>,
}

fn invalid(why: &str) -> ApiError {
    ApiError::new(Code::InvalidFragment, format!("unacceptable fragment: {why}"))
}

/// Reads a client's fragment. Attributes that it does not know it leaves alone.
///
/// # Errors
/// `invalid_fragment` for what is not of the grammar: lines that are neither `a=` nor `m=`, an m-line without `mid`,
/// candidates outside of one, half of the credentials, or two different ones; `limit_exceeded` for more than 100
/// candidates, one of over 1,024 characters, or more than 128 m-lines.
pub fn read(text: &str) -> ApiResult<Fragment> {
    let (mut username_fragment, mut password) = (None, None);
    let mut media: Option<String> = None;
    let mut candidates: Vec<Candidate> = Vec::new();
    // Of the m-line being read: its place, its mid, and the first of its candidates.
    let mut section: Option<(u16, Option<String>, usize)> = None;
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        if let Some(value) = line.strip_prefix("m=") {
            let place = section.as_ref().map_or(0, |(place, ..)| place + 1);
            if usize::from(place) >= MAX_MEDIA {
                return Err(ApiError::new(Code::LimitExceeded, "a fragment has at most 128 m-lines"));
            }
            finish(&section)?;
            section = Some((place, None, candidates.len()));
            if value.split_ascii_whitespace().count() < 4 {
                return Err(invalid("an m-line is incomplete"));
            }
            media.get_or_insert_with(|| value.to_owned());
            continue;
        }
        let attribute = line.strip_prefix("a=").ok_or_else(|| invalid("a line is neither a= nor m="))?;
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "ice-ufrag" => same(&mut username_fragment, value)?,
            "ice-pwd" => same(&mut password, value)?,
            "mid" => {
                let (_, mid, first) =
                    section.as_mut().ok_or_else(|| invalid("a mid outside of an m-line"))?;
                if value.is_empty() || mid.is_some() {
                    return Err(invalid("an m-line has two mids, or an empty one"));
                }
                candidates[*first..].iter_mut().for_each(|it| it.sdp_mid = Some(value.to_owned()));
                *mid = Some(value.to_owned());
            }
            "candidate" | "end-of-candidates" => {
                let (place, mid, _) =
                    section.as_ref().ok_or_else(|| invalid("a candidate outside of an m-line"))?;
                if candidates.len() >= MAX_CANDIDATES {
                    return Err(ApiError::new(Code::LimitExceeded, "at most 100 candidates in one request"));
                }
                if attribute.len() > MAX_CANDIDATE_LENGTH {
                    return Err(ApiError::new(
                        Code::LimitExceeded,
                        "a candidate has at most 1024 characters",
                    ));
                }
                candidates.push(Candidate {
                    candidate: if name == "candidate" { attribute.to_owned() } else { String::new() },
                    sdp_mid: mid.clone(),
                    sdp_m_line_index: Some(*place),
                    username_fragment: None,
                });
            }
            _ => {}
        }
    }
    finish(&section)?;
    let credentials = match (username_fragment, password) {
        (Some(username_fragment), Some(password)) => Some(IceCredentials { username_fragment, password }),
        (None, None) => None,
        _ => return Err(invalid("ice-ufrag and ice-pwd come together")),
    };
    Ok(Fragment { ice: IceFragment { credentials, candidates }, media })
}

/// All m-lines share one transport, so what is said twice must be the same.
fn same(known: &mut Option<String>, value: &str) -> ApiResult<()> {
    match known {
        Some(known) if known != value => Err(invalid("two m-lines have different ICE credentials")),
        _ => {
            *known = Some(value.to_owned());
            Ok(())
        }
    }
}

fn finish(section: &Option<(u16, Option<String>, usize)>) -> ApiResult<()> {
    match section {
        Some((_, None, _)) => Err(invalid("an m-line has no mid")),
        _ => Ok(()),
    }
}

/// Writes the server's side. `media`: the m-line that the client's fragment had, without `m=`.
pub fn write(own: &IceFragment, media: Option<&str>) -> String {
    let mid = own.candidates.iter().find_map(|candidate| candidate.sdp_mid.as_deref()).unwrap_or("0");
    let mut text = format!("a=ice-lite\r\na=ice-options:trickle\r\na=group:BUNDLE {mid}\r\n");
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("writing to a String does not fail");
        text.push_str("\r\n");
    };
    line(format_args!("m={}", media.unwrap_or(PLACEHOLDER)));
    line(format_args!("a=mid:{mid}"));
    if let Some(IceCredentials { username_fragment, password }) = &own.credentials {
        line(format_args!("a=ice-ufrag:{username_fragment}"));
        line(format_args!("a=ice-pwd:{password}"));
    }
    for candidate in &own.candidates {
        line(format_args!("a={}", candidate.candidate));
    }
    line(format_args!("a=end-of-candidates"));
    text
}

/// The first ICE username fragment of a description.
pub fn username_fragment(sdp: &str) -> Option<&str> {
    sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CREDENTIALS: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n";
    const MEDIA: &str = "m=audio 9 RTP/AVP 0\r\na=mid:0\r\n";
    const CANDIDATE: &str =
        "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0\r\n";

    fn refused(text: &str) -> Code {
        read(text).unwrap_err().code
    }

    #[test]
    fn reads_what_rfc_9725_shows() {
        let options = "a=ice-options:trickle ice2\r\na=group:BUNDLE 0 1\r\n";
        let text = [options, MEDIA, CREDENTIALS, CANDIDATE, "a=end-of-candidates\r\n"].concat();
        let Fragment { ice, media } = read(&text).unwrap();
        assert_eq!(ice.credentials.unwrap().username_fragment, "EsAw");
        assert_eq!(media.as_deref(), Some("audio 9 RTP/AVP 0"));
        let [one, end] = &ice.candidates[..] else { panic!("two of them") };
        assert!(one.candidate.starts_with("candidate:1387637174 1 udp") && end.candidate.is_empty());
        assert_eq!((one.sdp_mid.as_deref(), one.sdp_m_line_index), (Some("0"), Some(0)));
        // For all m-lines at once, and none.
        assert!(read(&[CREDENTIALS, MEDIA].concat()).unwrap().ice.candidates.is_empty());
        assert_eq!(read("").unwrap().ice, IceFragment::default());
    }

    #[test]
    fn refuses_what_is_not_of_the_grammar() {
        for wrong in [
            "v=0\r\n",
            "not sdp",
            CANDIDATE,
            "a=mid:0\r\n",
            "m=audio 9\r\na=mid:0\r\n",
            "m=audio 9 RTP/AVP 0\r\n",
            "m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=mid:1\r\n",
            "m=audio 9 RTP/AVP 0\r\na=mid:\r\n",
            "a=ice-ufrag:EsAw\r\n",
            "a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n",
            "a=ice-ufrag:EsAw\r\na=ice-ufrag:other\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n",
        ] {
            assert_eq!(refused(wrong), Code::InvalidFragment, "{wrong}");
        }
        assert_eq!(refused(&[MEDIA, &CANDIDATE.repeat(101)].concat()), Code::LimitExceeded);
        let long = format!("a=candidate:{}\r\n", "x".repeat(1_100));
        assert_eq!(refused(&[MEDIA, &long].concat()), Code::LimitExceeded);
        let many: String = (0..129).map(|mid| format!("m=audio 9 RTP/AVP 0\r\na=mid:{mid}\r\n")).collect();
        assert_eq!(refused(&many), Code::LimitExceeded);
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let own = IceFragment {
            credentials: Some(IceCredentials { username_fragment: "abcd".into(), password: "secret".into() }),
            candidates: vec![Candidate {
                candidate: "candidate:1 1 udp 2130706431 198.51.100.1 39132 typ host".into(),
                sdp_mid: Some("1".into()),
                sdp_m_line_index: Some(0),
                username_fragment: None,
            }],
        };
        let mut back = read(&write(&own, None)).unwrap().ice;
        assert_eq!(back.candidates.pop().unwrap().candidate, "", "the end of candidates");
        assert_eq!(back, own);
        assert_eq!(read(&write(&own, Some("video 9 X 0"))).unwrap().media.as_deref(), Some("video 9 X 0"));
    }

    proptest! {
        #[test]
        fn never_panics_on_any_text(text in "\\PC*") {
            let _ = read(&text);
        }

        #[test]
        fn never_panics_on_lines_in_any_order(lines in proptest::collection::vec(0usize..8, 0..40)) {
            const LINES: [&str; 8] = [
                "m=audio 9 RTP/AVP 0", "a=mid:0", "a=mid:1", "a=ice-ufrag:abcd", "a=ice-pwd:secret",
                "a=candidate:1 1 udp 1 192.0.2.1 9 typ host", "a=end-of-candidates", "a=x",
            ];
            let text: String = lines.iter().map(|line| format!("{}\r\n", LINES[*line])).collect();
            if let Ok(Fragment { ice, .. }) = read(&text) {
                prop_assert!(ice.candidates.iter().all(|it| it.sdp_mid.is_some()));
            }
        }
    }
}
