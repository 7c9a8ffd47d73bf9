//! The names of things: every index and number of the core is a type of its own, so that none is taken for
//! another (DESIGN section 1, rule 4).

use std::fmt;

/// Bytes in one block, the unit of a LUN's addresses.
pub const BLOCK_BYTES: usize = 512;
/// Blocks in one NV buffer, and in one *granule*: the aligned piece of a LUN that a buffer can hold.
pub const BUFFER_BLOCKS: u32 = 8;
/// Bytes in one NV buffer.
pub const BUFFER_BYTES: usize = BLOCK_BYTES * BUFFER_BLOCKS as usize;
/// The atomic write size [0091]: a write of this many blocks or fewer is absorbed whole or not at all.
pub const ATOMIC_BLOCKS: u32 = if cfg!(feature = "model") { 16 } else { 256 };
/// The most granules that a write of [`ATOMIC_BLOCKS`] can touch: one more when it is not aligned.
pub const ATOMIC_GRANULES: usize = (ATOMIC_BLOCKS / BUFFER_BLOCKS) as usize + 1;
/// Blocks in one PSEG: 4,096 sectors, 2 MiB [0050].
pub const PSEG_BLOCKS: u64 = 4096;
/// Blocks at the beginning of each disk that are not PSEGs: the quorum space [0038], 8 MiB.
pub const QUORUM_SPACE_BLOCKS: u64 = 4 * PSEG_BLOCKS;
/// Most LUNs in one cell: the owner of each is one bit of the membership record.
pub const LUNS_MAX: usize = if cfg!(feature = "model") { 64 } else { 1024 };
/// Most disks of the quorum set.
pub const QUORUM_MAX: usize = 5;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// As an index into an array.
            pub fn index(self) -> usize {
                self.0 as usize
            }

            /// The one after it.
            #[must_use]
            pub fn next(self) -> Self {
                $name(self.0 + 1)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(/** Number of a change of the membership record. */ Epoch(u64));
number!(/** Number of a (re)establishment of the link. */ Incarnation(u32));
number!(/** A link connection, numbered by the engine; never used again in one process. */ ConnectionId(u64));
number!(/** Names a virtual disk (SCVD) for ever: never given twice in one cell. The seed's NOID [0093]. */ Noid(u32));
number!(/** A LUN's place in the NOID correlation array [0093], and the logical unit number that hosts see. */ NcaeIndex(u16));
number!(/** A block address on a LUN. */ Vba(u64));
number!(/** A number of blocks. */ BlockCount(u32));
number!(/** One NV buffer. The same number names its twin on the other controller [0054]. */ BufferIndex(u32));
number!(/** One write in progress; the same number names the mirror RIE and the MNODE [0070]. */ RieIndex(u16));
number!(/** Counts the uses of an RIE, so that a late message for an earlier use is known; wraps. */ RieGeneration(u16));
number!(/** The context of one host command (Host Transfer Block) [0079]. */ HtbIndex(u16));
number!(/** A piece of volatile memory that reads and forwarded data pass through. */ TransferIndex(u16));
number!(/** A disk of the cell. */ DiskIndex(u16));
number!(/** A physical segment of a disk [0050]; 0 is the first after the quorum space. */ PsegIndex(u32));
number!(/** A redundant store set [0035]. */ RssIndex(u16));
number!(/** A word of the NV image. */ NvAddress(u32));
number!(/** A request of an operator, numbered by whoever asks. */ RequestId(u64));

/// One of the two controllers (NSC) of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// Target portal group 1.
    A,
    /// Target portal group 2.
    B,
}

impl Controller {
    /// Both, in order.
    pub const BOTH: [Controller; 2] = [Controller::A, Controller::B];

    /// The partner.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Controller::A => Controller::B,
            Controller::B => Controller::A,
        }
    }

    /// 0 for A, 1 for B.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Controller::A => "A",
            Controller::B => "B",
        })
    }
}

/// 128 bits that are unique in the world. All zero means "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub u128);

impl Uuid {
    /// No identity.
    pub const NIL: Uuid = Uuid(0);

    /// Whether this is no identity at all.
    pub fn is_nil(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let x = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            x >> 96,
            (x >> 80) & 0xffff,
            (x >> 64) & 0xffff,
            (x >> 48) & 0xffff,
            x & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A moment: nanoseconds of a clock that never steps and also runs while the machine is suspended
/// (`CLOCK_BOOTTIME`). Only differences mean anything, and only on one controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[cfg_attr(not(feature = "model"), derive(Hash))]
pub struct Time(pub u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    /// `us` microseconds.
    pub const fn from_micros(us: u64) -> Nanos {
        Nanos(us * 1_000)
    }
}

impl std::ops::Add<Nanos> for Time {
    type Output = Time;

    fn add(self, d: Nanos) -> Time {
        Time(self.0 + d.0)
    }
}

impl Time {
    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Time) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A host command as the engine names it; the core only hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CommandId {
    /// The engine's index.
    pub index: u32,
    /// Counts the uses of the index.
    pub generation: u32,
}

/// A disk I/O in flight, named by the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct IoId {
    /// The core's index.
    pub index: u32,
    /// Counts the uses of the index.
    pub generation: u32,
}

/// Which process a controller is, as far as another process on the same machine can tell (R5). All zero where unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ProcessId {
    /// The kernel's boot id.
    pub boot: Uuid,
    /// The inode of the PID namespace: a pid means something only inside it.
    pub pid_namespace: u64,
    /// The pid.
    pub pid: u32,
    /// When the process started, in the kernel's clock ticks: a pid is used again, this is not.
    pub start_time: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_told_as_people_write_them() {
        assert_eq!(format!("{} {}", Controller::A, Controller::B), "A B");
        let uuid = Uuid(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        assert_eq!(
            format!("{uuid} {uuid:?}"),
            "00112233-4455-6677-8899-aabbccddeeff 00112233-4455-6677-8899-aabbccddeeff"
        );
        assert!(Uuid::NIL.is_nil() && !uuid.is_nil());
    }

    #[test]
    fn times_are_nanoseconds() {
        assert_eq!(Nanos::from_millis(3), Nanos(3_000_000));
        assert_eq!(Nanos::from_micros(3), Nanos(3_000));
        assert_eq!((Time(5) + Nanos(2)).since(Time(4)), Nanos(3));
        assert_eq!(Time(4).since(Time(5)), Nanos(0));
    }
}
