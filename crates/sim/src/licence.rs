//! How long a process may answer hosts, as its own clock and what it has heard tell, whatever its core makes of them (R2).

use twincell_core::ids::Nanos;
use twincell_core::link::frame::Frame;

/// Quorum disks, of which two are a majority.
const QUORUM: usize = 3;

/// What a process has heard that lets it speak, in nanoseconds of its own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Licence {
    /// The end of the longest grant of its partner: counted from when the heartbeat that it answers was sent.
    granted_until: u64,
    /// By quorum disk: when the last read of its slots was submitted that has succeeded.
    read_at: [u64; QUORUM],
}

impl Licence {
    /// A frame has come.
    pub fn hears(&mut self, frame: &Frame) {
        if let Frame::HeartbeatAnswer { sent, grant, .. } = frame
            && *grant > Nanos(0)
        {
            self.granted_until = self.granted_until.max(sent.0 + grant.0);
        }
    }

    /// The slots of a disk were read, by a read that was submitted at `submitted`.
    pub fn has_read(&mut self, disk: usize, submitted: u64) {
        if let Some(at) = self.read_at.get_mut(disk) {
            *at = submitted.max(*at);
        }
    }

    /// The end of the grant.
    pub fn granted_until(&self) -> u64 {
        self.granted_until
    }

    /// When the last round over the quorum disks that a majority has answered began, at the latest.
    pub fn looked_at(&self) -> u64 {
        let mut reads = self.read_at;
        reads.sort_unstable();
        reads[1]
    }
}
