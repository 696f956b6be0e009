//! The encodings in which a client sends one track at once (simulcast, RFC 8853): their names, and which is better.

use sfu::{Extension, ExtensionIds, MAX_ENCODINGS};

use super::sdp::Media;

/// Names that say which one is better, lowest first. Otherwise the client's order is ascending.
const KNOWN: [&[&str]; 3] = [&["q", "h", "f"], &["l", "m", "h"], &["low", "mid", "medium", "high"]];

/// See the module. Empty for a client that sends one encoding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encodings {
    /// In the client's order.
    names: Vec<String>,
    /// How many there are that are named by their SSRCs only.
    unnamed: usize,
}

impl Encodings {
    /// The encodings of an m-line that are taken: its first ones. Without the extension that names them they can be told
    /// apart by announced SSRCs only.
    pub fn of(media: &Media, extensions: &ExtensionIds) -> Self {
        let most = usize::from(MAX_ENCODINGS);
        if extensions.id(Extension::StreamId).is_some() && !media.encodings.is_empty() {
            return Self { names: media.encodings.iter().take(most).cloned().collect(), unnamed: 0 };
        }
        Self { names: Vec::new(), unnamed: media.simulcast_sources.len().min(most) }
    }

    /// The names in the client's order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many there are, 1 to 3.
    pub fn count(&self) -> u8 {
        self.names.len().max(self.unnamed).max(1) as u8
    }

    /// The names in ascending quality; `None` for each that has none.
    pub fn ascending(&self) -> impl Iterator<Item = Option<&str>> {
        let mut names: Vec<Option<&str>> = self.names.iter().map(|name| Some(name.as_str())).collect();
        names.resize(usize::from(self.count()), None);
        let rank = |names: &[&str], name: &Option<&str>| names.iter().position(|known| Some(*known) == *name);
        let known = KNOWN.iter().find(|known| names.iter().all(|name| rank(known, name).is_some()));
        if let Some(known) = known {
            names.sort_by_key(|name| rank(known, name));
        }
        names.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ascending(names: &[&str]) -> Vec<String> {
        let names = names.iter().map(|name| name.to_string()).collect();
        let all = Encodings { names, unnamed: 0 };
        all.ascending().map(|name| name.unwrap_or("-").to_string()).collect()
    }

    #[test]
    fn known_names_say_which_is_better_and_otherwise_the_order_does() {
        assert_eq!(ascending(&["f", "h", "q"]), ["q", "h", "f"]);
        assert_eq!(ascending(&["h", "l"]), ["l", "h"]);
        assert_eq!(ascending(&["high", "low", "mid"]), ["low", "mid", "high"]);
        assert_eq!(ascending(&["b", "a", "c"]), ["b", "a", "c"]);
        assert_eq!(ascending(&[]), ["-"]);
        let by_ssrc = Encodings { names: Vec::new(), unnamed: 3 };
        assert_eq!((by_ssrc.count(), by_ssrc.ascending().count()), (3, 3));
    }
}
