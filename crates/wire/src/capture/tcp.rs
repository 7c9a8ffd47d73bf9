//! What each direction of each TCP connection has carried, put together from its segments.

use super::pcap::Segment;
use super::{Direction, Found, What, first_frame, read_frames};
use std::net::SocketAddr;
use std::time::Duration;

/// The directions, in order of their first segment.
#[derive(Default)]
pub(super) struct Directions<'a>(Vec<Pieces<'a>>);

/// What was captured of one direction.
pub(super) struct Pieces<'a> {
    ends: (SocketAddr, SocketAddr),
    /// Its beginning was captured.
    from_the_beginning: bool,
    /// The sequence number of the last piece, and what that is as an offset: sequence numbers wrap.
    last: (u32, i64),
    /// Offset, bytes, and when they came.
    pieces: Vec<(i64, &'a [u8], Duration)>,
}

impl<'a> Directions<'a> {
    pub(super) fn add(&mut self, segment: Segment<'a>) {
        let ends = (segment.from, segment.to);
        let known = self.0.iter_mut().rev().find(|d| d.ends == ends);
        let known = known.filter(|d| !segment.begins || d.pieces.is_empty());
        match known {
            Some(direction) if !segment.begins => direction.add(&segment),
            // A connection is often asked for more than once.
            Some(direction) => direction.last = (segment.sequence.wrapping_add(1), 0),
            None => {
                let first = segment.sequence.wrapping_add(u32::from(segment.begins));
                let mut direction = Pieces {
                    ends,
                    from_the_beginning: segment.begins,
                    last: (first, 0),
                    pieces: Vec::new(),
                };
                if !segment.begins {
                    direction.add(&segment);
                }
                self.0.push(direction);
            }
        }
    }
}

impl<'a> IntoIterator for Directions<'a> {
    type Item = Pieces<'a>;
    type IntoIter = std::vec::IntoIter<Pieces<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> Pieces<'a> {
    fn add(&mut self, segment: &Segment<'a>) {
        if segment.data.is_empty() {
            return;
        }
        let (sequence, offset) = self.last;
        let offset = offset + i64::from(segment.sequence.wrapping_sub(sequence) as i32);
        self.last = (segment.sequence, offset);
        self.pieces.push((offset, segment.data, segment.time));
    }

    /// The frames in it.
    pub(super) fn read(mut self) -> Direction {
        self.pieces.sort_by_key(|(offset, ..)| *offset);
        let mut found = Vec::new();
        let mut run = Run::default();
        let mut aligned = self.from_the_beginning;
        for (offset, data, time) in &self.pieces {
            // What was sent again is there already; what is before the beginning is not wanted.
            let Ok(offset) = u64::try_from(*offset) else { continue };
            let have = run.start + run.bytes.len() as u64;
            if offset > have {
                run.read(aligned, &mut found);
                found.push(Found {
                    bytes: have..offset,
                    time: *time,
                    what: What::Lost,
                });
                aligned = false;
                run = Run {
                    start: offset,
                    ..Run::default()
                };
            }
            let have = run.start + run.bytes.len() as u64;
            let new = usize::try_from(have - offset).ok().and_then(|n| data.get(n..));
            run.add(new.unwrap_or(&[]), *time);
        }
        run.read(aligned, &mut found);
        Direction {
            ends: Some(self.ends),
            found,
        }
    }
}

/// Bytes of a direction without a gap.
#[derive(Default)]
struct Run {
    start: u64,
    bytes: Vec<u8>,
    /// Up to which byte came when.
    times: Vec<(usize, Duration)>,
}

impl Run {
    fn add(&mut self, bytes: &[u8], time: Duration) {
        if !bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
            self.times.push((self.bytes.len(), time));
        }
    }

    /// Appends what is in it. `aligned`: it begins with a frame, or should.
    fn read(&self, aligned: bool, found: &mut Vec<Found>) {
        let skip = if aligned { 0 } else { first_frame(&self.bytes) };
        let time = |n: usize| {
            let piece = self.times.partition_point(|(end, _)| *end <= n);
            self.times[piece].1
        };
        if skip > 0 {
            found.push(Found {
                bytes: self.start..self.start + skip as u64,
                time: time(skip - 1),
                what: What::Skipped,
            });
        }
        let times = |n: usize| time(skip + n);
        read_frames(&self.bytes[skip..], self.start + skip as u64, &times, found);
    }
}
