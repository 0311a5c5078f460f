//! Content codings of answers (RFC 9110 §8.4). Requests ask for `identity`; an answer that is encoded anyway
//! is decoded, within the bounds that hold for it.

use std::io::{BufReader, Read};

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// The most codings that are decoded. More than one is rare, more than this is an attack.
const MAX_CODINGS: usize = 4;
/// The portion in which a coding is read, in bytes.
const PIECE: usize = 8 * 1024;

/// A supported coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// RFC 1952, also as `x-gzip`.
    Gzip,
    /// RFC 1950, and the bare RFC 1951 that some servers send under the same name.
    Deflate,
    /// RFC 7932.
    Brotli,
}

/// The error of an unsupported coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer in an unknown encoding")]
pub struct Unknown;

/// The codings of an answer, in the order in which they were applied; usually none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codings(Vec<Coding>);

impl Codings {
    /// Parses the values of an answer's `Content-Encoding` headers.
    ///
    /// # Errors
    /// Fails if a coding is unsupported, or if there are more than four.
    pub fn read<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Unknown> {
        let mut codings = Vec::new();
        for name in values.into_iter().flat_map(|value| value.split(|byte| *byte == b',')) {
            match name.trim_ascii().to_ascii_lowercase().as_slice() {
                b"" | b"identity" => {}
                b"gzip" | b"x-gzip" => codings.push(Coding::Gzip),
                b"deflate" | b"x-deflate" => codings.push(Coding::Deflate),
                b"br" => codings.push(Coding::Brotli),
                _ => return Err(Unknown),
            }
        }
        if codings.len() > MAX_CODINGS { Err(Unknown) } else { Ok(Self(codings)) }
    }

    /// Returns whether the body is not encoded.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a reader of the decoded body. It decodes only what is read, so that a small body that expands
    /// takes no more memory than its reader grants. No layer yields more than `max` bytes.
    ///
    /// A layer whose bytes are not in its coding is skipped: some proxies decode the body and leave the header
    /// as it was.
    #[must_use]
    pub fn reader<'a>(
        &self,
        body: Box<dyn Read + Send + 'a>,
        max: u64,
    ) -> Box<dyn Read + Send + 'a> {
        let mut reader = body;
        for coding in self.0.iter().rev() {
            reader = Box::new(coding.taken_off(reader).take(max));
        }
        reader
    }

    /// Decodes the whole body. If a coding breaks off, the bytes before are kept and `end` is an error.
    #[must_use]
    pub fn decode(&self, body: &[u8], max: usize) -> Decoded {
        let mut bytes = Vec::new();
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        let read = self.reader(Box::new(body), limit).take(limit).read_to_end(&mut bytes);
        let end = match read {
            _ if bytes.len() > max => Err(Spoilt::TooLarge),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(Spoilt::BrokenOff)
            }
            Err(_) => Err(Spoilt::Damaged),
        };
        Decoded { bytes, end }
    }
}

/// A decoded body.
#[derive(Debug)]
pub struct Decoded {
    /// The decoded bytes, also if the body is incomplete.
    pub bytes: Vec<u8>,
    /// Whether the body is complete.
    pub end: Result<(), Spoilt>,
}

/// Why a body could not be decoded to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Spoilt {
    /// It exceeds the bound.
    #[error("an answer of excessive size")]
    TooLarge,
    /// It ends early.
    #[error("an answer that broke off")]
    BrokenOff,
    /// Its bytes are invalid in its coding, or fail its checksum.
    #[error("an answer whose encoding is damaged")]
    Damaged,
}

impl Coding {
    fn taken_off<'a>(self, encoded: Box<dyn Read + Send + 'a>) -> Box<dyn Read + Send + 'a> {
        let mut encoded = encoded;
        let mut head = [0; 2];
        let length = fill(&mut encoded, &mut head);
        let seen = head.get(..length).unwrap_or_default();
        let first = std::io::Cursor::new(seen.to_vec());
        let whole = BufReader::with_capacity(PIECE, first.chain(encoded));
        match self {
            Self::Gzip if seen == [0x1f, 0x8b] => Box::new(MultiGzDecoder::new(whole)),
            Self::Deflate if is_zlib(head) => Box::new(ZlibDecoder::new(whole)),
            // A JSON object's first byte could begin a bare deflate stream or Brotli, but its second,
            // a quotation mark, a closing brace or white space, makes neither of an answer's length.
            Self::Gzip => Box::new(whole),
            Self::Deflate | Self::Brotli if is_object(head) => Box::new(whole),
            Self::Deflate => Box::new(DeflateDecoder::new(whole)),
            Self::Brotli => Box::new(brotli_decompressor::Decompressor::new(whole, PIECE)),
        }
    }
}

/// Fills `head` as far as possible; an error here occurs again where the body is read.
fn fill(reader: &mut dyn Read, head: &mut [u8]) -> usize {
    let mut length = 0;
    while let Some(rest) = head.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) | Err(_) => break,
            Ok(more) => length += more,
        }
    }
    length
}

/// Checks for RFC 1950 §2.2: method 8 (deflate), and a checksum over the first two bytes.
fn is_zlib(head: [u8; 2]) -> bool {
    head[0] & 0x0f == 8 && u16::from_be_bytes(head).is_multiple_of(31)
}

/// Checks for a JSON object, with or without a byte order mark.
fn is_object(head: [u8; 2]) -> bool {
    matches!(head, [b'{', b'"' | b'}' | b' ' | b'\t' | b'\r' | b'\n'] | [0xef, 0xbb])
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] =
        br#"{"success":true,"accessToken":"t","padding":"aaaaaaaaaaaaaaaaaaaaaaaa"}"#;

    /// Encodes without compression, because only the decoder is a dependency.
    fn brotli(text: &[u8]) -> Vec<u8> {
        // RFC 7932 §9.1, §9.2: a window of 16 bits, a metablock that is not the last and not
        // compressed, and an empty last one.
        let length = u32::try_from(text.len() - 1).unwrap();
        let head = (length << 4) | (1 << 20);
        let mut bytes = head.to_le_bytes()[..3].to_vec();
        bytes.extend_from_slice(text);
        bytes.push(0b11);
        bytes
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn raw_deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn codings(names: &[&str]) -> Codings {
        Codings::read(names.iter().map(|name| name.as_bytes())).unwrap()
    }

    fn decoded(names: &[&str], body: &[u8]) -> Vec<u8> {
        let decoded = codings(names).decode(body, 1000);
        assert_eq!(decoded.end, Ok(()), "{names:?}");
        decoded.bytes
    }

    #[test]
    fn every_coding_is_taken_off_however_it_is_spelt() {
        for name in ["gzip", "x-gzip", "GZIP", "identity, gzip", " gzip ,"] {
            assert_eq!(decoded(&[name], &gzip(TEXT)), TEXT, "{name}");
        }
        for body in [zlib(TEXT), raw_deflate(TEXT)] {
            assert_eq!(decoded(&["deflate"], &body), TEXT);
        }
        assert_eq!(decoded(&["br"], &brotli(TEXT)), TEXT);
        assert!(codings(&[]).is_identity() && codings(&["identity", ""]).is_identity());
    }

    #[test]
    fn stacked_codings_are_taken_off_in_reverse() {
        let body = gzip(&zlib(TEXT));
        assert_eq!(decoded(&["deflate, gzip"], &body), TEXT);
        assert_eq!(decoded(&["deflate", "gzip"], &body), TEXT);
        let twice = [gzip(b"{\"a\":"), gzip(b"1}")].concat();
        assert_eq!(decoded(&["gzip"], &twice), b"{\"a\":1}", "members one behind the other");
    }

    #[test]
    fn a_coding_that_is_named_and_not_there_is_left_out() {
        for name in ["gzip", "deflate", "br"] {
            assert_eq!(decoded(&[name], TEXT), TEXT, "{name}");
        }
    }

    #[test]
    fn a_small_body_that_swells_is_cut_at_the_bound() {
        let bomb = gzip(&vec![b' '; 10_000_000]);
        let twice = gzip(&bomb);
        for (names, body) in [(&["gzip"][..], &bomb), (&["gzip, gzip"][..], &twice)] {
            let decoded = codings(names).decode(body, 1000);
            assert_eq!((decoded.end, decoded.bytes.len()), (Err(Spoilt::TooLarge), 1001));
        }
    }

    #[test]
    fn what_broke_off_or_was_damaged_is_distinguished_and_never_taken_for_whole() {
        for (name, body) in
            [("gzip", gzip(TEXT)), ("deflate", zlib(TEXT)), ("deflate", raw_deflate(TEXT))]
        {
            for length in 3..body.len() - 1 {
                let decoded = codings(&[name]).decode(&body[..length], 1000);
                assert_eq!(decoded.end, Err(Spoilt::BrokenOff), "{name} {length}");
                assert!(TEXT.starts_with(&decoded.bytes), "{name} {length}");
            }
        }
        let mut damaged = gzip(TEXT);
        let checksum = damaged.len() - 8;
        damaged[checksum] ^= 1;
        assert_eq!(codings(&["gzip"]).decode(&damaged, 1000).end, Err(Spoilt::Damaged));
    }

    #[test]
    fn a_coding_that_is_not_known_is_reported() {
        for name in ["zstd", "compress", "gzip, aws-chunked", "gzip,gzip,gzip,gzip,gzip"] {
            assert_eq!(Codings::read([name.as_bytes()]), Err(Unknown), "{name}");
        }
    }
}
