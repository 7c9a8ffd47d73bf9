//! Data of a write, from where they are still wanted as far as they have come.

use std::collections::VecDeque;
use std::ops::Range;

use twincell_core::ids::{ATOMIC_BLOCKS, BLOCK_BYTES};

/// Bytes that are kept together: what the array asks for at a time.
pub const CHUNK_BYTES: usize = ATOMIC_BLOCKS as usize * BLOCK_BYTES;

/// Chunks of [`CHUNK_BYTES`], the last one shorter: what is done is given back without moving what is left.
#[derive(Default)]
pub struct Payload {
    /// Where in the write's data the first chunk begins.
    begin: usize,
    chunks: VecDeque<Vec<u8>>,
}

impl Payload {
    /// Where the data that are kept begin, and where what has come ends.
    pub fn range(&self) -> Range<usize> {
        let whole = self.chunks.len().saturating_sub(1) * CHUNK_BYTES;
        self.begin..self.begin + whole + self.chunks.back().map_or(0, Vec::len)
    }

    /// Bytes that are kept.
    pub fn len(&self) -> usize {
        self.range().len()
    }

    /// Appends `bytes`. `chunk` makes an empty one.
    pub fn extend(&mut self, mut bytes: &[u8], mut chunk: impl FnMut() -> Vec<u8>) {
        while !bytes.is_empty() {
            if self.chunks.back().is_none_or(|last| last.len() == CHUNK_BYTES) {
                self.chunks.push_back(chunk());
            }
            let last = self.chunks.back_mut().expect("one with room");
            let (piece, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - last.len()));
            last.extend_from_slice(piece);
            bytes = rest;
        }
    }

    /// The pieces of what is kept of these data, each with where it begins.
    pub fn pieces(&self, wanted: Range<usize>) -> impl Iterator<Item = (usize, &[u8])> {
        let begins = (self.begin..).step_by(CHUNK_BYTES);
        begins.zip(&self.chunks).filter_map(move |(begin, chunk)| {
            let from = wanted.start.max(begin);
            let to = wanted.end.min(begin + chunk.len());
            (from < to).then(|| (from, &chunk[from - begin..to - begin]))
        })
    }

    /// Gives back the chunks that are whole and end before `offset`.
    pub fn drop_before(&mut self, offset: usize) {
        let is_whole = |chunk: &Vec<u8>| chunk.len() == CHUNK_BYTES;
        while self.begin + CHUNK_BYTES <= offset && self.chunks.front().is_some_and(is_whole) {
            self.chunks.pop_front();
            self.begin += CHUNK_BYTES;
        }
    }

    /// The chunks, for others.
    pub fn into_chunks(self) -> impl Iterator<Item = Vec<u8>> {
        self.chunks.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(payload: &Payload, wanted: Range<usize>) -> Vec<u8> {
        payload.pieces(wanted).flat_map(|(_, piece)| piece).copied().collect()
    }

    #[test]
    fn what_is_done_is_given_back_and_the_rest_stays_where_it_was() {
        let data: Vec<u8> = (0..3 * CHUNK_BYTES + 1000).map(|i| (i / 7) as u8).collect();
        let mut payload = Payload::default();
        for piece in data.chunks(50_000) {
            payload.extend(piece, Vec::new);
        }
        assert_eq!(payload.range(), 0..data.len());
        let across = 1000..2 * CHUNK_BYTES + 5;
        assert!(all(&payload, across.clone()) == data[across]);
        payload.drop_before(CHUNK_BYTES - 1);
        assert_eq!(payload.range(), 0..data.len());
        payload.drop_before(2 * CHUNK_BYTES);
        assert_eq!(payload.range(), 2 * CHUNK_BYTES..data.len());
        let rest = 2 * CHUNK_BYTES + 9..data.len() + 10;
        assert!(all(&payload, rest) == data[2 * CHUNK_BYTES + 9..]);
        payload.drop_before(usize::MAX);
        assert_eq!(payload.range(), 3 * CHUNK_BYTES..data.len());
    }
}
