//! SDP by itself; how it is negotiated is in the endpoint's own fuzzing.

use crate::media::sdp::{MAX_CLIENT_MEDIA, parse};

/// A client's description.
pub fn sdp(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(description) = parse::parse(&text, MAX_CLIENT_MEDIA) else { return };
    assert!((1..=MAX_CLIENT_MEDIA).contains(&description.media.len()));
    assert!(description.credentials.password.len() >= 22);
    for media in &description.media {
        assert!(!media.mid.is_empty() && !media.kind.is_empty());
        assert!(media.formats.len() <= 128 && media.sources.len() <= 32 && media.encodings.len() <= 8);
        assert!(media.extensions.len() <= 32 && media.repairs.len() <= 32);
    }
}
