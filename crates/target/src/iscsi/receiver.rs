//! From a stream of bytes to the parts of PDUs. Payload is passed on as it comes and never kept here.

use super::pdu::{BHS_BYTES, Digests, Header, digest};
use twincell_wire::crc32c_append;

/// What has been received next.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The header segments of a PDU; [`Receiver::header`] has the first of them.
    Header,
    /// A piece of its data segment, without padding.
    Payload(&'a [u8]),
    /// The end of the PDU.
    End {
        /// The data digest, if there is one, was right.
        is_intact: bool,
    },
    /// The header digest is wrong, so nobody knows where the next PDU begins.
    HeaderDigestWrong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Bhs,
    Ahs,
    HeaderDigest,
    Payload,
    Padding,
    DataDigest,
    End,
}

/// Cuts the stream of one connection into parts of PDUs.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Which digests are in force.
    pub digests: Digests,
    header: Header,
    awaits: Awaits,
    /// Bytes that are still to come of what is awaited.
    missing: usize,
    crc: u32,
    received_digest: [u8; 4],
    is_intact: bool,
}

impl Receiver {
    /// At the beginning of a connection.
    pub fn new() -> Receiver {
        Receiver {
            digests: Digests::default(),
            header: Header([0; BHS_BYTES]),
            awaits: Awaits::Bhs,
            missing: BHS_BYTES,
            crc: 0,
            received_digest: [0; 4],
            is_intact: true,
        }
    }

    /// The header of the PDU that is being received.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether nothing of the next PDU has come.
    pub fn is_between(&self) -> bool {
        self.awaits == Awaits::Bhs && self.missing == BHS_BYTES
    }

    /// Bytes of a data segment that come next, and need not be seen here.
    pub fn payload_left(&self) -> usize {
        match self.awaits {
            Awaits::Payload if !self.digests.data => self.missing,
            _ => 0,
        }
    }

    /// Goes on as if the next `bytes` bytes, at most `payload_left`, had come.
    pub fn skip_payload(&mut self, bytes: usize) {
        assert!(bytes <= self.payload_left(), "{bytes} bytes that are no payload");
        self.missing -= bytes;
    }

    /// The next part that `bytes` complete; they are removed from the front. `None` when all are used up.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        loop {
            if self.missing > 0 && bytes.is_empty() {
                return None;
            }
            let piece = take(bytes, self.missing);
            let at = self.missing;
            self.missing -= piece.len();
            if let Some(part) = self.absorb(piece, at) {
                return Some(part);
            }
        }
    }

    /// Takes `piece` of what is awaited, of which `missing` bytes were missing before it.
    fn absorb<'a>(&mut self, piece: &'a [u8], missing: usize) -> Option<Part<'a>> {
        let is_whole = self.missing == 0;
        match self.awaits {
            Awaits::Bhs => {
                let from = BHS_BYTES - missing;
                self.header.0[from..from + piece.len()].copy_from_slice(piece);
                if is_whole {
                    self.crc = if self.digests.header {
                        twincell_wire::crc32c(&self.header.0)
                    } else {
                        0
                    };
                    self.expect(Awaits::Ahs, self.header.ahs_bytes());
                }
            }
            Awaits::Ahs => {
                if self.digests.header {
                    self.crc = crc32c_append(self.crc, piece);
                }
                if is_whole {
                    self.expect(Awaits::HeaderDigest, if self.digests.header { 4 } else { 0 });
                }
            }
            Awaits::HeaderDigest => {
                self.keep_digest(piece, missing);
                if is_whole {
                    if self.digests.header && self.received_digest != digest(self.crc) {
                        return Some(Part::HeaderDigestWrong);
                    }
                    self.crc = 0;
                    self.is_intact = true;
                    self.expect(Awaits::Payload, self.header.data_bytes() as usize);
                    return Some(Part::Header);
                }
            }
            Awaits::Payload => {
                self.checksum(piece);
                if is_whole {
                    let bytes = self.header.data_bytes() as usize;
                    self.expect(Awaits::Padding, bytes.next_multiple_of(4) - bytes);
                }
                return (!piece.is_empty()).then_some(Part::Payload(piece));
            }
            Awaits::Padding => {
                self.checksum(piece);
                if is_whole {
                    let has_digest = self.digests.data && self.header.data_bytes() > 0;
                    self.expect(Awaits::DataDigest, if has_digest { 4 } else { 0 });
                }
            }
            Awaits::DataDigest => {
                self.keep_digest(piece, missing);
                if is_whole {
                    let has_digest = self.digests.data && self.header.data_bytes() > 0;
                    self.is_intact = !has_digest || self.received_digest == digest(self.crc);
                    self.expect(Awaits::End, 0);
                }
            }
            Awaits::End => {
                self.expect(Awaits::Bhs, BHS_BYTES);
                return Some(Part::End {
                    is_intact: self.is_intact,
                });
            }
        }
        None
    }

    fn expect(&mut self, awaits: Awaits, bytes: usize) {
        self.awaits = awaits;
        self.missing = bytes;
    }

    fn checksum(&mut self, piece: &[u8]) {
        if self.digests.data {
            self.crc = crc32c_append(self.crc, piece);
        }
    }

    fn keep_digest(&mut self, piece: &[u8], missing: usize) {
        let from = 4 - missing.min(4);
        self.received_digest[from..from + piece.len()].copy_from_slice(piece);
    }
}

/// Removes up to `n` bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, rest) = bytes.split_at(n.min(bytes.len()));
    *bytes = rest;
    head
}

#[cfg(test)]
mod tests {
    use super::super::pdu::{self, FINAL, opcode};
    use super::*;

    fn stream(digests: Digests) -> Vec<u8> {
        let mut out = Vec::new();
        pdu::put(Header::new(opcode::NOP_OUT, FINAL, 1), b"12345", digests, &mut out);
        pdu::put(Header::new(opcode::NOP_OUT, FINAL, 2), b"", digests, &mut out);
        pdu::put(Header::new(opcode::NOP_OUT, FINAL, 3), b"abcd", digests, &mut out);
        out
    }

    /// All that a receiver makes of a stream that comes in pieces of `size` bytes.
    fn received(stream: &[u8], digests: Digests, size: usize) -> Vec<(u32, Vec<u8>, bool)> {
        let mut receiver = Receiver::new();
        receiver.digests = digests;
        let (mut pdus, mut payload) = (Vec::new(), Vec::new());
        for mut piece in stream.chunks(size) {
            while let Some(part) = receiver.next(&mut piece) {
                match part {
                    Part::Header => payload.clear(),
                    Part::Payload(bytes) => payload.extend_from_slice(bytes),
                    Part::End { is_intact } => pdus.push((receiver.header().task_tag(), payload.clone(), is_intact)),
                    Part::HeaderDigestWrong => return pdus,
                }
            }
        }
        pdus
    }

    #[test]
    fn any_split_gives_the_same_pdus() {
        for (header, data) in [(false, false), (true, false), (false, true), (true, true)] {
            let digests = Digests { header, data };
            let stream = stream(digests);
            for size in 1..=stream.len() {
                let expected = [
                    (1, b"12345".to_vec(), true),
                    (2, vec![], true),
                    (3, b"abcd".to_vec(), true),
                ];
                assert_eq!(
                    received(&stream, digests, size),
                    expected,
                    "{digests:?} in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let digests = Digests {
            header: true,
            data: true,
        };
        let whole = stream(digests);
        let mut bad_data = whole.clone();
        bad_data[52] ^= 1;
        assert!(!received(&bad_data, digests, 1000)[0].2);
        let mut bad_header = whole;
        bad_header[20] ^= 1;
        assert!(received(&bad_header, digests, 1000).is_empty());
    }
}
