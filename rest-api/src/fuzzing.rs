//! What the fuzz target `fragment` in `fuzz/` calls: it takes any bytes and panics only where a promise is broken.
//!
//! Built for tests and with the feature `fuzzing`. The seeds and past findings in `fuzz/corpus` also run as ordinary
//! tests.

use common::message::{Candidate, IceCredentials, IceFragment, IfMatch};

use crate::service::endpoints::{MAX_CANDIDATE_LENGTH, MAX_CANDIDATES};
use crate::service::whip::{fragment, if_match};

/// A PATCH of a WHIP or WHEP resource: up to a NUL its `If-Match`, each line a value, then its fragment. What is answered to
/// one that is taken is a fragment again, whatever m-line it repeats.
pub fn fragment(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (headers, body) = text.split_once('\0').unwrap_or(("", &text));
    if let Ok(IfMatch::Tags(tags)) = if_match::read(&headers.lines().collect::<Vec<_>>()) {
        assert!(tags.iter().all(|tag| !tag.contains('"')));
    }
    assert!(fragment::username_fragment(body).is_none_or(|it| !it.contains('\n')));
    let Ok(read) = fragment::read(body) else { return };
    let candidates = &read.ice.candidates;
    assert!(candidates.len() <= MAX_CANDIDATES);
    assert!(candidates.iter().all(|it| it.sdp_mid.is_some() && it.candidate.len() <= MAX_CANDIDATE_LENGTH));
    let own = IceFragment {
        credentials: Some(IceCredentials { username_fragment: "own".into(), password: "secret".into() }),
        candidates: vec![Candidate {
            candidate: "candidate:1 1 udp 2130706431 198.51.100.1 40000 typ host".into(),
            sdp_mid: candidates.first().and_then(|it| it.sdp_mid.clone()).or(Some("0".into())),
            sdp_m_line_index: Some(0),
            username_fragment: None,
        }],
    };
    let written = fragment::write(&own, read.media.as_deref());
    let mut again = fragment::read(&written).expect("what the server writes is a fragment");
    assert_eq!(again.ice.candidates.pop().map(|end| end.candidate), Some(String::new()));
    assert_eq!(again.ice, own);
    assert!(read.media.is_none() || again.media == read.media);
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    super::replay::replayed!(fragment);
}
