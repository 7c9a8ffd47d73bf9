//! Coverage marks: what a batch of seeds has seen at least once. A batch in which one is missing says little about it.

use crate::ailment::Ailment;
use crate::fault::Fault;
use crate::instant::Instant;
use twincell_core::effect::Note;
use twincell_core::host::Status;
use twincell_core::link::frame::{Mfc, Request, Response};
use twincell_core::{Effect, Event};

/// Messages that were handled.
const MFCS: [&str; 25] = [
    "RQR express",
    "RQR long form",
    "RQR over old data",
    "RTR",
    "data",
    "MDA",
    "DTO",
    "DSS",
    "withdraw",
    "release",
    "level RIEs",
    "level lacks some",
    "level buffers",
    "level end",
    "leveled",
    "attach",
    "unfenced",
    "attached",
    "record is",
    "record adopted",
    "leaving",
    "forward",
    "manage",
    "response",
    "response: another owner",
];

fn mfc_number(mfc: &Mfc) -> Option<usize> {
    Some(match mfc {
        Mfc::Rqr(rqr) if !rqr.old.is_empty() => 2,
        Mfc::Rqr(rqr) if rqr.express => 0,
        Mfc::Rqr(_) => 1,
        Mfc::Rtr { .. } => 3,
        Mfc::MirrorData { .. } => 4,
        Mfc::Mda { .. } => 5,
        Mfc::Dto { .. } => 6,
        Mfc::Dss { .. } => 7,
        Mfc::Withdraw { .. } => 8,
        Mfc::Release(_) => 9,
        Mfc::LevelRies(ries) if ries.is_empty() => return None,
        Mfc::LevelRies(_) => 10,
        Mfc::LevelLacks(ries) if ries.is_empty() => return None,
        Mfc::LevelLacks(_) => 11,
        Mfc::LevelBuffers { .. } => 12,
        Mfc::LevelEnd => 13,
        Mfc::Leveled(_) => 14,
        Mfc::Attach { .. } => 15,
        Mfc::Unfenced => 16,
        Mfc::Attached => 17,
        Mfc::RecordIs(_) => 18,
        Mfc::RecordAdopted(_) => 19,
        Mfc::Leaving => 20,
        Mfc::Request {
            request: Request::Forward { .. },
            ..
        } => 21,
        Mfc::Request {
            request: Request::Manage(_),
            ..
        } => 22,
        Mfc::Response {
            response: Response::Forwarded(Status::Transitioning),
            ..
        } => 24,
        Mfc::Response { .. } => 23,
    })
}

/// What controllers did.
const EFFECTS: [&str; 18] = [
    "fresh image",
    "merge",
    "connection of a host ended",
    "link closed",
    "blocks zeroed",
    "metadata written",
    "fence",
    "fence lifted",
    "hosts closed",
    "restart",
    "exit",
    "halt",
    "good",
    "aborted",
    "busy",
    "no such LUN",
    "read error",
    "disk error",
];

fn effect_number(effect: &Effect) -> Option<usize> {
    Some(match effect {
        Effect::NewImage { .. } => 0,
        Effect::Merge { .. } => 1,
        Effect::EndHost { .. } => 2,
        Effect::LinkClose { .. } => 3,
        Effect::DiskZero { .. } => 4,
        Effect::MetadataWrite { .. } => 5,
        Effect::Fence { .. } => 6,
        Effect::Unfence => 7,
        Effect::CloseHosts => 8,
        Effect::Restart => 9,
        Effect::Exit => 10,
        Effect::Halt => 11,
        Effect::Complete { status, .. } => match status {
            Status::Good => 12,
            Status::Aborted => 13,
            Status::Busy => 14,
            Status::NoSuchLun => 15,
            Status::ReadError => 16,
            _ => return None,
        },
        _ => return None,
    })
}

/// What controllers noted.
const NOTES: [&str; 18] = [
    "AwaitsPartner",
    "PartnerUnreachable",
    "BallotBegun",
    "BallotWon",
    "BallotLost",
    "PartnerFenced",
    "Resolved valid",
    "Resolved absorbed",
    "Resolved dropped",
    "Serving mirrored",
    "Serving alone",
    "PartnerJoins",
    "Mirrored",
    "Leveled",
    "Out",
    "AwaitsOperator",
    "DiskFailed",
    "LunMoved",
];

fn note_bits(note: &Note) -> u64 {
    match note {
        Note::Resolved {
            valid,
            absorbed,
            dropped,
        } => {
            let bit = |n: u32, at: u64| u64::from(n > 0) << at;
            bit(*valid, 6) | bit(*absorbed, 7) | bit(*dropped, 8)
        }
        Note::Serving { mirrored } => 1 << if *mirrored { 9 } else { 10 },
        note => {
            let words = format!("{note:?}");
            let name = words.split([' ', '{', '(']).next().unwrap_or_default();
            NOTES.iter().position(|n| *n == name).map_or(0, |n| 1 << n)
        }
    }
}

/// The names of all faults.
const FAULTS: [&str; 59] = [
    "Crash",
    "CrashAfterEffects",
    "CrashBoth",
    "CrashBothAfterEffects",
    "CrashBefore",
    "CrashBothAround",
    "CrashBothThenOne",
    "CrashInRecovery",
    "CrashAfterServing",
    "Pause",
    "PauseBoth",
    "PowerLoss",
    "LoseNv",
    "LoseBothNv",
    "FlipNv",
    "FlipNvAndCrash",
    "ClockRate",
    "ClockJump",
    "CutLink",
    "SilentLink",
    "DeafLink",
    "CutPath",
    "SilentPath",
    "DeafPath",
    "LossyLink",
    "GarbledLink",
    "LoseFrame",
    "DoubleFrame",
    "FailDisk",
    "FailWrites",
    "StallDisk",
    "LoseDisk",
    "BadBlocks",
    "MoveLun",
    "CreateLun",
    "CreateLunAndCrash",
    "GrowLun",
    "RenameLun",
    "DeleteLun",
    "Stop",
    "long pause",
    "long disk failure",
    "MakeLun",
    "EnlargeLun",
    "DropLun",
    "ReplaceDisk",
    "WithdrawAll",
    "FailFlushes",
    "FailReads",
    "FailSlots",
    "LoseSight",
    "LoseSightOfAll",
    "FailAll",
    "StallAll",
    "SpoilingPath",
    "GarbleFrame",
    "AcceptLoss",
    "SlowDisk",
    "BadRegion",
];

fn fault_bits(fault: Fault) -> u64 {
    let words = format!("{fault:?}");
    let name = words.split('(').next().unwrap_or_default();
    let named = FAULTS.iter().position(|n| *n == name).map_or(0, |n| 1 << n);
    let long = match fault {
        Fault::Pause(_, ms) if ms > 6000 => 1 << 40,
        Fault::FailDisk(_, ms) if ms > 8000 => 1 << 41,
        _ => 0,
    };
    named | long
}

/// Places within the core; none where it is built without them.
const CORE: &[&str] = if cfg!(feature = "marks") {
    twincell_core::mark::MARKS
} else {
    &[]
};

/// Which marks were hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    mfcs: u64,
    effects: u64,
    notes: u64,
    faults: u64,
    ailments: u64,
    /// Moments at which a fault was waited for.
    instants: u64,
    /// Of the core; only where it is built with them.
    core: u64,
}

impl Marks {
    pub(crate) fn event(&mut self, event: &Event, mfcs: &[Mfc]) {
        if let Event::DiskDone { result: Err(_), .. } = event {
            self.effects |= 1 << 17;
        }
        for mfc in mfcs {
            self.mfcs |= mfc_number(mfc).map_or(0, |n| 1 << n);
        }
    }

    pub(crate) fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Note(note) => self.notes |= note_bits(note),
            effect => self.effects |= effect_number(effect).map_or(0, |n| 1 << n),
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.faults |= fault_bits(fault);
    }

    /// After all was well: see `aftermath.rs`.
    pub(crate) fn ailment(&mut self, ailment: Ailment) {
        self.ailments |= 1 << ailment.number();
    }

    pub(crate) fn instant(&mut self, instant: Instant) {
        self.instants |= 1 << instant as u32;
    }

    /// Those of the core that were hit in this process, whichever run it was.
    #[cfg(feature = "marks")]
    pub fn add_those_of_the_core(&mut self) {
        self.core |= twincell_core::mark::hits();
    }

    /// Those of another run, too.
    pub fn add(&mut self, other: &Marks) {
        self.mfcs |= other.mfcs;
        self.effects |= other.effects;
        self.notes |= other.notes;
        self.faults |= other.faults;
        self.ailments |= other.ailments;
        self.instants |= other.instants;
        self.core |= other.core;
    }

    /// As one word of text, and from it.
    pub fn to_text(self) -> String {
        let words = [
            self.mfcs,
            self.effects,
            self.notes,
            self.faults,
            self.ailments,
            self.instants,
            self.core,
        ];
        words.map(|w| format!("{w:x}")).join("-")
    }

    /// From what `to_text` gives.
    pub fn from_text(text: &str) -> Option<Marks> {
        let mut words = text.split('-').map(|w| u64::from_str_radix(w, 16));
        let mut next = || words.next()?.ok();
        Some(Marks {
            mfcs: next()?,
            effects: next()?,
            notes: next()?,
            faults: next()?,
            ailments: next()?,
            instants: next()?,
            core: next()?,
        })
    }

    /// The marks that were not hit.
    pub fn missing(&self) -> Vec<String> {
        let of = |names: &'static [&'static str], bits: u64| {
            let named = names.iter().enumerate();
            let missing = named.filter(move |(n, _)| bits >> n & 1 == 0);
            missing.map(|(_, name)| (*name).to_owned())
        };
        let instants = Instant::ALL.iter().filter(|i| self.instants >> **i as u32 & 1 == 0);
        let instants = instants.map(|i| format!("{i:?}"));
        of(&MFCS, self.mfcs)
            .chain(of(&EFFECTS, self.effects))
            .chain(of(&NOTES, self.notes))
            .chain(of(&FAULTS, self.faults))
            .chain(of(&Ailment::NAMES, self.ailments))
            .chain(of(CORE, self.core))
            .chain(instants)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::random::Random;

    #[test]
    fn every_fault_that_is_drawn_has_a_mark_and_every_mark_a_fault() {
        let mut marks = Marks::default();
        for seed in 0..20_000 {
            let Plan { faults, triggers, .. } = Plan::of_seed(seed);
            let triggered = triggers.into_iter().map(|t| t.fault);
            for fault in faults.into_iter().map(|(_, fault)| fault).chain(triggered) {
                assert_ne!(fault_bits(fault), 0, "{fault:?}");
                marks.fault(fault);
            }
        }
        assert_eq!(marks.faults, (1 << FAULTS.len()) - 1, "{:?}", marks.missing());
    }

    #[test]
    fn every_ailment_is_drawn_and_has_a_mark() {
        let (mut marks, mut random) = (Marks::default(), Random::new(1));
        (0..1000).for_each(|_| marks.ailment(Ailment::draw(&mut random, 2)));
        assert_eq!(marks.ailments, (1 << Ailment::NAMES.len()) - 1);
    }

    #[test]
    fn marks_come_back_from_text() {
        let mut marks = Marks::default();
        marks.fault(Fault::CrashBoth);
        marks.effect(&Effect::Serve);
        marks.effect(&Effect::Restart);
        assert_eq!(Marks::from_text(&marks.to_text()), Some(marks));
        assert_eq!(Marks::from_text("1-2-x-4-5-6-7"), None);
        assert!(!marks.missing().contains(&"restart".into()) && marks.missing().contains(&"halt".into()));
    }
}
