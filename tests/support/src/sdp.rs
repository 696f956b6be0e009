//! The little that a client reads from session descriptions (RFC 8866).

/// One m-line with its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaSection {
    pub mid: String,
    /// `audio`, `video`, `application`
    pub kind: String,
    pub direction: String,
    /// `a=msid` (RFC 8830): stream and track.
    pub msid: Option<(String, String)>,
    pub ssrcs: Vec<u32>,
}

/// The media sections in their order.
pub fn media_sections(sdp: &str) -> Vec<MediaSection> {
    let mut sections: Vec<MediaSection> = Vec::new();
    for line in sdp.lines().map(str::trim_end) {
        if let Some(media) = line.strip_prefix("m=") {
            sections.push(MediaSection {
                mid: String::new(),
                kind: media.split(' ').next().unwrap_or_default().to_owned(),
                direction: "sendrecv".to_owned(),
                msid: None,
                ssrcs: Vec::new(),
            });
            continue;
        }
        let (Some(section), Some(attribute)) = (sections.last_mut(), line.strip_prefix("a=")) else {
            continue;
        };
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "mid" => section.mid = value.to_owned(),
            "sendrecv" | "sendonly" | "recvonly" | "inactive" => section.direction = name.to_owned(),
            "msid" => {
                section.msid =
                    value.split_once(' ').map(|(stream, track)| (stream.to_owned(), track.to_owned()));
            }
            "ssrc" => {
                if let Some(ssrc) = value.split(' ').next().and_then(|text| text.parse().ok())
                    && !section.ssrcs.contains(&ssrc)
                {
                    section.ssrcs.push(ssrc);
                }
            }
            _ => {}
        }
    }
    sections
}

/// Under which id a header extension is offered (RFC 8285).
pub fn extension_id(sdp: &str, uri: &str) -> Option<u8> {
    sdp.lines().find_map(|line| {
        let (id, found) = line.trim_end().strip_prefix("a=extmap:")?.split_once(' ')?;
        (found == uri).then(|| id.split('/').next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_section_says() {
        let sdp = "v=0\r\na=sendonly\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=recvonly\r\n\
                   m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:x\r\na=sendonly\r\na=msid:s t\r\na=ssrc:7 cname:c\r\na=ssrc:7 msid:s t\r\na=ssrc:8 cname:c\r\n";
        let sections = media_sections(sdp);
        assert_eq!(sections.len(), 2);
        assert_eq!((sections[0].mid.as_str(), sections[0].direction.as_str()), ("0", "recvonly"));
        assert_eq!(sections[1].msid, Some(("s".to_owned(), "t".to_owned())));
        assert_eq!(sections[1].ssrcs, [7, 8]);
    }
}
