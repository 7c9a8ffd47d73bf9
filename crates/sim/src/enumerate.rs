//! Every single fault at every event of the canonical scenarios, and at every effect, which is at every store to NV
//! memory; and pairs of faults.

use crate::fault::Fault;
use crate::play::{Play, Script, scripts};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use twincell_core::ids::Controller::{self, A, B};

/// What comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// A fault before the event.
    Fault(Fault),
    /// The process ends after so many effects of the event.
    EndsAfter(Controller, u32),
    /// The same, and the partner's process ends at once, too.
    BothEndAfter(Controller, u32),
}

impl Injection {
    fn into(self, play: &mut Play) {
        match self {
            Injection::Fault(fault) => play.world.inject(fault),
            Injection::EndsAfter(c, effects) => play.world.crash_after(c, effects, false),
            Injection::BothEndAfter(c, effects) => play.world.crash_after(c, effects, true),
        }
    }
}

/// Where it comes: the number of the event since the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The event.
    pub event: u32,
    /// What comes there.
    pub injection: Injection,
}

impl Moment {
    /// From what `Display` says: `12:f7` is fault 7 of [`faults`] before event 12; `12:A3` ends A after three effects of
    /// it, and `12:A3+` its partner, too.
    pub fn parse(text: &str) -> Option<Moment> {
        let (event, injection) = text.split_once(':')?;
        let event = event.parse().ok()?;
        let (kind, rest) = injection.split_at_checked(1)?;
        let number = rest.trim_end_matches('+').parse::<u32>().ok()?;
        let injection = match (kind, rest.ends_with('+')) {
            ("f", false) => Injection::Fault(*faults().get(number as usize)?),
            ("A", false) => Injection::EndsAfter(A, number),
            ("B", false) => Injection::EndsAfter(B, number),
            ("A", true) => Injection::BothEndAfter(A, number),
            ("B", true) => Injection::BothEndAfter(B, number),
            _ => return None,
        };
        Some(Moment { event, injection })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event;
        match self.injection {
            Injection::Fault(fault) => match faults().iter().position(|f| *f == fault) {
                Some(n) => write!(f, "{event}:f{n}"),
                None => write!(f, "{event}:{fault:?}"),
            },
            Injection::EndsAfter(c, n) => write!(f, "{event}:{c}{n}"),
            Injection::BothEndAfter(c, n) => write!(f, "{event}:{c}{n}+"),
        }
    }
}

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Found {
    /// The scenario.
    pub script: &'static str,
    /// The faults, in order; a second event counts from the first on.
    pub moments: Vec<Moment>,
    /// What the oracle said.
    pub what: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.script)?;
        self.moments.iter().try_for_each(|m| write!(f, " {m}"))?;
        for Moment { event, injection } in &self.moments {
            write!(f, "; event {event}: {injection:?}")?;
        }
        write!(f, "\n    {}", self.what)
    }
}

/// Every single fault that is tried at each event. Those with a duration come in lengths on both sides of the limits that
/// the controllers go by: how long a partner may be silent, and how long a controller may be stopped.
pub fn faults() -> Vec<Fault> {
    let mut all = vec![
        Fault::CrashBoth,
        Fault::PowerLoss,
        Fault::CutLink(10),
        Fault::CutLink(4000),
        Fault::SilentLink(500),
        Fault::SilentLink(4000),
        Fault::WithdrawAll,
        Fault::CreateLun,
    ];
    for c in Controller::BOTH {
        all.extend([
            Fault::Crash(c),
            Fault::LoseNv(c),
            Fault::FlipNvAndCrash(c, 64 * 3 + 9),
            Fault::Pause(c, 1000),
            Fault::Pause(c, 1800),
            Fault::Pause(c, 8000),
            Fault::ClockJump(c, 3000),
            Fault::DeafLink(c, 4000),
            Fault::LoseFrame(c),
            Fault::DoubleFrame(c),
            Fault::GarbleFrame(c),
            Fault::Stop(c),
            Fault::MoveLun(0, c),
        ]);
    }
    for disk in 0..3 {
        all.extend([
            Fault::FailDisk(disk, 300),
            Fault::FailWrites(disk, 300),
            Fault::StallDisk(disk, 2500),
        ]);
    }
    all.extend([
        Fault::LoseDisk(0),
        Fault::LoseDisk(1),
        Fault::LoseDisk(2),
        Fault::BadBlocks(0, 0, 16),
        // Those of a time after which a path, or both controllers, are not what they were.
        Fault::PauseBoth(1450, 1450),
        Fault::LossyLink(300),
        Fault::GarbledLink(300),
        Fault::CutPath(0, 300),
        Fault::CutPath(1, 300),
        Fault::SilentPath(0, 2000),
        Fault::DeafPath(0, A, 2000),
        Fault::DeafPath(0, B, 2000),
        Fault::SpoilingPath(0, 2000),
        Fault::FailFlushes(0, 300),
        Fault::FailReads(0, 300),
        Fault::FailSlots(0, 300),
        Fault::FailAll(300),
        Fault::StallAll(1000),
        Fault::RenameLun(0),
        Fault::SlowDisk(0, 1500, 4000),
        Fault::BadRegion(0, 0, 2000),
    ]);
    for c in Controller::BOTH {
        all.extend([
            Fault::LoseSight(c, 0, 500),
            Fault::LoseSightOfAll(c, 500),
            Fault::ClockRate(c, 1050),
            Fault::AcceptLoss(c),
        ]);
    }
    all
}

/// The faults that are tried in pairs: those after which there is something to repair.
pub fn faults_for_pairs() -> Vec<Fault> {
    let mut all = vec![
        Fault::CrashBoth,
        Fault::PowerLoss,
        Fault::CutLink(10),
        Fault::CutLink(4000),
    ];
    for c in Controller::BOTH {
        all.extend([
            Fault::Crash(c),
            Fault::LoseNv(c),
            Fault::Pause(c, 1800),
            Fault::LoseFrame(c),
        ]);
    }
    all
}

/// What a worker does of all that is to be done: every n-th.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Which worker.
    pub worker: u64,
    /// Of how many.
    pub of: u64,
}

impl Share {
    fn has(self, n: u64) -> bool {
        n % self.of == self.worker
    }
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Events of the clean runs, those of other workers included.
    pub events: u64,
    /// Runs with faults.
    pub runs: u64,
    /// Those that failed.
    pub found: Vec<Found>,
}

/// Every single fault at every event and every effect of one scenario.
///
/// # Errors
/// The clean run fails.
pub fn singles(script: &Script, share: Share) -> Result<Done, String> {
    let mut faults = faults();
    faults.retain(|f| script.permits(f));
    let mut done = Done::default();
    for_each_event(script, |event, play, effects| {
        done.events += 1;
        if !share.has(event.into()) {
            return;
        }
        let ends = Controller::BOTH.into_iter().flat_map(|c| {
            let after = 0..effects[c.index()];
            after.flat_map(move |n| [Injection::EndsAfter(c, n), Injection::BothEndAfter(c, n)])
        });
        for injection in faults.iter().copied().map(Injection::Fault).chain(ends) {
            let mut play = play.clone();
            injection.into(&mut play);
            done.runs += 1;
            if let Err(what) = caught(|| play.finish()) {
                let moments = vec![Moment { event, injection }];
                let script = script.name;
                done.found.push(Found { script, moments, what });
            }
        }
    })?;
    Ok(done)
}

/// How many first faults there are for pairs in one scenario.
///
/// # Errors
/// The clean run fails.
pub fn first_faults(script: &Script) -> Result<u64, String> {
    let mut events = 0;
    for_each_event(script, |_, _, _| events += 1)?;
    Ok(events * faults_for_pairs().len() as u64)
}

/// The first fault number `n` of a scenario, and every second one at every `stride`-th event after it, the first of them
/// chosen by `n`, so that all are tried in `stride` different scenarios or at `stride` different first events.
///
/// # Errors
/// The clean run fails.
pub fn pairs(script: &Script, n: u64, stride: u64) -> Result<Done, String> {
    let faults = faults_for_pairs();
    let (wanted, fault) = (n / faults.len() as u64, faults[(n % faults.len() as u64) as usize]);
    let first = Moment {
        event: wanted as u32,
        injection: Injection::Fault(fault),
    };
    let mut done = Done::default();
    let mut play = at_event(script, first.event)?;
    first.injection.into(&mut play);
    for event in 0.. {
        if (u64::from(event) + n).is_multiple_of(stride) {
            for second in faults.iter().copied().map(Injection::Fault) {
                let mut play = play.clone();
                second.into(&mut play);
                done.runs += 1;
                if let Err(what) = caught(|| play.finish()) {
                    let second = Moment {
                        event,
                        injection: second,
                    };
                    let (script, moments) = (script.name, vec![first, second]);
                    done.found.push(Found { script, moments, what });
                }
            }
        }
        done.events += 1;
        // What goes wrong after the first fault alone is found by `singles`.
        if !matches!(caught(|| play.advance()), Ok(true)) {
            return Ok(done);
        }
    }
    Ok(done)
}

/// One run with the faults of `moments`, and its whole story.
///
/// # Errors
/// The clean run fails, or there is no such scenario.
pub fn show(name: &str, moments: &[Moment]) -> Result<(String, Result<(), String>), String> {
    let script = scripts().into_iter().find(|s| s.name == name);
    let script = script.ok_or_else(|| format!("there is no scenario {name}"))?;
    let [first, rest @ ..] = moments else {
        return Err("no fault is given".into());
    };
    let mut play = at_event(&script, first.event)?;
    play.tell();
    first.injection.into(&mut play);
    for moment in rest {
        for _ in 0..moment.event {
            play.advance()?;
        }
        moment.injection.into(&mut play);
    }
    let result = catch_unwind(AssertUnwindSafe(|| play.finish_told()));
    Ok(match result {
        Ok((story, result)) => (story, result),
        Err(_) => (String::new(), Err("the core panicked".into())),
    })
}

/// Calls `visit` before each event since the mark, with the play as it is and the effects that the event will have.
fn for_each_event(script: &Script, mut visit: impl FnMut(u32, &Play, [u32; 2])) -> Result<(), String> {
    let mut play = at_mark(script)?;
    for event in 0.. {
        let before = play.clone();
        let more = play.advance()?;
        let effects = [A, B].map(|c| {
            let (now, then) = (play.world.effects_done(), before.world.effects_done());
            (now[c.index()] - then[c.index()]) as u32
        });
        visit(event, &before, effects);
        if !more {
            break;
        }
    }
    Ok(())
}

fn at_mark(script: &Script) -> Result<Play, String> {
    let mut play = Play::begin(script.clone())?;
    while !play.is_marked() && play.advance()? {}
    Ok(play)
}

fn at_event(script: &Script, event: u32) -> Result<Play, String> {
    let mut play = at_mark(script)?;
    for _ in 0..event {
        play.advance()?;
    }
    Ok(play)
}

/// A broken invariant of the core is a failure of the run.
fn caught<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("the core panicked: {}", text.unwrap_or("no reason given")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_it_is_written() {
        for injection in [
            Injection::Fault(faults()[3]),
            Injection::EndsAfter(B, 17),
            Injection::BothEndAfter(A, 0),
        ] {
            let moment = Moment { event: 12, injection };
            assert_eq!(Moment::parse(&moment.to_string()), Some(moment));
        }
        for wrong in ["", "12", "12:", "12:f9999", "12:C1", "x:f1", "12:f1+"] {
            assert_eq!(Moment::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_scenario_ends_well_without_a_fault() {
        for script in scripts() {
            let name = script.name;
            let play = Play::begin(script).unwrap_or_else(|what| panic!("{name}: {what}"));
            play.finish().unwrap_or_else(|what| panic!("{name}: {what}"));
        }
    }

    #[test]
    fn every_single_fault_in_a_clean_write() {
        let script = &scripts()[0];
        let done = singles(script, Share { worker: 0, of: 1 }).expect("the clean run");
        assert!(done.events > 10 && done.runs > 100);
        assert!(done.found.is_empty(), "{}", done.found[0]);
    }
}
