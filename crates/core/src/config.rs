//! What a controller is told when it starts.

use crate::ids::{Controller, DiskIndex, LUNS_MAX, Nanos, ProcessId, QUORUM_MAX, Uuid};
use crate::list::List;

/// Sizes of the pools. Fixed from start to end; the same on both controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// NV buffers of each of the two segment pairs; a multiple of 64, at least 64.
    pub buffers: u32,
    /// RIEs of each of the two segment pairs; 1 to 4096.
    pub ries: u16,
    /// HTBs: host commands in progress, those of the partner included.
    pub htbs: u16,
    /// Transfer buffers; a quarter of them (at least one) takes forwarded data of the partner. There is one more, after the
    /// last, for what is copied to a disk that is made level.
    pub transfers: u16,
    /// Disk I/Os of the destager in flight at a time.
    pub destages: u16,
}

/// Words of an NCAE.
pub const NCAE_WORDS: u32 = 1;
/// Words of an RIE.
pub const RIE_WORDS: u32 = 3;
/// Words of a BMAE.
pub const BMAE_WORDS: u32 = 2;

impl Geometry {
    /// The geometry that a cache of `bytes` per controller makes: half of it for each segment pair.
    pub fn for_cache(bytes: u64) -> Geometry {
        let buffers = (bytes / crate::ids::BUFFER_BYTES as u64 / 2) as u32 / 64 * 64;
        Geometry {
            buffers: buffers.max(64),
            ries: 256,
            htbs: 512,
            transfers: 64,
            destages: 64,
        }
    }

    /// NV buffers of both pairs.
    pub fn buffers_of_both(&self) -> u32 {
        self.buffers * 2
    }

    /// Words of the NV image: NCA, then RIEs of pair A and B, then the BMA of pair A and B.
    pub fn words(&self) -> u32 {
        LUNS_MAX as u32 * NCAE_WORDS + u32::from(self.ries) * 2 * RIE_WORDS + self.buffers_of_both() * BMAE_WORDS
    }
}

/// Time limits. The same on both controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// Between heartbeats.
    pub heartbeat: Nanos,
    /// A partner that has answered nothing for this long is unreachable.
    pub silence: Nanos,
    /// A path that has answered nothing for this long is given up while another answers.
    pub path_silence: Nanos,
    /// How long a grant or lease lasts (R2).
    pub grant: Nanos,
    /// A controller that restarts in `BOTH` waits this long for its partner before it ballots (R6).
    pub await_partner: Nanos,
    /// A slot heartbeat that has stood still for this long means that the partner does not run (R8).
    pub still: Nanos,
    /// A mirror that waits this long for the data of a write asks what became of them (DTO).
    pub mirror_data: Nanos,
    /// A host that does not send the data of a write for this long loses its connection. Its write holds a range of the
    /// LUN, and while it is under way no LUN is moved and no partner joins.
    pub host_data: Nanos,
    /// A frame that is not acknowledged in this time is sent again.
    pub retransmit: Nanos,
    /// Dirty data are destaged when the cache has been idle for this long.
    pub destage_idle: Nanos,
    /// `clean` is proposed after this long without a write (R7).
    pub clean_idle: Nanos,
    /// A controller that finds itself stopped for longer than this trusts no silence of the partner, and no buffered
    /// host command (R12).
    pub pause: Nanos,
}

impl Timing {
    /// Whoever has hosts or a connection to its partner takes a step at least this often.
    pub(crate) fn wakes_every(&self) -> Nanos {
        Nanos(self.path_silence.0 / 3)
    }

    /// A controller that has taken no step for longer than this was stopped.
    pub(crate) fn stopped(&self) -> Nanos {
        Nanos(self.path_silence.0 / 2)
    }
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat: Nanos::from_millis(250),
            silence: Nanos::from_millis(1500),
            path_silence: Nanos::from_millis(600),
            grant: Nanos::from_millis(2000),
            await_partner: Nanos::from_millis(3000),
            still: Nanos::from_millis(2500),
            mirror_data: Nanos::from_millis(500),
            host_data: Nanos::from_millis(5000),
            retransmit: Nanos::from_millis(200),
            destage_idle: Nanos::from_millis(20),
            clean_idle: Nanos::from_millis(1000),
            pause: Nanos::from_millis(2000),
        }
    }
}

/// What a controller is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Which of the two it is.
    pub controller: Controller,
    /// The cell.
    pub cell: Uuid,
    /// Fresh at each start.
    pub instance: Uuid,
    /// This process.
    pub process: ProcessId,
    /// Fresh at each start; the identity of the NV image if the one at hand is not current.
    pub fresh_image: Uuid,
    /// Sizes of the pools.
    pub geometry: Geometry,
    /// Time limits.
    pub timing: Timing,
    /// Number of disks.
    pub disks: u16,
    /// The disks that vote, as their labels say.
    pub quorum: List<DiskIndex, QUORUM_MAX>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_cache_is_for_each_pair() {
        let geometry = Geometry::for_cache(64 << 20);
        let half = (32 << 20) / crate::ids::BUFFER_BYTES as u32;
        assert_eq!((geometry.buffers, geometry.buffers_of_both()), (half, 2 * half));
        let odd = Geometry::for_cache((64 << 20) + 65 * 2 * crate::ids::BUFFER_BYTES as u64);
        assert_eq!(odd.buffers, half + 64, "whole words of 64");
        assert_eq!(Geometry::for_cache(0).buffers, 64, "the smallest");
    }

    #[test]
    fn each_word_of_nv_memory_is_counted() {
        let geometry = Geometry {
            buffers: 100,
            ries: 10,
            ..Geometry::for_cache(0)
        };
        assert_eq!(geometry.words(), LUNS_MAX as u32 + 60 + 400);
    }
}
