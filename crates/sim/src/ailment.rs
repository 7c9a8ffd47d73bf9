//! What some hardware has for good: the cell has to live with it.

use crate::random::Random;
use twincell_core::ids::{Controller, PSEG_BLOCKS};

/// What a disk, or the link, has. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    // ---- a disk ----
    /// It answers nothing any more.
    Hangs,
    /// It answers with errors.
    Fails,
    /// Writes of data end with errors; some of them land all the same.
    FailsWrites,
    /// Flushes end with errors.
    FailsFlushes,
    /// Reads of data end with errors.
    FailsReads,
    /// Slots cannot be written.
    FailsSlots,
    /// It answers one controller with errors, and the other as ever.
    UnseenBy(Controller),
    /// Whatever it is asked for takes so much longer.
    Slow(u64),
    /// Writes of data end so much later.
    LateWrites(u64),
    /// Flushes do.
    LateFlushes(u64),
    /// Reads of one block of its first PSEG do.
    WeakBlock(u64, u64),
    /// Writes of data to a part of its first PSEG end with errors.
    BadRegion(u64),
    /// A block of its first PSEG cannot be read until it is written anew, and it takes so long to say so.
    BadBlock(u64, u64),

    // ---- the link ----
    /// Some frames are lost, doubled and late.
    Lossy,
    /// Each frame takes so much longer.
    SlowLink(u64),
    /// One path is cut.
    CutPath(usize),
    /// One path carries nothing to this controller.
    DeafPath(usize, Controller),
    /// Of what has data in it one path spoils the data.
    SpoilingPath(usize),
}

impl Ailment {
    /// The names of all.
    pub const NAMES: [&str; 18] = [
        "Hangs",
        "Fails",
        "FailsWrites",
        "FailsFlushes",
        "FailsReads",
        "FailsSlots",
        "UnseenBy",
        "Slow",
        "LateWrites",
        "LateFlushes",
        "WeakBlock",
        "BadRegion",
        "BadBlock",
        "Lossy",
        "SlowLink",
        "CutPath",
        "DeafPath",
        "SpoilingPath",
    ];

    /// One of many. Those of a path leave another one.
    pub fn draw(random: &mut Random, paths: usize) -> Ailment {
        let controller = Controller::BOTH[random.below(2) as usize];
        let path = random.below(2) as usize;
        let late = random.between(100, 6000);
        // Of a PSEG hosts use the beginning or the end, see `hosts.rs`.
        let block = if random.one_in(2) {
            random.below(400)
        } else {
            PSEG_BLOCKS - 1 - random.below(190)
        };
        match random.below(if paths > 1 { 20 } else { 17 }) {
            0..=1 => Ailment::Hangs,
            2 => Ailment::Fails,
            3 => Ailment::FailsWrites,
            4 => Ailment::FailsFlushes,
            5 => Ailment::FailsReads,
            6 => Ailment::FailsSlots,
            7..=8 => Ailment::UnseenBy(controller),
            9 => Ailment::Slow(late / 3),
            10 => Ailment::LateWrites(late),
            11 => Ailment::LateFlushes(late),
            12 => Ailment::WeakBlock(block, late),
            13 => Ailment::BadRegion(block),
            14 => Ailment::BadBlock(block, late),
            15 => Ailment::Lossy,
            16 => Ailment::SlowLink(late / 100),
            17 => Ailment::CutPath(path),
            18 => Ailment::DeafPath(path, controller),
            _ => Ailment::SpoilingPath(path),
        }
    }

    /// Which of the names.
    pub(crate) fn number(self) -> usize {
        let words = format!("{self:?}");
        let name = words.split('(').next().unwrap_or_default();
        let number = Ailment::NAMES.iter().position(|n| *n == name);
        number.expect("each has a name")
    }
}
