//! What operators of a busy cell want: LUNs of all sizes, made, used, enlarged, moved, renamed and deleted in a row, and disks
//! replaced. Each LUN is known by the number in its name; under another name, it is the same number and twenty.

use crate::fault::Fault;
use crate::random::Random;
use twincell_core::ids::Controller;

/// Numbers of the LUNs that such operators make.
pub const MADE: std::ops::Range<u16> = 10..14;
/// What a LUN that is renamed has in addition to its number.
pub const RENAMED: u16 = 20;
/// Sizes in blocks, the least of which has all that hosts use: within a PSEG, at its end, and of many.
const SIZES: [u64; 7] = [4500, 4600, 5000, 8192, 8200, 12_288, 20_000];

/// A LUN of this number. Where hosts use only LUNs with two copies, it has two.
pub fn make(number: u16, random: &mut Random, only_redundant: bool) -> Fault {
    let size = SIZES[random.below(SIZES.len() as u64) as usize];
    Fault::MakeLun(number, size, only_redundant || !random.one_in(3))
}

/// One wish.
pub fn draw(random: &mut Random, only_redundant: bool) -> Fault {
    let made = MADE.start + random.below(u64::from(MADE.end - MADE.start)) as u16;
    let number = if random.one_in(8) { made + RENAMED } else { made };
    let any = if random.one_in(4) {
        random.below(2) as u16
    } else {
        number
    };
    let controller = Controller::BOTH[random.below(2) as usize];
    let size = SIZES[random.below(SIZES.len() as u64) as usize];
    match random.below(16) {
        0..=4 => make(number, random, only_redundant),
        5..=6 => Fault::EnlargeLun(number, size + 4096 * random.below(3)),
        7..=9 => Fault::DropLun(number),
        10..=12 => Fault::MoveLun(any, controller),
        13 => Fault::RenameLun(if any < MADE.start { any } else { made }),
        14 => Fault::ReplaceDisk(random.below(4) as usize),
        _ => Fault::Stop(controller),
    }
}
