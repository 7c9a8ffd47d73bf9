//! Faults that come at a moment in what a controller does, not at a time.

use crate::fault::Fault;
use crate::instant::Instant;
use crate::random::Random;
use twincell_core::ids::Controller;

/// A fault that waits for its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trigger {
    /// Which moment.
    pub at: Instant,
    /// At which controller.
    pub of: Controller,
    /// It waits from this time on, in nanoseconds after the beginning.
    pub from: u64,
    /// So many such moments go by before.
    pub skip: u32,
    /// It comes at so many of them.
    pub times: u32,
    /// The fault comes at most so many nanoseconds after it.
    pub within: u64,
    /// What comes.
    pub fault: Fault,
}

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

impl Trigger {
    /// Some that wait for one moment, in a run whose other faults have come at `end`; `fault` draws what comes, `wish` what
    /// operators want.
    pub fn draw(
        random: &mut Random,
        end: u64,
        mut fault: impl FnMut(&mut Random) -> Fault,
        mut wish: impl FnMut(&mut Random) -> Fault,
    ) -> Vec<Trigger> {
        let at = Instant::ALL[random.below(Instant::ALL.len() as u64) as usize];
        let of = Controller::BOTH[random.below(2) as usize];
        let from = if random.one_in(4) { 0 } else { random.below(end + 1) };
        let skip = match random.below(4) {
            0..=1 => 0,
            2 => random.below(3) as u32,
            _ => random.below(12) as u32,
        };
        let only_wishes = random.one_in(3);
        let count = if only_wishes {
            random.between(2, 5)
        } else {
            random.between(1, 2)
        };
        let one = |_| Trigger {
            at,
            of,
            from,
            skip,
            times: if random.one_in(4) {
                random.between(2, 4) as u32
            } else {
                1
            },
            within: match random.below(6) {
                0..=1 => 0,
                2 => 100 * US,
                3 => 2 * MS,
                4 => 20 * MS,
                _ => 2000 * MS,
            },
            fault: if only_wishes { wish(random) } else { fault(random) },
        };
        (0..count).map(one).collect()
    }
}
