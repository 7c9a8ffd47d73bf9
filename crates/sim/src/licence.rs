//! How long a process may answer hosts, as its own clock and what it has heard tell, whatever its core makes of them (R2).

use twincell_core::ids::{DiskIndex, Nanos, QUORUM_MAX};
use twincell_core::link::frame::Frame;
use twincell_core::list::List;

/// What a process has heard that lets it speak, in nanoseconds of its own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Licence {
    /// The partner's process, and the end of its longest grant: counted from when the heartbeat that it answers was sent.
    partner: u32,
    granted_until: u64,
    /// The disks that vote.
    voters: List<DiskIndex, QUORUM_MAX>,
    /// By voter: when the last write of the own slot was submitted that has succeeded.
    written_at: [u64; QUORUM_MAX],
    /// By voter: the same, of the last write after which the slots were read.
    looked_at: [u64; QUORUM_MAX],
}

impl Licence {
    /// Nothing was heard yet; these disks vote.
    pub fn new(voters: &[DiskIndex]) -> Licence {
        Licence {
            voters: List::from_slice(voters),
            ..Licence::default()
        }
    }

    /// A frame of a process of the partner has come. What another process of it had granted does not count any more.
    pub fn hears(&mut self, process: u32, frame: &Frame) {
        if process > self.partner {
            (self.partner, self.granted_until) = (process, 0);
        }
        if let Frame::HeartbeatAnswer { sent, grant, .. } = frame
            && *grant > Nanos(0)
        {
            self.granted_until = self.granted_until.max(sent.0 + grant.0);
        }
    }

    fn voter(&self, disk: usize) -> Option<usize> {
        self.voters.iter().position(|d| d.index() == disk)
    }

    /// The own slot was written to a disk, by a write that was submitted at `submitted`.
    pub fn has_written(&mut self, disk: usize, submitted: u64) {
        if let Some(n) = self.voter(disk) {
            self.written_at[n] = submitted.max(self.written_at[n]);
        }
    }

    /// The slots of a disk were read, by a read that was submitted at `submitted`: a lease counts from the write before it, which
    /// has shown that the process is alive.
    pub fn has_read(&mut self, disk: usize, submitted: u64) {
        if let Some(n) = self.voter(disk) {
            self.looked_at[n] = self.written_at[n].min(submitted).max(self.looked_at[n]);
        }
    }

    /// The end of the grant.
    pub fn granted_until(&self) -> u64 {
        self.granted_until
    }

    /// When the last round over the quorum disks that a majority has answered began, at the latest.
    pub fn looked_at(&self) -> u64 {
        let mut rounds = self.looked_at;
        let rounds = &mut rounds[..self.voters.len()];
        rounds.sort_unstable();
        rounds[rounds.len() / 2]
    }
}
