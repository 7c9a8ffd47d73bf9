//! Faults, one after the other, drawn from a seed, on cells under a verifying load. What was done so far is kept in a
//! directory, so that a campaign can be resumed; what went wrong is left there.

use crate::bed::{Bed, Ground};
use crate::fault::{Fault, Kind};
use crate::noise::Noise;
use crate::tally::{Cycle, Tally};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use twincell_client::checker::Random;

/// A host gives a request up after 3 s. Where the machine itself took this long for one page, that says nothing of a move.
const DISTURBED: Duration = Duration::from_secs(1);

/// The file of a campaign in its directory.
const STATE: &str = "campaign.json";
/// Cycles of one cell: a long life, and a failure leaves no more than its history.
const ROUND: u64 = 40;
/// Everything is read back after so many cycles.
const READ_BACK: u64 = 8;

/// Of all cycles, so many must have had data at stake; else they test nothing.
const COUNTED_PERCENT: u64 = 50;

/// A campaign and how far it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Campaign {
    /// Everything that is drawn follows from it.
    pub seed: u64,
    /// The names of the kinds that there are to be.
    pub kinds: Vec<String>,
    /// Which of them comes next.
    pub order: Order,
    /// The number of the next cycle.
    pub next: u64,
    /// What was done.
    pub tally: Tally,
    #[serde(skip)]
    dir: PathBuf,
}

/// Which kind comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// One is drawn.
    Drawn,
    /// One after the other.
    InTurn,
}

/// When to end.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many cycles with data at stake, those before a resumption included.
    Counted(u64),
    /// At this time.
    Time(Instant),
}

impl Campaign {
    /// A new one in `dir`, which is made if it is not there.
    pub fn new(dir: &Path, seed: u64, kinds: &[Kind], order: Order) -> Result<Campaign, String> {
        std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let campaign = Campaign {
            seed,
            kinds: kinds.iter().map(Kind::to_string).collect(),
            order,
            next: 0,
            tally: Tally::default(),
            dir: dir.to_owned(),
        };
        campaign.save()?;
        Ok(campaign)
    }

    /// The one that was begun in `dir`.
    pub fn resume(dir: &Path) -> Result<Campaign, String> {
        let file = dir.join(STATE);
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let campaign: Campaign = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
        Ok(Campaign {
            dir: dir.to_owned(),
            ..campaign
        })
    }

    fn save(&self) -> Result<(), String> {
        let file = self.dir.join(STATE);
        let failed = |e: std::io::Error| format!("{}: {e}", file.display());
        let text = serde_json::to_string(self).map_err(|e| format!("{}: {e}", file.display()))?;
        let new = file.with_extension("new");
        std::fs::write(&new, text).map_err(failed)?;
        std::fs::rename(&new, &file).map_err(failed)
    }

    fn is_over(&self, until: Until) -> bool {
        match until {
            Until::Counted(cycles) => {
                let many = self.tally.cycles() * COUNTED_PERCENT > cycles * 100;
                self.tally.counted() >= cycles || many
            }
            Until::Time(at) => Instant::now() >= at,
        }
    }

    /// Goes on until it is over, or something is wrong.
    pub fn run(&mut self, until: Until) -> Result<(), String> {
        let kinds = self.kinds.iter().map(|k| k.parse()).collect::<Result<Vec<Kind>, _>>()?;
        while !self.is_over(until) {
            self.round(&kinds, until)?;
        }
        let (counted, cycles) = (self.tally.counted(), self.tally.cycles());
        if counted * 100 < cycles * COUNTED_PERCENT {
            return Err(format!("of {cycles} cycles only {counted} count: they show too little"));
        }
        Ok(())
    }

    /// The kind of cycle `n`, and where it is done.
    fn plan(&self, kinds: &[Kind], n: u64, random: &mut Random) -> (Kind, Ground) {
        if self.order == Order::InTurn {
            let kind = kinds[n as usize % kinds.len()];
            return (
                kind,
                if kind.needs_shelf() {
                    Ground::Shelf
                } else {
                    Ground::Plain
                },
            );
        }
        let turn = match n / ROUND % 8 {
            3 | 7 => Ground::Shelf,
            5 if rustix::process::geteuid().is_root() => Ground::Apart,
            _ => Ground::Plain,
        };
        let fits = |ground: Ground| -> Vec<Kind> { kinds.iter().copied().filter(|k| k.fits(ground)).collect() };
        let found = [turn, Ground::Plain, Ground::Shelf]
            .into_iter()
            .map(|ground| (fits(ground), ground))
            .find(|(kinds, _)| !kinds.is_empty());
        let (kinds, ground) = found.expect("every kind fits somewhere");
        (Kind::draw(&kinds, random), ground)
    }

    /// One cell, from its making to its last reading back.
    fn round(&mut self, kinds: &[Kind], until: Until) -> Result<(), String> {
        let begun = Instant::now();
        let (milliseconds, writes) = (self.tally.milliseconds, self.tally.writes);
        let ground = self.plan(kinds, self.next, &mut Random::new(self.seed, self.next)).1;
        let mut bed = Bed::start(&self.dir, self.seed.wrapping_add(self.next << 16), ground)?;
        let noise = Noise::start(&self.dir).map_err(|e| format!("{}: {e}", self.dir.display()))?;
        for n in 1..=ROUND {
            let mut random = Random::new(self.seed, self.next);
            let (kind, here) = self.plan(kinds, self.next, &mut random);
            if here != ground {
                break;
            }
            let what = format!("seed {}, cycle {}: {kind}", self.seed, self.next);
            self.cycle(&mut bed, &noise, kind, &mut random)
                .and_then(|()| if n % READ_BACK == 0 { bed.read_back() } else { Ok(()) })
                .map_err(|e| bed.evidence(&format!("{what}: {e}")))?;
            self.next += 1;
            self.tally.writes = writes + bed.writes();
            self.tally.milliseconds = milliseconds + begun.elapsed().as_millis() as u64;
            self.save()?;
            if self.is_over(until) {
                break;
            }
        }
        self.tally.writes = writes + bed.end()?;
        self.tally.milliseconds = milliseconds + begun.elapsed().as_millis() as u64;
        self.save()
    }

    /// One fault, and the way back.
    fn cycle(&mut self, bed: &mut Bed, noise: &Noise, kind: Kind, random: &mut Random) -> Result<(), String> {
        let fault = kind.fault(random);
        let before = bed.before()?;
        noise.take_longest();
        bed.take_longest_gap();
        let since = Instant::now();
        let as_meant = bed.inject(fault, &before).map_err(|e| format!("{fault:?}: {e}"))?;
        if fault == Fault::Move && !as_meant && noise.longest().disk < DISTURBED {
            return Err("hosts saw errors of a planned move".to_owned());
        }
        bed.recover(&before, since, matches!(fault, Fault::Again(..)))
            .map_err(|e| format!("{fault:?}: {e}"))?;
        let cycle = Cycle {
            counts: before.at_stake && as_meant,
            changed: bed.epoch() != before.epoch,
            pause: bed.take_longest_gap(),
            noise: noise.take_longest().longer(),
        };
        let ms = |d: Duration| d.as_millis();
        println!(
            "{}: {fault:?}; counts: {}, membership changed: {}, pause {} ms, noise {} ms, whole after {} ms",
            self.next,
            cycle.counts,
            cycle.changed,
            ms(cycle.pause),
            ms(cycle.noise),
            ms(since.elapsed())
        );
        self.tally.count(&bed.label(kind), cycle);
        Ok(())
    }
}
