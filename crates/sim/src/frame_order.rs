//! The oracle of the link: within one connection each controller numbers its frames one after the other, says the same
//! whenever it sends one again, and acknowledges what has arrived in order, no more, and never less than before. And the
//! oracle of pacing: no more data than the bound are on their way at any time, so no more ever stand before a frame without.

use crate::digest::Digest;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use twincell_core::ids::{ATOMIC_GRANULES, BUFFER_BLOCKS};
use twincell_core::link::frame::{Frame, Mfc};
use twincell_core::link::{PACE_BLOCKS, WINDOW};

/// Most blocks of data on their way in one direction, each frame counted once: what pacing lets be so, and those of the
/// frame that leaves then.
const BLOCKS_AHEAD_MAX: u32 = PACE_BLOCKS - 1 + ATOMIC_GRANULES as u32 * BUFFER_BLOCKS;

fn digest_of(what: &(impl Hash + ?Sized)) -> u64 {
    let mut digest = Digest::default();
    what.hash(&mut digest);
    digest.finish()
}

/// One direction of a connection.
#[derive(Clone, Debug, Default)]
struct Direction {
    /// The number of the first frame, and what the frames from there on say, as digests.
    first: Option<u32>,
    sent: Vec<u64>,
    /// Blocks of data in each of them, and what the data are, as digests.
    blocks: Vec<u32>,
    data: Vec<u64>,
    /// How many frames from the first on have arrived without a gap, and what arrived beyond a gap.
    arrived: u32,
    beyond: VecDeque<u32>,
    /// How many the receiver has acknowledged.
    acknowledged: u32,
}

/// Both directions of a connection; by the controller that sends.
#[derive(Clone, Debug, Default)]
pub struct FrameOrder {
    directions: [Direction; 2],
}

impl FrameOrder {
    /// Controller number `from` sends a frame, with these blocks of data.
    /// Returns whether it is the first time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn send(&mut self, from: usize, frame: &Frame, mfcs: &[Mfc], payload: &[u64]) -> Result<bool, String> {
        let mut is_new = false;
        match frame {
            Frame::Messages(sequenced) => {
                is_new = self.directions[from].send(sequenced.sequence, mfcs, payload)?;
                self.directions[1 - from].acknowledge(sequenced.acknowledged)?;
            }
            Frame::Ack { acknowledged, .. } => self.directions[1 - from].acknowledge(*acknowledged)?,
            _ => {}
        }
        Ok(is_new)
    }

    /// A frame of controller number `from` has arrived.
    pub fn arrive(&mut self, from: usize, frame: &Frame) {
        if let Frame::Messages(sequenced) = frame {
            self.directions[from].arrive(sequenced.sequence);
        }
    }
}

impl Direction {
    fn send(&mut self, sequence: u32, mfcs: &[Mfc], payload: &[u64]) -> Result<bool, String> {
        let (says, data) = (digest_of(mfcs), digest_of(payload));
        let first = *self.first.get_or_insert(sequence);
        let number = sequence.wrapping_sub(first) as usize;
        match self.sent.get(number) {
            // Once the data have arrived their memory may be used again.
            Some(said) if *said == says && self.data[number] != data && !self.has_arrived(number as u32) => {
                Err(format!("frame {sequence} has other data than before"))
            }
            Some(said) if *said == says => Ok(false),
            Some(_) => Err(format!("frame {} says something else than before", sequence)),
            None if number == self.sent.len() => {
                self.sent.push(says);
                self.blocks.push(payload.len() as u32);
                self.data.push(data);
                let ahead: u32 = self.blocks[self.arrived as usize..].iter().sum();
                if ahead > BLOCKS_AHEAD_MAX {
                    return Err(format!(
                        "{ahead} blocks of data are on their way: more than pacing allows"
                    ));
                }
                let in_flight = self.sent.len() - self.acknowledged as usize;
                if in_flight > WINDOW {
                    return Err(format!("{in_flight} frames in flight: more than the window"));
                }
                Ok(true)
            }
            None => Err(format!("frame {} is sent before the one before it", sequence)),
        }
    }

    fn has_arrived(&self, number: u32) -> bool {
        number < self.arrived || self.beyond.contains(&number)
    }

    fn arrive(&mut self, sequence: u32) {
        let number = sequence.wrapping_sub(self.first.unwrap_or(sequence));
        if !self.has_arrived(number) {
            self.beyond.push_back(number);
        }
        while let Some(at) = self.beyond.iter().position(|n| *n == self.arrived) {
            self.beyond.swap_remove_back(at);
            self.arrived += 1;
        }
    }

    fn acknowledge(&mut self, sequence: u32) -> Result<(), String> {
        let Some(first) = self.first else { return Ok(()) };
        let number = sequence.wrapping_sub(first);
        if number > self.arrived {
            return Err(format!(
                "frame {sequence} was not received, and is acknowledged with all before it"
            ));
        }
        if number < self.acknowledged {
            return Err(format!("frame {sequence} was acknowledged before, and is not any more"));
        }
        self.acknowledged = number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twincell_core::ids::Incarnation;
    use twincell_core::link::frame::Sequenced;

    fn frame(sequence: u32, acknowledged: u32) -> Frame {
        Frame::Messages(Sequenced {
            incarnation: Incarnation(1),
            sequence,
            acknowledged,
        })
    }

    #[test]
    fn order_and_acknowledgement_across_the_wrap() {
        let mut order = FrameOrder::default();
        let (last, next) = (frame(u32::MAX, 0), frame(0, 0));
        order.send(0, &last, &[Mfc::LevelEnd], &[]).expect("the first");
        order.send(0, &next, &[Mfc::Attached], &[]).expect("the next");
        order.arrive(0, &next);
        let answer = [Mfc::LevelEnd];
        assert!(
            order.send(1, &frame(0, 1), &answer, &[]).is_err(),
            "the first has not arrived"
        );
        order.arrive(0, &last);
        order.send(1, &frame(0, 1), &answer, &[]).expect("both have arrived");
        assert!(
            order.send(1, &frame(1, 0), &answer, &[]).is_err(),
            "an acknowledgement taken back"
        );
        order.send(0, &next, &[Mfc::Attached], &[]).expect("sent again");
        assert!(
            order.send(0, &next, &[Mfc::Leaving], &[]).is_err(),
            "says something else"
        );
        assert!(order.send(0, &frame(3, 0), &[Mfc::Leaving], &[]).is_err(), "a gap");
    }

    #[test]
    fn data_on_their_way_are_bounded() {
        let mut order = FrameOrder::default();
        let largest = ATOMIC_GRANULES as u32 * BUFFER_BLOCKS;
        let send = |order: &mut FrameOrder, n, blocks: u32| {
            order.send(0, &frame(n, 0), &[Mfc::LevelEnd], &vec![1; blocks as usize])
        };
        send(&mut order, 0, PACE_BLOCKS - 1).expect("just not yet paced");
        send(&mut order, 1, largest).expect("one more frame");
        send(&mut order, 1, largest).expect("sent again: it counts once");
        order.arrive(0, &frame(0, 0));
        send(&mut order, 2, PACE_BLOCKS - 1).expect("the first has arrived");
        send(&mut order, 3, 0).expect("no data");
        assert!(send(&mut order, 4, 1).is_err(), "one block too many");
    }

    #[test]
    fn data_that_are_sent_again_are_the_same_until_they_have_arrived() {
        let mut order = FrameOrder::default();
        let send = |order: &mut FrameOrder, data| order.send(0, &frame(7, 0), &[Mfc::LevelEnd], &[data]);
        send(&mut order, 1).expect("the first");
        assert!(send(&mut order, 2).is_err(), "other data");
        order.arrive(0, &frame(7, 0));
        send(&mut order, 2).expect("nobody takes them any more");
    }
}
