//! Which mutant is switched on: `TWINCELL_SCHEMA=N`. With `TWINCELL_SCHEMA=record` none is, and the number of every place
//! that the program comes to is written to the file `TWINCELL_SCHEMA_REACHED`, once.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Numbers of mutants are below this.
const PLACES: usize = 1 << 16;
/// No mutant is on, and the places are written down.
const RECORD: u32 = u32::MAX - 1;
/// Nobody has asked yet.
const UNREAD: u32 = u32::MAX;

static ACTIVE: AtomicU32 = AtomicU32::new(UNREAD);
static REACHED: [AtomicBool; PLACES] = [const { AtomicBool::new(false) }; PLACES];
static RECORD_FILE: OnceLock<File> = OnceLock::new();

/// The mutant that is on, for the place `place`.
#[inline(always)]
pub(crate) fn at(place: u32) -> u32 {
    let active = ACTIVE.load(Ordering::Relaxed);
    if active < RECORD { active } else { first_or_recorded(place) }
}

/// Whether one of these mutants may be on: all of those of a function, which otherwise runs as it was written.
#[inline(always)]
pub(crate) fn within(first: u32, last: u32) -> bool {
    let active = ACTIVE.load(Ordering::Relaxed);
    // Whoever records has to come to the places.
    (first <= active && active <= last) || active >= RECORD
}

/// Whether the mutant `number` is on; for a place that has only this one.
#[inline(always)]
pub(crate) fn is(number: u32) -> bool {
    at(number) == number
}

#[inline(never)]
fn first_or_recorded(place: u32) -> u32 {
    if ACTIVE.load(Ordering::Relaxed) == UNREAD {
        let told = std::env::var("TWINCELL_SCHEMA").unwrap_or_default();
        let active = match told.as_str() {
            "" => 0,
            "record" => RECORD,
            number => number.parse().expect("TWINCELL_SCHEMA is the number of a mutant"),
        };
        ACTIVE.store(active, Ordering::Relaxed);
    }
    match ACTIVE.load(Ordering::Relaxed) {
        RECORD => {
            record(place);
            0
        }
        active => active,
    }
}

fn record(place: u32) {
    let reached = &REACHED[place as usize];
    if reached.load(Ordering::Relaxed) || reached.swap(true, Ordering::Relaxed) {
        return;
    }
    let mut file = RECORD_FILE.get_or_init(|| {
        let path = std::env::var("TWINCELL_SCHEMA_REACHED").expect("the file for the places");
        File::options().append(true).create(true).open(path).expect("the file for the places")
    });
    file.write_all(&place.to_le_bytes()).expect("the file for the places");
}

/// What a function that returns `impl Iterator` returns: what it says, or what a mutant says instead.
pub(crate) enum Either<'a, I: Iterator> {
    /// What it says.
    Own(I),
    /// What a mutant says.
    Other(Box<dyn Iterator<Item = I::Item> + 'a>),
}

impl<I: Iterator> Iterator for Either<'_, I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        match self {
            Either::Own(i) => i.next(),
            Either::Other(i) => i.next(),
        }
    }
}
