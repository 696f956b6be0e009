//! Datagrams in a stream of bytes: two bytes of length before each (RFC 4571, section 2).

/// The longest datagram that is taken. DTLS and RTP keep below a path's MTU; this leaves room for jumbo frames.
pub const MAX_DATAGRAM: usize = 9_216;
const LENGTH: usize = 2;

/// A stream that no honest peer sends.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

/// Appends a datagram with its length. What a length cannot say is cut: nothing that long is ever sent.
pub fn write(datagram: &[u8], into: &mut Vec<u8>) {
    let length = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(&datagram[..usize::from(length)]);
}

/// Puts datagrams together again from whatever pieces arrive.
#[derive(Debug, Default)]
pub struct Reader {
    /// The beginning of a frame that is not complete; empty most of the time.
    partial: Vec<u8>,
}

impl Reader {
    /// Takes what was received and hands out every datagram that it completes. Empty frames say nothing (RFC 4571,
    /// section 2) and are passed over.
    ///
    /// # Errors
    /// [`TooLong`]; the stream cannot be read any further.
    pub fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        while !self.partial.is_empty() {
            let missing = match length(&self.partial)? {
                None => LENGTH - self.partial.len(),
                Some(length) => LENGTH + length - self.partial.len(),
            };
            let (piece, rest) = bytes.split_at(missing.min(bytes.len()));
            self.partial.extend_from_slice(piece);
            bytes = rest;
            match length(&self.partial)? {
                Some(length) if self.partial.len() == LENGTH + length => {
                    if length > 0 {
                        each(&self.partial[LENGTH..]);
                    }
                    self.partial.clear();
                }
                _ if bytes.is_empty() => return Ok(()),
                _ => {}
            }
        }
        while let Some(length) = length(bytes)? {
            let Some(datagram) = bytes.get(LENGTH..LENGTH + length) else { break };
            if length > 0 {
                each(datagram);
            }
            bytes = &bytes[LENGTH + length..];
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

fn length(frame: &[u8]) -> Result<Option<usize>, TooLong> {
    let Some(length) = frame.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > MAX_DATAGRAM { Err(TooLong) } else { Ok(Some(length)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, TooLong> {
        let (mut reader, mut read) = (Reader::default(), Vec::new());
        for piece in pieces {
            reader.read(piece, |datagram| read.push(datagram.to_vec()))?;
        }
        Ok(read)
    }

    #[test]
    fn empty_frames_say_nothing_and_half_ones_wait() {
        assert_eq!(read_all([&[0, 0, 0, 1, 7, 0, 0, 0, 2, 8][..]]).unwrap(), [vec![7]]);
        assert_eq!(read_all([&[0][..], &[0, 0], &[1], &[7, 0]]).unwrap(), [vec![7]]);
        assert_eq!(read_all([&[0, 2, 8][..], &[9]]).unwrap(), [vec![8, 9]]);
    }

    #[test]
    fn a_length_that_nobody_needs_is_the_end() {
        let longest = u16::try_from(MAX_DATAGRAM).unwrap();
        assert_eq!(read_all([&(longest + 1).to_be_bytes()[..]]), Err(TooLong));
        assert_eq!(read_all([&b"G"[..], b"ET / HTTP/1.1\r\n"]), Err(TooLong), "as a browser would ask");
        assert_eq!(read_all([&longest.to_be_bytes()[..]]), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn whatever_was_written_is_read_in_whatever_pieces(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
            size in 1usize..400,
        ) {
            let mut bytes = Vec::new();
            datagrams.iter().for_each(|datagram| write(datagram, &mut bytes));
            prop_assert_eq!(read_all(bytes.chunks(size)).unwrap(), datagrams);
        }
    }
}
