//! How each disk behaves, as this controller sees it: whether it answers, since when it does not do what it should, and
//! when it is tried again.

use crate::ids::{DiskIndex, Nanos, Time};

/// How long a disk is left alone after an error.
const AFTER_ERROR: Nanos = Nanos::from_millis(300);
/// A disk that has failed for this long is out of order: another copy has to do, and where there is none hosts get errors.
const GIVE_UP_AFTER: Nanos = Nanos::from_millis(900);
/// The same of one that has not answered since something was overdue: longer, for it may only be slow.
const GIVE_UP_STALLED_AFTER: Nanos = Nanos::from_millis(3000);

/// What a disk was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Duty {
    /// To take data.
    Write,
    /// To make durable what it took.
    Flush,
}

/// One disk. It is in trouble from the first error, or the first I/O that is overdue, until it has done again what it
/// failed at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Disk {
    /// I/Os that are overdue and have not ended.
    overdue: u16,
    /// The last write failed, and the last flush.
    fails: [bool; 2],
    /// Since when it has been in trouble.
    since: Option<Time>,
    /// It is left alone until then.
    not_before: Time,
    /// Reads in flight.
    reads: u16,
}

impl Disk {
    fn is_in_trouble(&self) -> bool {
        self.overdue > 0 || self.fails != [false; 2]
    }

    /// Whether it has been in trouble for too long to be only disturbed. One that answers with errors has been tried again
    /// meanwhile, and has failed again: nothing is known of one that nobody needs, or that waits for another.
    fn is_given_up(&self, now: Time) -> bool {
        let Some(since) = self.since else { return false };
        if self.overdue > 0 {
            now.since(since) >= GIVE_UP_STALLED_AFTER
        } else {
            // It is left alone for a while from its last error on.
            self.not_before.since(since) >= Nanos(GIVE_UP_AFTER.0 + AFTER_ERROR.0)
        }
    }
}

/// The disks of the cell.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Disks {
    disks: Vec<Disk>,
    /// Most reads in flight on one disk.
    reads_max: u16,
    /// How many are in trouble.
    in_trouble: usize,
    /// None is given up before this time.
    keep_until: Time,
    /// Most were in trouble at once until shortly before this time: it is not the disks.
    excused_until: Time,
}

impl Disks {
    /// `count` disks, each with at most `reads_max` reads in flight.
    pub fn new(count: usize, reads_max: u16) -> Disks {
        Disks {
            disks: vec![Disk::default(); count],
            reads_max: reads_max.max(1),
            in_trouble: 0,
            keep_until: Time(0),
            excused_until: Time(0),
        }
    }

    fn get(&self, disk: DiskIndex) -> &Disk {
        &self.disks[disk.index()]
    }

    /// Whether all that was asked of it ends in time.
    pub fn answers(&self, disk: DiskIndex) -> bool {
        self.get(disk).overdue == 0
    }

    /// Whether nothing is to be written to it now: it was left alone after an error, or does not answer. What is written
    /// before a late write has ended could be undone by it.
    pub fn is_blocked(&self, disk: DiskIndex, now: Time) -> bool {
        !self.answers(disk) || self.get(disk).not_before > now
    }

    /// When a blocked disk is tried again; `None` where its answer is waited for.
    pub fn retry_at(&self, disk: DiskIndex) -> Option<Time> {
        self.answers(disk).then_some(self.get(disk).not_before)
    }

    /// Whether it has been in trouble for so long that nothing is expected of it. Now and then it is tried all the same.
    /// While most are in trouble at once they are waited for.
    pub fn is_out_of_order(&self, disk: DiskIndex, now: Time) -> bool {
        self.get(disk).is_given_up(now) && self.is_blocked(disk, now) && self.excused_until <= now
    }

    /// Whether any disk but this one does not answer, or is to be given up.
    pub fn is_another_doubtful(&self, disk: DiskIndex, now: Time) -> bool {
        let others = self.disks.iter().enumerate().filter(|(n, _)| *n != disk.index());
        others.into_iter().any(|(_, d)| d.overdue > 0 || d.is_given_up(now))
    }

    /// Whether any disk is in trouble.
    pub fn any_in_trouble(&self) -> bool {
        self.in_trouble > 0
    }

    /// What happens to a disk may bring it into trouble, or out of it.
    fn change(&mut self, disk: DiskIndex, now: Time, what: impl FnOnce(&mut Disk)) {
        let state = &mut self.disks[disk.index()];
        what(state);
        match (state.since, state.is_in_trouble()) {
            (None, true) => {
                state.since = Some(now);
                self.in_trouble += 1;
            }
            (Some(_), false) => {
                state.since = None;
                self.in_trouble -= 1;
            }
            _ => {}
        }
    }

    /// It failed. Returns whether that is news.
    pub fn failed(&mut self, disk: DiskIndex, duty: Duty, now: Time) -> bool {
        let news = self.get(disk).not_before <= now;
        self.change(disk, now, |d| {
            d.fails[duty as usize] = true;
            d.not_before = now + AFTER_ERROR;
        });
        news
    }

    /// It did what it was asked for.
    pub fn worked(&mut self, disk: DiskIndex, duty: Duty, now: Time) {
        self.change(disk, now, |d| d.fails[duty as usize] = false);
    }

    /// An I/O on it is overdue.
    pub fn overdue(&mut self, disk: DiskIndex, now: Time) {
        self.change(disk, now, |d| d.overdue += 1);
    }

    /// What it failed at while it was missing is forgotten: it begins anew.
    pub fn forgive(&mut self, disk: DiskIndex, now: Time) {
        self.change(disk, now, |d| {
            d.fails = [false; 2];
            d.not_before = now;
        });
    }

    /// An overdue I/O has ended. Returns whether it was the last.
    pub fn ended(&mut self, disk: DiskIndex, now: Time) -> bool {
        self.change(disk, now, |d| d.overdue -= 1);
        self.answers(disk)
    }

    /// Whether one more read may be in flight on it: a disk that does not answer must not hold all memory for reads.
    pub fn may_read(&self, disk: DiskIndex) -> bool {
        self.get(disk).reads < self.reads_max
    }

    /// A read begins.
    pub fn read_begins(&mut self, disk: DiskIndex) {
        self.disks[disk.index()].reads += 1;
    }

    /// A read has ended.
    pub fn read_ends(&mut self, disk: DiskIndex) {
        self.disks[disk.index()].reads -= 1;
    }

    /// The disk among those in use to go on without: one that has been in trouble for too long to be only disturbed. None
    /// while most are in trouble at once, and for a while after that: then it is not the disk.
    pub fn choose_to_give_up(&mut self, now: Time, is_used: impl Fn(DiskIndex) -> bool) -> Option<DiskIndex> {
        if self.in_trouble == 0 {
            return None;
        }
        let (mut used, mut in_trouble, mut first) = (0, 0, None);
        for (n, disk) in self.disks.iter().enumerate() {
            let index = DiskIndex(n as u16);
            if is_used(index) {
                used += 1;
                in_trouble += usize::from(disk.is_in_trouble());
                first = first.or(disk.is_given_up(now).then_some(index));
            }
        }
        if in_trouble * 2 > used {
            self.excused_until = now + GIVE_UP_AFTER;
        }
        first.filter(|_| self.keep_until.max(self.excused_until) <= now)
    }

    /// No disk is to be given up for a while.
    pub fn give_up_later(&mut self, now: Time) {
        self.keep_until = now + GIVE_UP_AFTER;
    }
}
