//! How each fault is done to a cell.

use crate::bed::{Bed, Before, LUN, NAMES, NOTICED, until_gone};
use crate::cell::{SETTLE, is_alive, signal};
use crate::fault::{Fault, LinkFault, Moment, Second, Who};
use crate::proxy::Way;
use crate::shelf::Trouble;
use rustix::process::Signal;
use std::io::{Read, Seek, SeekFrom};
use std::process::Child;
use std::time::{Duration, Instant};

/// How often a log is looked at for a moment that passes in milliseconds.
const WATCH: Duration = Duration::from_millis(1);

impl Bed {
    /// Does it, for as long as it lasts, and ends it. Whether it was what it was meant to be: a second fault may come
    /// too late, when the cell has recovered from the first; of a planned move hosts should see nothing.
    pub fn inject(&mut self, fault: Fault, before: &Before) -> Result<bool, String> {
        let name = |who| NAMES[before.of(who)[0]];
        match fault {
            Fault::Kill(who) => kill(&before.pids(who))?,
            Fault::Stop(who, lasts) => stop(&before.pids(who), lasts),
            Fault::Link(fault) => self.break_link(fault)?,
            Fault::Restart(Who::Both) => self.operate(&["cell", "stop"])?,
            Fault::Restart(who) => self.operate(&["controller", "stop", name(who)])?,
            Fault::Move => {
                let failed = self.failed_tries();
                self.operate(&["lun", "move", LUN, "--to", name(Who::Mirror)])?;
                return Ok(self.failed_tries() == failed);
            }
            Fault::Disk(n, trouble, lasts) => {
                let shelf = self
                    .shelf
                    .as_ref()
                    .ok_or("this cell's disks do not fail when they are told to")?;
                shelf.tell(n, trouble);
                std::thread::sleep(lasts);
                shelf.tell(n, Trouble::None);
            }
            Fault::Again(who, moment, second) => return self.strike_again(who, moment, second, before),
        }
        Ok(true)
    }

    fn operate(&self, args: &[&str]) -> Result<(), String> {
        self.cell.twincell(args).ok().map(|_| ())
    }

    fn break_link(&mut self, fault: LinkFault) -> Result<(), String> {
        let proxy = &self.proxy;
        match fault {
            LinkFault::Close => proxy.close(),
            LinkFault::CloseHalf(way) => proxy.close_half(way),
            LinkFault::Cut(lasts) => {
                proxy.cut();
                std::thread::sleep(lasts);
            }
            LinkFault::Silent {
                ways,
                lasts,
                comes_late,
            } => {
                proxy.hold(ways);
                std::thread::sleep(lasts);
                if !comes_late {
                    proxy.close();
                }
            }
            LinkFault::Slow(delay, lasts) => {
                proxy.delay(delay);
                std::thread::sleep(lasts);
            }
            LinkFault::Garble(way, bit) => {
                let before = proxy.garbled();
                proxy.garble(way, bit);
                // Heartbeats come all the time.
                watch("a bit on the link that can be flipped", NOTICED * 10, || {
                    Ok(proxy.garbled() > before)
                })?;
            }
        }
        proxy.heal();
        Ok(())
    }

    /// Kills one of the two; and at a moment of the recovery from that, the second fault. Whether it came before the
    /// end of the recovery.
    fn strike_again(&mut self, who: Who, moment: Moment, second: Second, before: &Before) -> Result<bool, String> {
        let victim = before.of(who)[0];
        let survivor = 1 - victim;
        let since = self.log_length(survivor);
        kill(&before.pids(who))?;
        self.watch_log(survivor, since, "Serving { mirrored: false }")?;
        match moment {
            Moment::Alone(after) => std::thread::sleep(after),
            Moment::Starting(after) => {
                watch("a process that starts", SETTLE, || self.starts(victim))?;
                std::thread::sleep(after);
            }
            Moment::Joining(after) => {
                watch("a controller that joins", SETTLE, || {
                    Ok(self.starts(victim)? && self.logged(survivor, since, "PartnerJoins"))
                })?;
                std::thread::sleep(after);
            }
        }
        let in_time = !self.logged(survivor, since, "Mirrored");
        let of_survivor: Vec<u32> = before.pids[survivor].into_iter().collect();
        let of_joiner: Vec<u32> = self.children[victim].iter().map(|c| c.id()).collect();
        match second {
            Second::KillSurvivor => kill(&of_survivor)?,
            Second::KillJoiner => kill(&of_joiner)?,
            Second::StopSurvivor(lasts) => stop(&of_survivor, lasts),
            Second::StopJoiner(lasts) => stop(&of_joiner, lasts),
            Second::CloseLink => self.proxy.close(),
            Second::SilentLink(lasts) => self.break_link(LinkFault::Silent {
                ways: &Way::BOTH,
                lasts,
                comes_late: true,
            })?,
        }
        Ok(in_time)
    }

    /// Starts a controller unless its process is there.
    fn starts(&mut self, n: usize) -> Result<bool, String> {
        let is_there = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        if !self.children[n].as_mut().is_some_and(is_there) {
            self.start_missing()?;
        }
        Ok(self.children[n].as_mut().is_some_and(is_there))
    }

    fn log_length(&self, n: usize) -> u64 {
        std::fs::metadata(self.log(n)).map_or(0, |m| m.len())
    }

    /// Whether a log says this after its first `since` bytes.
    fn logged(&self, n: usize, since: u64, what: &str) -> bool {
        let mut text = String::new();
        let read = std::fs::File::open(self.log(n)).and_then(|mut log| {
            log.seek(SeekFrom::Start(since))?;
            log.read_to_string(&mut text)
        });
        read.is_ok() && text.contains(what)
    }

    /// Waits until a log says this after its first `since` bytes.
    fn watch_log(&self, n: usize, since: u64, what: &str) -> Result<(), String> {
        let told = format!("{what:?} in the log of {}", NAMES[n]);
        watch(&told, SETTLE, || Ok(self.logged(n, since, what)))
    }
}

/// Waits for what passes quickly.
fn watch(what: &str, limit: Duration, mut is_so: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    while !is_so()? {
        if Instant::now() > deadline {
            return Err(format!("waited {limit:?} for {what}"));
        }
        std::thread::sleep(WATCH);
    }
    Ok(())
}

fn kill(pids: &[u32]) -> Result<(), String> {
    pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
    pids.iter().try_for_each(|pid| until_gone(*pid))
}

/// SIGSTOP for so long, or until the partner's fence has ended them.
fn stop(pids: &[u32], lasts: Duration) {
    pids.iter().for_each(|pid| signal(*pid, Signal::STOP));
    let until = Instant::now() + lasts;
    while Instant::now() < until && pids.iter().any(|pid| is_alive(*pid)) {
        std::thread::sleep(WATCH * 10);
    }
    pids.iter().for_each(|pid| signal(*pid, Signal::CONT));
}
